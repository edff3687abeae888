-- name: history
-- Every recorded step of a batch of workflows, in one round trip.
-- Looked up one by one: a plan for a table that is nearly empty would read all of it along its index, for the order.
select found.*
from unnest($1::text::uuid[]) as asked (id)
cross join lateral (
    select c.workflow_uuid, c.step, c.kind, c.name, c.output, c.error, c.seen from operon.checkpoints c
    where c.workflow_uuid = asked.id offset 0
) as found
order by found.workflow_uuid, found.step

-- name: recorded
-- Did it land? By the token one tells one's own lost acknowledgement from another's write.
select token, output, error from operon.checkpoints where workflow_uuid = $1 and step = $2

-- name: checkpoint
-- What a user's transaction does before its COMMIT. The share lock on the workflow's row is the fence: without it a
-- process that was paused could commit after the takeover. Fenced, the key is null, which fails the transaction.
insert into operon.checkpoints (workflow_uuid, step, kind, name, token, output, started_at, seen, attempts)
select operon.hold($1::uuid, $3::bigint, $4::integer),
    $2::integer, $11::smallint, convert_from($5::bytea, 'UTF8'), $6::bigint, $7::bytea, to_timestamp($8::float8),
    $9::text, $10::smallint

-- name: keep_attempts
select operon.keep_attempts($1, $2, $3, $4, $5, $6, $7)
