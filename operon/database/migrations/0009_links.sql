-- Links between workflows: who is told of the end of another one, and what becomes of children that are left behind.
--
-- A monitor is a row until the other workflow ends. The transaction that ends it, whichever that is, takes the row away
-- and puts a message into the watcher's mailbox in its place: so there is exactly one. All of them end by way of
-- `operon.wake`, which here learns to look for monitors as it looks for those who wait.
--
-- No end is missed, because a monitor locks its target FOR SHARE before it looks, and an end has it FOR NO KEY UPDATE.

create table operon.monitors (
    ref uuid primary key, -- made of the watcher's UUID and the number of its step
    target uuid not null,
    watcher uuid not null
);
create index monitors_target on operon.monitors (target);
create index monitors_watcher on operon.monitors (watcher);

-- The message that a workflow has ended. The error is put in as it is stored: to take it apart here could fail.
create function operon.down(ref uuid, w operon.workflows) returns bytea language sql stable set search_path = '' as $$
select convert_to(
        '{"ref":"' || ref || '","workflow_uuid":"' || w.workflow_uuid || '","name":' || to_json(w.name)::text
        || ',"status":"' || (array['PENDING', 'SUCCESS', 'ERROR', 'CANCELLED', 'DEAD'])[w.status + 1] || '","error":',
        'UTF8'
    ) || coalesce(w.error, 'null'::bytea) || '}'::bytea
$$;

-- Which monitor such a message is of, and whose end: by their places, because its error may be beyond what Postgres reads.
create function operon.down_ref(body bytea) returns uuid language sql immutable as
$$select convert_from(substr(body, 9, 36), 'UTF8')::uuid$$;

create function operon.down_of(body bytea) returns uuid language sql immutable as
$$select convert_from(substr(body, 64, 36), 'UTF8')::uuid$$;

-- One workflow wants to be told of the end of another, in the caller's transaction, which holds READ COMMITTED.
-- 'monitoring'; 'down' if it has ended and so the message is there already; 'unknown', also if it is not `whose`.
create function operon.monitor(ref uuid, target uuid, watcher uuid, whose text) returns text language plpgsql
set search_path = '' set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
    w operon.workflows;
begin
    select * into w from operon.workflows x
    where x.workflow_uuid = target and operon.is_owned(whose, x.authenticated_user) for share;
    if not found then
        return 'unknown';
    end if;
    if w.status <> 0 then
        insert into operon.notifications (destination, topic, body) values (watcher, 'operon.down', operon.down(ref, w));
        return 'down';
    end if;
    insert into operon.monitors (ref, target, watcher) values (ref, target, watcher);
    return 'monitoring';
end
$$;

-- These workflows have ended: who monitors them gets a message. Gives those of them that may wait for it, to be rung for.
-- It is not refused by a full mailbox, because nobody could be told that it was. Who has itself ended for good is told
-- nothing more; who was cancelled, or is dead, may be resumed, and then finds it.
create function operon.tell_monitors(ended uuid[]) returns uuid[] language plpgsql
set search_path = '' set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
    refs uuid[];
    targets uuid[];
    watchers uuid[];
    direct uuid[];
    aside uuid[]; -- who wait for other things, but may just be coming back
begin
    if not exists (select from operon.monitors m where m.target = any (ended))
        and not exists (select from operon.monitors m where m.watcher = any (ended)) then
        return null;
    end if;
    with gone as (
        delete from operon.monitors m where m.target = any (ended) returning m.ref, m.target, m.watcher
    )
    select array_agg(g.ref), array_agg(g.target), array_agg(g.watcher) into refs, targets, watchers from gone g;
    if refs is not null then
        -- As anybody who sends does: so whoever parks meanwhile has either been seen here or looks after us.
        perform from operon.workflows w where w.workflow_uuid = any (watchers) order by w.workflow_uuid for key share;
        with told as materialized (
            select u.n, u.ref, u.target, u.watcher, w.wait_kind is null as runs,
                w.wait_kind is not null and coalesce('operon.down' = any (w.wait_topics), false) as woke
            from unnest(refs, targets, watchers) with ordinality as u (ref, target, watcher, n)
            join operon.workflows w on w.workflow_uuid = any (array[u.watcher]) and w.status + 0 not in (1, 2)
        ), sent as (
            insert into operon.notifications (destination, topic, body, woke)
            select t.watcher, 'operon.down', operon.down(t.ref, w), t.woke
            from told t join operon.workflows w on w.workflow_uuid = any (array[t.target])
        )
        select array_agg(distinct t.watcher) filter (where t.runs or t.woke),
            array_agg(distinct t.watcher) filter (where not (t.runs or t.woke))
        into direct, aside from told t;
        if aside is not null then
            perform operon.ring(0, aside, 'look');
        end if;
    end if;
    -- What those who ended for good had monitored. What is locked is being taken away by somebody else.
    delete from operon.monitors m where m.ref = any (array(
        select x.ref from operon.monitors x
        join operon.workflows w on w.workflow_uuid = any (array[x.watcher]) and w.status + 0 in (1, 2)
        where x.watcher = any (ended) for update of x skip locked
    ));
    return direct;
end
$$;

-- As before. At an end monitors are told, and what would have woken the workflow, or was to, does not any more: every look
-- for work would read it, for ever.
create or replace function operon.wake(me bigint, targets uuid[], keys text[]) returns uuid[] language plpgsql
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
    if keys is null then
        update operon.notifications n set woke = false where n.destination = any (targets) and n.woke;
        delete from operon.waits x where x.waiter = any (targets);
        waiters := waiters || operon.tell_monitors(targets);
    end if;
    return case when waiters is not null then operon.ring(me, waiters) end;
end
$$;

-- Stops a workflow for good, with those of its children that are not to go on without it: which ones, the steps say that
-- started them. Its executor first, if it comes to that, as a flush and `operon.cancel` do.
create function operon.die(id uuid, me bigint, error bytea, reason bytea) returns uuid[] language plpgsql
set search_path = '' set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
    children uuid[] := array(
        select (convert_from(c.output, 'UTF8')::json ->> 0)::uuid from operon.checkpoints c
        where c.workflow_uuid = id and c.kind = 2 and convert_from(c.output, 'UTF8')::json ->> 1 = 'cancel'
        order by c.step desc
    );
begin
    if cardinality(children) > 0 then
        perform from operon.executors e where e.incarnation = me for update;
    end if;
    update operon.workflows w
    set status = 4, error = die.error, last_error = die.error, updated_at = clock_timestamp(),
        wait_kind = null, wait_what = null, wait_since = null, wait_topics = null, wake_at = null
    where w.workflow_uuid = id and w.owner = me and w.status = 0;
    if not found then
        return null;
    end if;
    perform operon.cancel(child, reason) from unnest(children) as child;
    return operon.wake(me, array[id], null);
end
$$;

-- As before. Among those that go on together an end that was not yet received has not happened: its message becomes the
-- monitor again that it came from. So a supervisor that is resumed still has the children that were cancelled with it.
create or replace function operon.resume(root uuid) returns uuid[] language plpgsql
set search_path = '' set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
    members uuid[] := operon.family(root, '{3,4}');
begin
    update operon.workflows w
    set status = 0, error = null, owner = null, epoch = w.epoch + 1, deadline = null, crash_count = 0,
        wait_kind = null, wait_what = null, wait_since = null, wait_topics = null, wake_at = null,
        updated_at = clock_timestamp()
    where w.workflow_uuid = any (members) and w.status in (3, 4);
    with undone as (
        delete from operon.notifications n
        where n.destination = any (members) and n.topic = 'operon.down' and operon.down_of(n.body) = any (members)
        returning n.destination, n.body
    )
    insert into operon.monitors (ref, target, watcher)
    select operon.down_ref(u.body), operon.down_of(u.body), u.destination from undone u;
    if cardinality(members) > 0 then
        perform pg_catalog.pg_notify('operon_all', 'work');
    end if;
    return members;
end
$$;

create or replace view operon.readable_checkpoints as
select workflow_uuid, step,
    (array['transaction', 'communicator', 'child', 'result', 'status', 'now', 'uuid4', 'random', 'sql', 'call',
        'send', 'recv', 'set_event', 'get_event', 'sleep', 'wait',
        'cancel', 'resume', 'monitor', 'demonitor', 'value'])[kind + 1]
        as kind,
    name, started_at, completed_at, coalesce(attempts, 1) as attempts,
    convert_from(output, 'UTF8') as output, convert_from(error, 'UTF8') as error
from operon.checkpoints;
