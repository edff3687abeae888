-- Parking: workflows that only wait leave memory, and their rows say what brings them back. What it does with locks is
-- said in `deliver`. Gives those that stay, because what they wait for is there already or is just being changed.
create function operon.park(
    me bigint, p_uuid uuid[], p_kind smallint[], p_what text[], p_topics text[], p_wake float8[],
    w_waiter uuid[], w_target uuid[], w_key text[]
) returns uuid[] language plpgsql as $$
declare
    locked uuid[];
    parked uuid[];
    held uuid[]; -- those they wait for, locked
    ready uuid[]; -- those for whom it is there already
    busy uuid[];
begin
    locked := array(
        select w.workflow_uuid from operon.workflows w
        where w.workflow_uuid = any (p_uuid) and w.owner + 0 = me and w.status + 0 = 0
        order by w.workflow_uuid for update skip locked
    );
    parked := locked;
    if w_target is not null then
        held := array(
            select w.workflow_uuid from operon.workflows w
            where w.workflow_uuid = any (w_target) order by w.workflow_uuid for share skip locked
        );
        parked := array(
            select p from unnest(parked) as p
            where not exists (
                select from unnest(w_waiter, w_target) as x (waiter, target)
                where x.waiter = p and x.target <> all (held)
            )
        );
        insert into operon.waits (target, waiter, key)
        select x.target, x.waiter, x.key from unnest(w_waiter, w_target, w_key) as x (waiter, target, key)
        where x.waiter = any (parked)
        on conflict (target, waiter, key) do update set due = false;
    end if;
    -- What they waited for before, and somebody was just setting due when they went on.
    if exists (select from operon.waits x where x.waiter = any (parked) and x.due) then
        delete from operon.waits x where x.ctid = any (array(
            select y.ctid from operon.waits y where y.waiter = any (parked) and y.due for update skip locked
        ));
    end if;
    -- The look, in a new statement.
    ready := array(
        select p.id from unnest(p_uuid, p_topics) as p (id, topics)
        where p.topics is not null and exists (
            select from operon.notifications n
            where n.destination = any (array[p.id]) and coalesce(n.topic, '') = any (operon.topics(p.topics))
        )
        union
        select x.waiter from unnest(w_waiter, w_target, w_key) as x (waiter, target, key)
        where exists (
                select from operon.workflows t where t.workflow_uuid = any (array[x.target]) and t.status + 0 <> 0
                    -- One that was cancelled, or is dead, may be resumed, and set the event after all.
                    and (x.key = '' or t.status + 0 in (1, 2))
            )
            or exists (select from operon.events e where e.workflow_uuid = any (array[x.target]) and e.key = x.key)
    );
    update operon.workflows w
    set wait_kind = p.kind, wait_what = p.what, wait_since = clock_timestamp(), wait_topics = operon.topics(p.topics),
        wake_at = pg_catalog.to_timestamp(p.wake)
    from unnest(p_uuid, p_kind, p_what, p_topics, p_wake) as p (id, kind, what, topics, wake)
    where w.workflow_uuid = any (array[p.id]) and p.id = any (parked) and p.id <> all (ready);
    busy := array(select p from unnest(p_uuid) as p where p <> all (parked) or p = any (ready));
    -- Who stays runs, also in the database: it may have parked before, and been rung for before it left memory.
    if busy && locked then
        delete from operon.waits x where x.waiter = any (busy) and x.waiter = any (locked);
        update operon.workflows w
        set wait_kind = null, wait_what = null, wait_since = null, wait_topics = null, wake_at = null
        where w.workflow_uuid = any (busy) and w.workflow_uuid = any (locked) and w.wait_kind is not null;
    end if;
    return busy;
end
$$;
