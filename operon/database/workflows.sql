-- name: claimable
-- Pending workflows that nobody owns, or whose owner is dead, of names that this application knows.
-- A name that it does not know stays where it is and costs nothing: an executor with the code will come.
select w.workflow_uuid
from operon.workflows w
where w.status = 0 and w.owner is null and w.name = any ($1)
union all
select w.workflow_uuid
from operon.executors e
join operon.workflows w on w.owner = e.incarnation
where e.state = 2 and w.status = 0 and w.name = any ($1)
limit $2

-- name: claim
-- Takes what is still there to take. The epoch goes up, so that nothing of an earlier owner can commit any more.
update operon.workflows w
set owner = $1, epoch = epoch + 1, updated_at = clock_timestamp()
where w.workflow_uuid = any ($2) and w.status = 0
    and (w.owner is null or exists (select from operon.executors e where e.incarnation = w.owner and e.state = 2))
    and exists (select from operon.executors e where e.incarnation = $1 and e.state = 0)
returning w.workflow_uuid, w.epoch, w.name, w.inputs, w.authenticated_user, w.authenticated_roles, w.assumed_role,
    w.request, w.traceparent, w.parent

-- name: reload
-- A workflow of ours whose actor crashed; no row if it is not ours any more.
select w.workflow_uuid, w.epoch, w.name, w.inputs, w.authenticated_user, w.authenticated_roles, w.assumed_role,
    w.request, w.traceparent, w.parent
from operon.workflows w
where w.workflow_uuid = $1 and w.owner = $2 and w.status = 0

-- name: outcomes
-- What is known of these workflows, finished or not; unknown ones have no row.
select workflow_uuid, name, status, owner, output, error, authenticated_user
from operon.workflows
where workflow_uuid = any ($1)

-- name: attach
-- What a second start needs to know of the first.
select name, status, owner, output, error, authenticated_user, inputs, epoch
from operon.workflows
where workflow_uuid = $1

-- name: status
select w.workflow_uuid, w.status, w.name, w.authenticated_user, w.assumed_role, w.authenticated_roles, w.request,
    w.created_at, w.updated_at, w.epoch, w.error, w.wait_what, e.host, e.pid, w.owner
from operon.workflows w
left join operon.executors e on e.incarnation = w.owner
where w.workflow_uuid = $1

-- name: die
-- Restart budget used up, or stopped for good: visible, and can be resumed.
update operon.workflows set status = 4, error = $3, last_error = $3, updated_at = clock_timestamp()
where workflow_uuid = $1 and owner = $2 and status = 0

-- name: ring
select pg_notify($1, $2)
