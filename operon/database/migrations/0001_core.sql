-- The first schema. Everything a workflow owns is keyed by its UUID first, so that one workflow is always in one place,
-- and a database that grows beyond one server can be distributed by that column.
--
-- Payloads are bytea holding JSON text, not jsonb: jsonb refuses NUL, lone surrogates and NaN *after* the side effect
-- has run, which would run it again for ever. The views at the end give people readable JSON.

-- The time by which deadlines are met, on every machine alike.
create function operon.clock() returns timestamptz language sql volatile as 'select clock_timestamp()';

create table operon.executors (
    incarnation bigint generated always as identity primary key,
    started_at timestamptz not null default clock_timestamp(),
    lease_until timestamptz not null,
    died_at timestamptz,
    session_locked_at timestamptz, -- since when its session lock is held; null while it is not
    pid integer not null,
    state smallint not null default 0, -- 0 alive, 1 draining, 2 dead; dead is final
    host text not null,
    version text not null,
    revoked uuid[], -- workflows of this executor that were cancelled since its last batch
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
    deadline timestamptz, -- cancelled when it is not finished by then
    -- Only of a parked one, which is in nobody's memory: what it waits for. Null: it runs, or is ready to.
    wait_kind smallint,
    wait_what text,
    wait_since timestamptz,
    wait_topics text[], -- whose messages wake it; '' is a message without a topic
    wake_at timestamptz,
    last_error bytea,
    parked_stack bytea,
    constraint status_is_known check (status between 0 and 4),
    constraint outcome_only_when_finished check (status <> 0 or (output is null and error is null))
) with (fillfactor = 80);

-- What the claim reads: workflows that run or are ready to, by owner. Finished and parked ones leave it, so it stays small.
create index workflows_pending on operon.workflows (owner, workflow_uuid) where status = 0 and wait_kind is null;
create index workflows_children on operon.workflows (parent) where parent is not null and status in (0, 3);
create index workflows_wake on operon.workflows (wake_at) where status = 0 and wake_at is not null;

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

-- The mailboxes. A message is deleted in the transaction that records who received it.
create table operon.notifications (
    destination uuid not null references operon.workflows (workflow_uuid) on delete cascade,
    sequence bigint generated always as identity,
    sent_at timestamptz not null default clock_timestamp(),
    woke boolean not null default false, -- it came for a parked workflow that waits for it: the durable queue of wake-ups
    topic text,
    sender uuid,
    traceparent text,
    body bytea not null,
    primary key (destination, sequence)
);
create index notifications_woke on operon.notifications (destination) where woke;

-- Idempotency keys outlive their messages: a second send is a duplicate also when the first was received.
create table operon.notification_keys (
    destination uuid not null references operon.workflows (workflow_uuid) on delete cascade,
    key text not null,
    primary key (destination, key)
);

create table operon.events (
    workflow_uuid uuid not null,
    step integer not null,
    set_at timestamptz not null default clock_timestamp(),
    key text not null,
    value bytea not null,
    primary key (workflow_uuid, key)
);

-- What parked workflows wait for that is another workflow's: its end, or one of its events.
create table operon.waits (
    target uuid not null,
    waiter uuid not null,
    due boolean not null default false, -- it has happened
    key text not null, -- of the event; '' for the end
    primary key (target, waiter, key)
);
create index waits_waiter on operon.waits (waiter);
create index waits_due on operon.waits (waiter) where due;

create table operon.dead_letters (
    destination uuid not null,
    sequence bigint not null,
    sent_at timestamptz not null,
    died_at timestamptz not null default clock_timestamp(),
    topic text,
    sender uuid,
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

-- For people: payloads as text.
create view operon.readable_workflows as
select workflow_uuid, name,
    (array['PENDING', 'SUCCESS', 'ERROR', 'CANCELLED', 'DEAD'])[status + 1] as status,
    created_at, updated_at, owner, epoch, version, authenticated_user,
    convert_from(inputs, 'UTF8') as inputs, convert_from(output, 'UTF8') as output, convert_from(error, 'UTF8') as error
from operon.workflows;

create view operon.readable_checkpoints as
select workflow_uuid, step,
    (array['transaction', 'communicator', 'child', 'result', 'status', 'now', 'uuid4', 'random', 'sql', 'call',
        'send', 'recv', 'set_event', 'get_event', 'sleep', 'wait',
        'cancel', 'resume'])[kind + 1]
        as kind,
    name, started_at, completed_at, coalesce(attempts, 1) as attempts,
    convert_from(output, 'UTF8') as output, convert_from(error, 'UTF8') as error
from operon.checkpoints;
