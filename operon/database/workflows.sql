-- name: candidates
-- Work for this executor, of names that its application knows: others stay where they are and cost nothing, until an
-- executor with the code comes. First what nobody alive runs; then parked workflows, of its own and of the dead, that
-- have got what they waited for, or soon will have (`wake_at`). Suspects only if one may be tried now ($5). The last
-- row, without a workflow, is the time, whether workflows of this executor were cancelled, which names are suspended until
-- when, and which workflows should have been cancelled by now and are in nobody's memory: those first that have waited
-- longest for it.
(
    select c.workflow_uuid, c.mine, c.wake_at, operon.is_suspect(c.workflow_uuid, c.crash_count, c.crash_step), c.name
    from (
        select w.workflow_uuid, false as mine, null::float8 as wake_at, w.crash_count, w.crash_step, w.name
        from operon.workflows w
        where w.status = 0 and w.wait_kind is null and w.owner is null and w.name = any ($2)
        union all
        select w.workflow_uuid, false, null, w.crash_count, w.crash_step, w.name
        from operon.executors e
        join operon.workflows w on w.owner = e.incarnation
        where e.state = 2 and w.status = 0 and w.wait_kind is null and w.name = any ($2)
        union all
        select w.workflow_uuid, w.owner = $1, null, w.crash_count, w.crash_step, w.name
        from operon.notifications n
        join operon.workflows w on w.workflow_uuid = any (array[n.destination])
        where n.woke and w.status = 0 and coalesce(n.topic, '') = any (w.wait_topics) and w.name = any ($2)
            and (w.owner = $1 or not exists (select from operon.executors e where e.incarnation = w.owner and e.state <> 2))
        union all
        select w.workflow_uuid, w.owner = $1, null, w.crash_count, w.crash_step, w.name
        from operon.waits x
        join operon.workflows w on w.workflow_uuid = any (array[x.waiter])
        where x.due and w.status = 0 and w.wait_kind is not null and w.name = any ($2)
            and (w.owner = $1 or not exists (select from operon.executors e where e.incarnation = w.owner and e.state <> 2))
        union all
        (
            select w.workflow_uuid, w.owner = $1, extract(epoch from w.wake_at)::float8, w.crash_count, w.crash_step, w.name
            from operon.workflows w
            -- The time in a subquery, or it would be asked for each row, and none be found by the index.
            where w.status = 0 and w.wake_at < (select operon.clock() + make_interval(secs => $4)) and w.name = any ($2)
                and (w.owner = $1 or not exists (select from operon.executors e where e.incarnation = w.owner and e.state <> 2))
            order by w.wake_at -- as the index has them: of those that wait for room, the oldest first
        )
    ) as c
    where c.mine or $5 or not operon.is_suspect(c.workflow_uuid, c.crash_count, c.crash_step)
    limit $3
)
union all
select null, exists (select from operon.executors e where e.incarnation = $1 and e.revoked is not null),
    extract(epoch from operon.clock())::float8, null,
    json_build_object(
        'suspended', (select json_object_agg(s.name, extract(epoch from s.until)) from operon.suspensions s),
        'overdue', (
            select json_object_agg(o.workflow_uuid, o.name) from (
                select w.workflow_uuid, w.name from operon.workflows w
                where w.status = 0 and w.deadline < (select operon.clock()) and (w.wait_kind is not null or w.owner is null)
                order by w.deadline limit 100
            ) as o
        )
    )::text

-- name: claim
-- Takes what is still there to take. The epoch goes up, so that nothing of an earlier owner can commit any more.
-- What was cancelled here and resumed waits until this executor has dropped what it had of it.
update operon.workflows w
set owner = $1, epoch = epoch + 1, updated_at = clock_timestamp(),
    (crash_count, crash_step) = (
        select c.crash_count, c.crash_step
        from operon.crashes(w.workflow_uuid, w.owner, w.wait_kind, w.wake_at, w.crash_count, w.crash_step) as c
    )
where w.workflow_uuid = any ($2) and w.status = 0
    and (w.owner is null or not exists (select from operon.executors e where e.incarnation = w.owner and e.state <> 2))
    and exists (
        select from operon.executors e
        where e.incarnation = $1 and e.state = 0 and w.workflow_uuid <> all (coalesce(e.revoked, '{}'))
    )
returning w.workflow_uuid, w.epoch, w.name, w.inputs, w.authenticated_user, w.authenticated_roles, w.assumed_role,
    w.request, w.traceparent, w.parent, extract(epoch from w.deadline)::float8, w.wait_kind is not null, w.wait_topics,
    w.crash_count, coalesce(w.crash_step, 0)

-- name: running
-- What an executor runs, as far as the database knows.
select w.workflow_uuid, w.name from operon.workflows w
where w.owner = $1 and w.status = 0 and w.wait_kind is null

-- name: load
-- Parked workflows of ours that are to be brought back.
select w.workflow_uuid, w.epoch, w.name, w.inputs, w.authenticated_user, w.authenticated_roles, w.assumed_role,
    w.request, w.traceparent, w.parent, extract(epoch from w.deadline)::float8, true, w.wait_topics,
    w.crash_count, coalesce(w.crash_step, 0)
from operon.workflows w
where w.workflow_uuid = any ($1::text::uuid[]) and w.owner = $2 and w.status = 0 and w.wait_kind is not null
    and w.name = any ($3)

-- name: next_wake
-- When the first of the parked workflows is woken whose time comes after a moment.
select extract(epoch from min(w.wake_at))::float8
from operon.workflows w
where w.status = 0 and w.wake_at > to_timestamp($1)

-- name: finished
-- Workflows that ended by themselves or were cancelled, the latest first, as a replay starts them and compares them.
select w.workflow_uuid, w.epoch, w.name, w.inputs, w.authenticated_user, w.authenticated_roles, w.assumed_role,
    w.request, w.traceparent, w.parent, extract(epoch from w.deadline)::float8, false, null::text[], 0::smallint, 0,
    w.status, w.output, w.error, extract(epoch from w.updated_at)::float8
from operon.workflows w
where w.status between 1 and 3 and w.name = any ($1)
order by w.workflow_uuid desc
limit $2

-- name: outcomes
-- What is known of these workflows, finished or not; unknown ones have no row.
select workflow_uuid, name, status, owner, output, error, authenticated_user
from operon.workflows
where workflow_uuid = any ($1)

-- name: attach
-- What a second start needs to know of the first.
select name, status, owner, output, error, authenticated_user, inputs, epoch,
    wait_kind is not null or exists (select from operon.checkpoints c where c.workflow_uuid = $1)
from operon.workflows
where workflow_uuid = $1

-- name: status
select w.workflow_uuid, w.status, w.name, w.authenticated_user, w.assumed_role, w.authenticated_roles, w.request,
    w.created_at, w.updated_at, w.epoch, w.error, case when w.status = 0 then w.wait_what end, e.host, e.pid, w.owner
from operon.workflows w
left join operon.executors e on e.incarnation = w.owner
where w.workflow_uuid = $1

-- name: crashed
-- The actor of a workflow of ours crashed. It is parked for a while, longer each time that it has got no further; what
-- it waited for is there for its next life to look for. Null: it is not ours any more.
with gone as (
    delete from operon.waits where waiter = $1
), seen as (
    select p.step, case when w.crash_step = p.step then w.crash_count else 0 end as before
    from operon.workflows w cross join operon.progress(w.workflow_uuid) as p (step)
    where w.workflow_uuid = $1
)
update operon.workflows w
set crash_count = seen.before + 1, crash_step = seen.step, last_error = $3, updated_at = clock_timestamp(),
    wait_kind = $4, wait_what = 'its next life', wait_since = clock_timestamp(), wait_topics = null,
    wake_at = operon.clock() + make_interval(secs => $5 * least($6, 2 ^ seen.before))
from seen
where w.workflow_uuid = $1 and w.owner = $2 and w.status = 0
returning w.crash_count, w.crash_step, extract(epoch from w.wake_at)::float8

-- name: let_go
-- Workflows of ours that do not live here are ready for whoever has room, in the order in which they were started. What
-- they waited for is there for their next life to look for.
with ours as (
    select w.workflow_uuid from operon.workflows w
    where w.workflow_uuid = any ($2) and w.owner = $1 and w.status = 0
    order by w.workflow_uuid for no key update
), gone as (
    delete from operon.waits x using ours where x.waiter = any (array[ours.workflow_uuid])
)
update operon.workflows w
set owner = null, wait_kind = $3, wait_what = 'its turn', wait_since = clock_timestamp(), wait_topics = null,
    wake_at = least(w.wake_at, w.created_at)
from ours
where w.workflow_uuid = any (array[ours.workflow_uuid])

-- name: die
-- Restart budget used up, or stopped for good: visible, and can be resumed. Gives those of ours that waited for it.
select operon.die($1, $2, $3, $4)

-- name: cancel
select operon.cancel($1, $2)

-- name: resume
select operon.resume($1)

-- name: ring
select pg_notify($1, $2)
