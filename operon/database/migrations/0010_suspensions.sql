-- Names that are suspended. When many workflows of one name crash within a short time, more of them will: none of that
-- name is brought to life any more, on any executor, until one that is tried got past the place where the others crashed.

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

-- Counts a workflow whose actor, or process, crashed where it stands now. A row if that suspends its name.
create function operon.count_crash(id uuid, many integer, window_seconds float8, pause_seconds float8)
returns table (in_all integer, tried_at float8) language plpgsql set search_path = '' as $$
declare
    crasher operon.crashers;
    counted integer;
    furthest integer;
    new boolean;
begin
    insert into operon.crashers (name, workflow_uuid, at, step)
    select w.name, w.workflow_uuid, operon.clock(), w.crash_step from operon.workflows w
    where w.workflow_uuid = id and w.crash_step = operon.progress(id)
    on conflict on constraint crashers_pkey do update set at = excluded.at, step = excluded.step
    returning * into crasher;
    if not found then
        return;
    end if;
    select count(*), max(c.step) into counted, furthest from operon.crashers c
    where c.name = crasher.name and c.at > operon.clock() - pg_catalog.make_interval(secs => window_seconds);
    if counted < many then
        return;
    end if;
    insert into operon.suspensions as s (name, until, crashes, step)
    values (crasher.name, operon.clock() + pg_catalog.make_interval(secs => pause_seconds), counted, furthest)
    on conflict on constraint suspensions_pkey do update
    set crashes = greatest(s.crashes, excluded.crashes), step = greatest(s.step, excluded.step)
    returning s.xmax = 0, s.crashes, extract(epoch from s.until)::float8 into new, in_all, tried_at;
    if new then
        perform pg_catalog.pg_notify('operon_all', 'work'); -- whoever looks for work sees the names that are suspended
        return next;
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
