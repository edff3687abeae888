-- Names that are suspended, and messages that are set aside.
--
-- When many workflows of one name crash within a short time, more of them will: none of that name is brought to life any
-- more, on any executor, until one that is tried got past the place where the others crashed.

-- Who crashed of late, and how far it was. Forgotten when their name goes on, and by the hourly sweep.
create table operon.crashers (
    name text not null,
    workflow_uuid uuid not null,
    at timestamptz not null,
    step integer not null, -- how many of its steps were recorded
    primary key (workflow_uuid, name)
);
create index crashers_name on operon.crashers (name, at);

create table operon.suspensions (
    name text primary key,
    since timestamptz not null default operon.clock(),
    -- When one workflow of the name is tried. Each trial puts off the next one, further each time, so one that takes its
    -- process down with it needs nobody to say so. Null: not by itself.
    until timestamptz,
    crashes integer not null, -- workflows that crashed
    step integer not null default 0, -- how far the furthest of them was
    tries integer not null default 0
);

-- Counts a workflow whose actor, or process, crashed where it stands now: how many of its name did within the window, and
-- if that suspends the name, when one of them is tried.
create function operon.count_crash(
    id uuid, many integer, window_seconds float8, pause_seconds float8, out in_all integer, out tried_at float8
) language plpgsql
set search_path = '' set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
    crasher operon.crashers;
    furthest integer;
    is_new boolean;
begin
    in_all := 0;
    insert into operon.crashers (name, workflow_uuid, at, step)
    select w.name, w.workflow_uuid, operon.clock(), w.crash_step from operon.workflows w
    where w.workflow_uuid = id and w.crash_step = operon.progress(id)
    on conflict on constraint crashers_pkey do update set at = excluded.at, step = excluded.step
    returning * into crasher;
    if not found then
        return;
    end if;
    select count(*), max(c.step) into in_all, furthest from operon.crashers c
    where c.name = crasher.name and c.at > operon.clock() - pg_catalog.make_interval(secs => window_seconds);
    if in_all < many then
        return;
    end if;
    insert into operon.suspensions as s (name, until, crashes, step)
    values (crasher.name, operon.clock() + pg_catalog.make_interval(secs => pause_seconds), in_all, furthest)
    on conflict on constraint suspensions_pkey do update
    set crashes = greatest(s.crashes, excluded.crashes), step = greatest(s.step, excluded.step)
    returning s.xmax = 0, extract(epoch from s.until)::float8 into is_new, tried_at;
    if is_new then
        perform pg_catalog.pg_notify('operon_all', 'work'); -- whoever looks for work sees the names that are suspended
    else
        tried_at := null;
    end if;
end
$$;

-- Lets the workflows of a name be run again. False if it is not suspended.
create function operon.lift(suspended text) returns boolean language plpgsql set search_path = '' as $$
begin
    delete from operon.suspensions s where s.name = suspended;
    if not found then
        return false;
    end if;
    delete from operon.crashers c where c.name = suspended;
    perform pg_catalog.pg_notify('operon_all', 'work');
    return true;
end
$$;

-- Takes back a receipt at which a workflow of `me` crashed so many times: its message becomes a dead letter. Its life is
-- over, and all of it is flushed; the next one receives the message that comes after. False if there is more than that
-- receipt after all, which then stays; null if the workflow is not ours any more.
-- Locks the executor first, as a flush does, so that all of this is that executor's, or nothing.
create function operon.set_aside(
    me bigint, id uuid, its_epoch integer, receipt integer, its_topic text, its_body bytea, times integer, why text,
    pause smallint
) returns boolean language plpgsql
set search_path = '' set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
    is_stuck boolean; -- it has recorded nothing since
begin
    perform from operon.executors e where e.incarnation = me and e.state <> 2 for share;
    if not found then
        return null;
    end if;
    select w.crash_count = times and w.crash_step = operon.progress(id) into is_stuck from operon.workflows w
    where w.workflow_uuid = id and w.owner = me and w.epoch = its_epoch and w.status = 0 for no key update;
    if not found then
        return null;
    end if;
    if is_stuck then
        -- When it was received stands for when it was sent, which went with it out of the mailbox.
        insert into operon.dead_letters (destination, sequence, sent_at, topic, body, reason, detail)
        select id, pg_catalog.nextval('operon.notifications_sequence_seq'), c.completed_at, its_topic, its_body, 'poison', why
        from operon.checkpoints c where c.workflow_uuid = id and c.step = receipt;
        -- With it goes what was announced later. Until when it waits stays (-1 - receipt).
        delete from operon.checkpoints c where c.workflow_uuid = id and (c.step = receipt or c.step < -1 - receipt);
        update operon.workflows w set crash_count = 0, crash_step = w.crash_step - 1 where w.workflow_uuid = id;
    end if;
    update operon.workflows w
    set updated_at = clock_timestamp(), wait_kind = pause, wait_what = 'its next life', wait_since = clock_timestamp(),
        wait_topics = null, wake_at = operon.clock()
    where w.workflow_uuid = id;
    return is_stuck;
end
$$;
