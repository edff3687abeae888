-- name: register
-- Always a new incarnation: a name that is used again could be taken for its predecessor.
insert into operon.executors (host, pid, version, lease_until, grace_seconds)
values ($1, $2, $3, clock_timestamp() + make_interval(secs => $4), $5)
returning incarnation, extract(epoch from operon.clock())::float8

-- name: clock
-- The time by which deadlines are met.
select extract(epoch from operon.clock())::float8

-- name: renew
-- A lease that merely ran out may be renewed, until somebody declared its executor dead: no row, and dead is final.
-- What the executor says of itself goes along, so that it costs no commit.
with said as (
    insert into operon.executor_snapshots (executor, at, body)
    select $1, clock_timestamp(), $4 where $4::bytea is not null
    on conflict (executor) do update set at = excluded.at, body = excluded.body
)
update operon.executors
set lease_until = clock_timestamp() + make_interval(secs => $2),
    session_locked_at = case when $3 then coalesce(session_locked_at, clock_timestamp()) end
where incarnation = $1 and state <> 2
returning 1

-- name: hold_session_lock
-- Takes it, or has it: a session may take a lock as often as it likes, and its end frees it. Does not wait: the lease has to
-- be renewed meanwhile.
select pg_try_advisory_lock($1::integer, $2::integer)

-- name: landed
select l.landed, l.answers, exists (select from operon.executors e where e.incarnation = $1 and e.state <> 2)
from operon.landed($1, $2) as l

-- name: others
-- Every other executor that counts as alive; `gone` when its session lock is free: so is its process, or its session is
-- lost. For how long that has to be so, it has said itself.
-- A restart of the server frees every lock: one that was taken before it says nothing.
-- The lock is shared and ends with the statement, so probing executors do not see one another.
select incarnation, lease_until, grace_seconds, lease_until < clock_timestamp() as expired,
    coalesce(
        session_locked_at > pg_postmaster_start_time() and pg_try_advisory_xact_lock_shared($2, incarnation::integer),
        false
    ) as gone
from operon.executors
where state <> 2 and incarnation <> $1

-- name: declare_dead
-- Locks the row against a flush first. An executor that renewed its lease since we looked is left alone.
update operon.executors set state = 2, died_at = clock_timestamp(),
    blame = coalesce((
        select max(case when w.crash_step = operon.progress(w.workflow_uuid) then w.crash_count else 0 end)
        from operon.workflows w
        where w.owner = $1 and w.status = 0 and w.crash_count > 0
            and operon.was_awake(w.workflow_uuid, w.wait_kind, w.wake_at, clock_timestamp())
    ), 0)
where incarnation = $1 and state <> 2 and lease_until = $2
returning 1

-- name: kill
-- For tests: as if somebody else had declared this executor dead.
update operon.executors set state = 2, died_at = clock_timestamp() where incarnation = $1

-- name: leave
-- The end of an orderly shutdown: what was running is ready for anybody at once. What is parked stays as it is, however
-- much that is: whoever wakes it sees that its owner is gone.
with released as (
    update operon.workflows set owner = null where owner = $1 and status = 0 and wait_kind is null returning 1
), left_behind as (
    update operon.executors set state = 2, died_at = clock_timestamp() where incarnation = $1 and state <> 2
)
select count(*) from released

-- name: forget_revoked
-- These have been dropped; there may be others by now.
update operon.executors
set revoked = nullif(array(select r from unnest(revoked) as r where r <> all ($2)), '{}')
where incarnation = $1

-- name: forget
-- Executors that are dead for a day and own nothing that was running. Parked workflows of theirs do not need them.
with forgotten as (
    delete from operon.executors e
    where e.state = 2 and e.died_at < clock_timestamp() - interval '1 day'
        and not exists (select from operon.workflows w where w.owner = e.incarnation and w.status = 0 and w.wait_kind is null)
    returning e.incarnation
)
delete from operon.batches b using forgotten f where b.executor = any (array[f.incarnation])
