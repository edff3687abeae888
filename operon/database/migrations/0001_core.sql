-- The first schema. Everything a workflow owns is keyed by its UUID first, so that one workflow is always in one place,
-- and a database that grows beyond one server can be distributed by that column.
--
-- Payloads are bytea holding JSON text, not jsonb: jsonb refuses NUL, lone surrogates and NaN *after* the side effect
-- has run, which would run it again for ever. The views at the end give people readable JSON.

create table operon.executors (
    incarnation bigint generated always as identity primary key,
    started_at timestamptz not null default clock_timestamp(),
    lease_until timestamptz not null,
    died_at timestamptz,
    session_locked_at timestamptz, -- since when its session lock is held; null while it is not
    -- The number of the last batch that the committer of this executor has made durable. The flush writes it, which
    -- locks the row: that is the fence of the batch, and the answer when an acknowledgement was lost.
    batch bigint not null default 0,
    pid integer not null,
    state smallint not null default 0, -- 0 alive, 1 draining, 2 dead; dead is final
    host text not null,
    version text not null,
    load bytea,
    constraint state_is_known check (state between 0 and 2)
) with (fillfactor = 30);

create table operon.workflows (
    workflow_uuid uuid primary key,
    created_at timestamptz not null default clock_timestamp(),
    updated_at timestamptz not null default clock_timestamp(),
    owner bigint, -- the executor that runs it; null: ready for anybody
    epoch integer not null default 1, -- one more at each claim; writes of an older one are refused
    status smallint not null default 0, -- 0 PENDING, 1 SUCCESS, 2 ERROR, 3 CANCELLED, 4 DEAD
    crash_count smallint not null default 0, -- crashes without progress since crash_step
    crash_step integer,
    name text not null,
    version text not null, -- of the application that started it
    inputs bytea not null,
    output bytea,
    error bytea,
    authenticated_user text,
    authenticated_roles text[],
    assumed_role text,
    request bytea,
    traceparent text,
    parent uuid,
    parent_step integer,
    wait_kind smallint,
    wait_what text,
    wait_since timestamptz,
    wake_at timestamptz,
    last_error bytea,
    parked_stack bytea,
    constraint status_is_known check (status between 0 and 4),
    constraint outcome_only_when_finished check (status <> 0 or (output is null and error is null))
) with (fillfactor = 80);

-- What the claim reads: pending workflows by owner. Finished ones leave it, so it stays small.
create index workflows_pending on operon.workflows (owner, workflow_uuid) where status = 0;

create table operon.checkpoints (
    workflow_uuid uuid not null,
    started_at timestamptz,
    completed_at timestamptz not null default clock_timestamp(),
    token bigint, -- of a transaction: tells a lost acknowledgement from another's write
    step integer not null,
    kind smallint not null,
    attempts smallint, -- only when more than one
    name text not null,
    output bytea,
    error bytea,
    -- Only of concurrent steps: the answers that the workflow had been given when it called this one, in waves, each with
    -- the number of calls made by then, since the last step that was called when nothing was under way: `2:3,2@5;4@6`.
    -- A negative step is the announcement of a call, -1 of step 0.
    seen text,
    inputs bytea,
    primary key (workflow_uuid, step),
    constraint output_or_error check ((output is null) <> (error is null))
);

create table operon.notifications (
    destination uuid not null references operon.workflows (workflow_uuid) on delete cascade,
    sequence bigint generated always as identity,
    sent_at timestamptz not null default clock_timestamp(),
    topic text,
    sender uuid,
    key text,
    traceparent text,
    body bytea not null,
    primary key (destination, sequence)
);

create table operon.events (
    workflow_uuid uuid not null,
    step integer not null,
    set_at timestamptz not null default clock_timestamp(),
    key text not null,
    value bytea not null,
    primary key (workflow_uuid, key)
);

create table operon.dead_letters (
    destination uuid not null,
    sequence bigint not null,
    sent_at timestamptz not null,
    died_at timestamptz not null default clock_timestamp(),
    topic text,
    sender uuid,
    key text,
    body bytea not null,
    reason text not null,
    detail text,
    primary key (destination, sequence)
);

create table operon.supervision_events (
    id bigint generated always as identity primary key,
    at timestamptz not null default clock_timestamp(),
    executor bigint,
    workflow_uuid uuid,
    severity smallint not null default 0,
    kind text not null,
    path text not null,
    text text,
    data bytea
);
create index supervision_events_at on operon.supervision_events using brin (at);

-- The group commit: everything that the live workflows of one executor have to say since the last time, in one round
-- trip and one transaction. The update of the executor's own row is the fence: whoever declares the executor dead locks
-- that row first, so either this batch is before the takeover, or it finds no row and nothing of it happens.
-- A start whose UUID is taken is left alone and given back; the caller attaches to what is there.
create function operon.flush(
    me bigint, number bigint, app_version text,
    s_uuid uuid[], s_name text[], s_inputs bytea[], s_status smallint[], s_output bytea[], s_error bytea[],
    s_caller text[], s_request bytea[], s_parent uuid[], s_parent_step integer[],
    c_uuid uuid[], c_step integer[], c_kind smallint[], c_name text[], c_output bytea[], c_error bytea[],
    c_started float8[], c_attempts smallint[], c_seen text[],
    f_uuid uuid[], f_status smallint[], f_output bytea[], f_error bytea[],
    bells text[]
) returns uuid[] language plpgsql
-- Planned once. A plan made while the tables were empty would scan them for ever, so scans and their joins are off.
set search_path = '' set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
    affected bigint;
    taken uuid[];
begin
    update operon.executors set batch = number where incarnation = me and state <> 2;
    if not found then
        raise exception 'executor % was declared dead', me using errcode = 'OP001';
    end if;
    if s_uuid is not null then
        insert into operon.workflows (
            workflow_uuid, owner, status, name, version, inputs, output, error,
            authenticated_user, authenticated_roles, assumed_role, traceparent, request, parent, parent_step
        )
        select u.id, me, coalesce(u.status, 0), u.name, app_version, u.inputs, u.output, u.error,
            u.caller::json ->> 'user',
            case when u.caller is not null then
                array(select pg_catalog.json_array_elements_text(u.caller::json -> 'roles'))
            end,
            u.caller::json ->> 'assumed_role', u.caller::json ->> 'traceparent',
            u.request, u.parent, u.parent_step
        from unnest(
            s_uuid, s_name, s_inputs, s_status, s_output, s_error, s_caller, s_request, s_parent, s_parent_step
        ) as u (id, name, inputs, status, output, error, caller, request, parent, parent_step)
        on conflict (workflow_uuid) do nothing;
        get diagnostics affected = row_count;
        if affected <> cardinality(s_uuid) then
            select array_agg(w.workflow_uuid) into taken from operon.workflows w
            where w.workflow_uuid = any (s_uuid) and w.xmin <> pg_catalog.pg_current_xact_id()::xid;
        end if;
    end if;
    if c_uuid is not null then
        insert into operon.checkpoints (
            workflow_uuid, step, kind, name, output, error, started_at, attempts, seen
        )
        select u.id, u.step, u.kind, u.name, u.output, u.error, pg_catalog.to_timestamp(u.started), u.attempts, u.seen
        from unnest(c_uuid, c_step, c_kind, c_name, c_output, c_error, c_started, c_attempts, c_seen)
            as u (id, step, kind, name, output, error, started, attempts, seen);
    end if;
    if f_uuid is not null then
        update operon.workflows w
        set status = coalesce(u.status, 1), output = u.output, error = u.error, updated_at = clock_timestamp()
        from unnest(f_uuid, f_status, f_output, f_error) as u (id, status, output, error)
        -- By the primary key. The `+ 0` keep this from the index of pending workflows, which a plan made while there were
        -- none takes for short: it would read everything that this executor owns, for each batch.
        where w.workflow_uuid = u.id and w.owner + 0 = me and w.status + 0 = 0;
        get diagnostics affected = row_count;
        if affected <> cardinality(f_uuid) then
            raise exception 'executor % finished workflows that it does not own', me using errcode = 'OP002';
        end if;
    end if;
    if bells is not null then
        perform pg_catalog.pg_notify(split_part(bell, ' ', 1), split_part(bell, ' ', 2)) from unnest(bells) as bell;
    end if;
    return taken;
end
$$;

-- For people: payloads as text.
create view operon.readable_workflows as
select workflow_uuid, name,
    (array['PENDING', 'SUCCESS', 'ERROR', 'CANCELLED', 'DEAD'])[status + 1] as status,
    created_at, updated_at, owner, epoch, version, authenticated_user,
    convert_from(inputs, 'UTF8') as inputs, convert_from(output, 'UTF8') as output, convert_from(error, 'UTF8') as error
from operon.workflows;

create view operon.readable_checkpoints as
select workflow_uuid, step,
    (array['transaction', 'communicator', 'child', 'result', 'status', 'now', 'uuid4', 'random', 'sql', 'call'])[kind + 1]
        as kind,
    name, started_at, completed_at, coalesce(attempts, 1) as attempts,
    convert_from(output, 'UTF8') as output, convert_from(error, 'UTF8') as error
from operon.checkpoints;
