-- Long pauses between the attempts of a communicator, in which a workflow may leave memory.

-- Keeps with the announcement of a call (-1 of step 0) what became of its attempts so far. False, and nothing is kept, if
-- the workflow is not this life's any more. Locks the executor first, as a flush does, so that nothing of a workflow is
-- written after it was taken over or cancelled.
create function operon.keep_attempts(
    me bigint, id uuid, its_epoch integer, call integer, call_kind smallint, its_name text, its_attempts bytea
) returns boolean language plpgsql
set search_path = '' set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
begin
    perform from operon.executors e where e.incarnation = me and e.state <> 2 for share;
    if not found then
        return false;
    end if;
    perform from operon.workflows w
    where w.workflow_uuid = id and w.owner = me and w.epoch = its_epoch and w.status = 0;
    if not found then
        return false;
    end if;
    insert into operon.checkpoints as c (workflow_uuid, step, kind, name, output)
    values (id, call, call_kind, its_name, its_attempts)
    on conflict on constraint checkpoints_pkey do update
    set output = excluded.output, completed_at = excluded.completed_at;
    return true;
end
$$;
