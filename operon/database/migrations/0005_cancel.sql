-- Cancelling and resuming.
--
-- Once `operon.cancel` has returned, nothing of the workflow commits any more. Its flushes and this meet at the row of its
-- executor: whichever is second sees what the first has done. An executor whose flush finds `revoked` drops what it has
-- of these workflows, and takes the note away. Transactions of the workflow meet it at the workflow's own row.

-- A workflow and what it has started, and they theirs, as far as it is in one of these states.
create function operon.family(root uuid, states smallint[]) returns uuid[] language plpgsql
set search_path = '' set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
begin
    return array(
        with recursive family as (
            select w.workflow_uuid from operon.workflows w where w.workflow_uuid = root and w.status = any (states)
            union
            select c.workflow_uuid from operon.workflows c join family f on c.parent = any (array[f.workflow_uuid])
            where c.parent is not null and c.status in (0, 3) and c.status = any (states)
        )
        select workflow_uuid from family order by workflow_uuid
    );
end
$$;

-- Cancels a workflow, and its children with it. Gives those that were cancelled; none if it was finished, or unknown.
create function operon.cancel(root uuid, reason bytea) returns uuid[] language plpgsql
set search_path = '' set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
    members uuid[];
    owners bigint[];
    locked bigint[] := '{}';
    seen uuid[] := '{}';
begin
    -- The executors first and then the workflows, as a flush does; again until nothing has changed in between.
    loop
        members := operon.family(root, '{0}');
        owners := array(
            select distinct e.incarnation from operon.workflows w
            join operon.executors e on e.incarnation = w.owner and e.state <> 2
            where w.workflow_uuid = any (members) order by e.incarnation
        );
        exit when owners <@ locked and members <@ seen;
        perform from operon.executors e where e.incarnation = any (owners) order by e.incarnation for update;
        perform from operon.workflows w where w.workflow_uuid = any (members) order by w.workflow_uuid for no key update;
        locked := locked || owners;
        seen := seen || members;
    end loop;
    update operon.executors e
    set revoked = coalesce(e.revoked, '{}') || array(
        select w.workflow_uuid from operon.workflows w where w.workflow_uuid = any (members) and w.owner = e.incarnation
    )
    where e.incarnation = any (owners);
    update operon.workflows w
    set status = 3, error = reason, last_error = reason, updated_at = clock_timestamp(),
        wait_kind = null, wait_what = null, wait_since = null, wait_topics = null, wake_at = null
    where w.workflow_uuid = any (members) and w.status = 0;
    perform pg_catalog.pg_notify('operon_' || owner, 'revoked') from unnest(owners) as owner;
    perform operon.wake(0, members, null);
    return members;
end
$$;

-- Lets a cancelled or dead workflow go on from what it has recorded, and with it what was cancelled of its children.
create function operon.resume(root uuid) returns uuid[] language plpgsql
set search_path = '' set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
    members uuid[] := operon.family(root, '{3,4}');
begin
    update operon.workflows w
    set status = 0, error = null, owner = null, epoch = w.epoch + 1, deadline = null, crash_count = 0,
        wait_kind = null, wait_what = null, wait_since = null, wait_topics = null, wake_at = null,
        updated_at = clock_timestamp()
    where w.workflow_uuid = any (members) and w.status in (3, 4);
    if cardinality(members) > 0 then
        perform pg_catalog.pg_notify('operon_all', 'work');
    end if;
    return members;
end
$$;
