-- Whether a workflow is the one that somebody means who names it. 'ada': of ada's only, '': of nobody's, null: of anyone's.
-- To everybody else it is unknown. One expression, which the planner writes in place of the call.
create function operon.is_owned(whose text, authenticated_user text) returns boolean language sql immutable as
$$select whose is null or whose = coalesce(authenticated_user, '')$$;
