-- name: page
-- The dead, newest first, after the one that the last page ended with.
select d.destination, d.sequence, d.topic, d.reason, d.detail, d.sender, d.sent_at, d.died_at, w.name, w.status,
    convert_from(d.body, 'UTF8') as body
from operon.dead_letters d
left join operon.workflows w on w.workflow_uuid = d.destination
where ($1::uuid is null or d.destination = $1) and ($2::text is null or d.reason = $2)
    and ($3::bigint is null or d.sequence < $3)
order by d.sequence desc
limit $4

-- name: requeue
select operon.requeue($1, $2)

-- name: purge
with purged as (
    delete from operon.dead_letters d
    where ($1::uuid is null or d.destination = $1) and ($2::text is null or d.reason = $2) and d.died_at < $3
    returning 1
)
select count(*) from purged

-- name: last_error
select last_error from operon.workflows where workflow_uuid = $1

-- name: set_aside
select operon.set_aside($1, $2, $3, $4, $5, $6, $7, $8, $9)
