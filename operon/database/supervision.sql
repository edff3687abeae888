-- name: write
-- Events with their age, because the database's clock says when something was. At most some hundred at a time, as one
-- JSON document: for columns as arrays the driver would ask for their types, on every connection.
insert into operon.supervision_events (at, executor, workflow_uuid, severity, kind, path, text, data)
select clock_timestamp() - make_interval(secs => u.age), u.executor, u.workflow_uuid, u.severity, u.kind, u.path, u.text,
    convert_to(u.data, 'UTF8')
from json_to_recordset($1::json) as u (
    age float8, executor bigint, workflow_uuid uuid, severity smallint, kind text, path text, text text, data text
)

-- name: events
-- The latest first, before the one that the last page ended with.
select id, at, executor, workflow_uuid, severity, kind, path, text, data
from operon.supervision_events
where ($1::bigint is null or id < $1)
order by id desc
limit $2

-- name: left_by
-- How many workflows an executor ran when it died; counted so far. What it had parked needs nobody.
select count(*) from (
    select from operon.workflows w where w.owner = $1 and w.status = 0 and w.wait_kind is null limit $2
) as r

-- name: forget_old
delete from operon.supervision_events where at < clock_timestamp() - make_interval(secs => $1)

-- name: forget_many
delete from operon.supervision_events where id <= (select max(e.id) from operon.supervision_events e) - $1::bigint

-- name: forget_snapshots
-- Of executors that are dead or forgotten.
delete from operon.executor_snapshots s
where not exists (select from operon.executors e where e.incarnation = s.executor and e.state <> 2)

-- name: forget_crashers
delete from operon.crashers where at < operon.clock() - make_interval(secs => $1)

-- name: forget_wakes
-- A message or an event that came in the moment in which its receiver ended: nobody is woken by it, and each look for work
-- would read it.
with ended as (
    update operon.notifications n set woke = false
    from operon.workflows w
    where n.woke and w.workflow_uuid = any (array[n.destination]) and w.status <> 0
)
delete from operon.waits x
using operon.workflows w
where x.due and w.workflow_uuid = any (array[x.waiter]) and w.status <> 0

-- name: executors
-- Those that are alive, then those that died of late, each with what it last said of itself.
select e.incarnation, e.host, e.pid, e.version, e.state, e.started_at, e.died_at, e.lease_until,
    extract(epoch from clock_timestamp() - s.at)::float8 as said_age, s.body
from operon.executors e
left join operon.executor_snapshots s on s.executor = e.incarnation and e.state <> 2
where e.state <> 2 or e.died_at > clock_timestamp() - make_interval(secs => $1)
order by e.state = 2, e.incarnation desc
limit $2

-- name: numbers
-- What is said of all workflows together, without reading them: of what is parked only the statistics are asked, which
-- `analyze` has left; what is ready is counted in its small index, and only so far.
select
    (
        select case when c.reltuples < 0 then null else round(c.reltuples * (1 - s.null_frac))::bigint end
        from pg_class c
        join pg_stats s on s.schemaname = 'operon' and s.tablename = 'workflows' and s.attname = 'wait_kind'
        where c.oid = 'operon.workflows'::regclass
    ) as parked,
    (
        select greatest(t.last_analyze, t.last_autoanalyze) from pg_stat_user_tables t
        where t.relid = 'operon.workflows'::regclass
    ) as analyzed_at,
    (
        select count(*) from (
            select from operon.workflows w
            where w.status = 0 and w.wait_kind is null and w.owner is null limit $1
        ) as r
    ) as ready,
    clock_timestamp() as now

-- name: now
select clock_timestamp()

-- name: suspensions
select name, since, until, crashes from operon.suspended() order by since limit 1000

-- name: depths
-- How many messages wait for each of these, counted so far.
select u.id, (select count(*) from (select from operon.notifications n where n.destination = u.id limit $2) as c)
from unnest($1::uuid[]) as u (id)

-- name: subjects
-- What there is to say of these workflows: rows, and what they wait for of others.
select w.workflow_uuid, w.name, w.version, w.status, w.owner, w.epoch, w.created_at, w.updated_at, w.deadline,
    w.wait_kind, w.wait_what, w.wait_since, w.wait_topics, w.wake_at, w.crash_count, w.crash_step,
    coalesce(w.error, w.last_error) as error,
    e.host, e.pid, e.state as owner_state, e.lease_until,
    w.parent, x.target, x.key as target_key, x.due,
    c.step as last_step, c.name as last_name, c.completed_at as last_at, c.error is not null as last_failed,
    case when w.status = 0 then array(
        select coalesce(n.topic, '') from operon.notifications n where n.destination = w.workflow_uuid
        order by n.sequence limit 101
    ) end as topics_there
from operon.workflows w
left join operon.executors e on e.incarnation = w.owner
left join lateral (
    select x.target, x.key, x.due from operon.waits x where x.waiter = w.workflow_uuid
    order by x.due desc, x.target limit 1
) as x on w.status = 0 and w.wait_kind is not null
left join lateral (
    select c.step, c.name, c.completed_at, c.error from operon.checkpoints c
    where c.workflow_uuid = w.workflow_uuid and c.step >= 0 order by c.step desc limit 1
) as c on true
where w.workflow_uuid = any ($1)

-- name: ready_before
-- How many that nobody runs are older than this one; counted so far.
select count(*) from (
    select from operon.workflows w
    where w.status = 0 and w.wait_kind is null and w.owner is null and w.workflow_uuid < $1 limit $2
) as r
