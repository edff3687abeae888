-- name: page
-- Workflows, newest first, after the one that the last page ended with. By that key and never by an offset or a count,
-- so a page costs the same wherever it is. There is no index for it, on purpose: every start would pay for what people
-- ask now and then, and one pass over a million workflows takes a quarter of a second.
select w.workflow_uuid, w.name, w.status, w.authenticated_user, w.created_at, w.updated_at, w.epoch, w.version,
    e.host, e.pid, w.owner, w.wait_what
from operon.workflows w
left join operon.executors e on e.incarnation = w.owner
where ($1::smallint[] is null or w.status = any ($1))
    and ($2::text is null or w.name = $2)
    and ($3::text is null or w.authenticated_user = $3)
    and ($4::timestamptz is null or w.created_at >= $4)
    and ($5::timestamptz is null or (w.created_at, w.workflow_uuid) < ($5, $6::uuid))
order by w.created_at desc, w.workflow_uuid desc
limit $7

-- name: place
-- Where a workflow stands in the order of pages.
select created_at from operon.workflows where workflow_uuid = $1

-- name: details
select w.workflow_uuid, w.name, w.status, w.authenticated_user, w.created_at, w.updated_at, w.epoch, w.version,
    e.host, e.pid, w.owner, w.wait_what,
    w.assumed_role, w.authenticated_roles, w.request, w.parent, w.parent_step, w.wake_at, w.deadline,
    w.crash_count, w.inputs, w.output, coalesce(w.error, w.last_error) as error
from operon.workflows w
left join operon.executors e on e.incarnation = w.owner
where w.workflow_uuid = $1

-- name: steps
-- The recorded steps of a workflow in order, after a given one. Negative ones are announcements of calls. The view knows
-- the names of the kinds.
select step, kind, name, started_at, completed_at, attempts, output, error
from operon.readable_checkpoints
where workflow_uuid = $1 and step > $2
order by step
limit $3
