-- What an executor writes on behalf of its live workflows, and how those who wait for it are told.

-- The topics that a parked workflow waits for, as they travel: joined by a character that no topic contains.
create function operon.topics(joined text) returns text[] language sql immutable as
$$select case when joined = '' then '{""}'::text[] else pg_catalog.string_to_array(joined, e'\x1f') end$$;

-- Tells the executors of these workflows to look at them, one notification each; gives those of the caller's own.
-- Those that nobody alive owns are for whoever comes first.
create function operon.ring(me bigint, workflows uuid[], word text default 'wake') returns uuid[] language plpgsql
set search_path = '' set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
    mine uuid[];
begin
    -- A payload has room for some two hundred UUIDs.
    perform pg_catalog.pg_notify(
        coalesce('operon_' || e.incarnation, 'operon_all'),
        case when e.incarnation is null then 'work'
            when count(*) > 200 then 'wake:*'
            else word || ':' || pg_catalog.string_agg(w.workflow_uuid::text, ',') end
    )
    from operon.workflows w
    left join operon.executors e on e.incarnation = w.owner and e.state <> 2
    where w.workflow_uuid = any (workflows) and w.status + 0 = 0 and w.owner is distinct from me
    group by e.incarnation;
    select array_agg(w.workflow_uuid) into mine
    from operon.workflows w
    where w.workflow_uuid = any (workflows) and w.status + 0 = 0 and w.owner + 0 = me;
    return mine;
end
$$;

-- What parked workflows waited for has happened: events of these keys, or, without keys, the end of the targets.
-- The caller has locked the targets' rows, so whoever parks meanwhile has either been seen here or looks after us.
create function operon.wake(me bigint, targets uuid[], keys text[]) returns uuid[] language plpgsql
set search_path = '' set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
    waiters uuid[];
begin
    with happened as (
        update operon.waits x set due = true
        from unnest(targets, coalesce(keys, array_fill(null::text, array[cardinality(targets)]))) as t (target, key)
        where x.target = any (array[t.target]) and (t.key is null or x.key = t.key) and not x.due
        returning x.waiter
    )
    select array_agg(distinct waiter) into waiters from happened;
    return case when waiters is not null then operon.ring(me, waiters) end;
end
$$;
