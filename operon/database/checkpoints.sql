-- name: history
-- Every recorded step of a batch of workflows, in one round trip.
select workflow_uuid, step, kind, name, output, error, seen
from operon.checkpoints
where workflow_uuid = any ($1)
order by workflow_uuid, step

-- name: recorded
-- Did it land? By the token one tells one's own lost acknowledgement from another's write.
select token, output, error from operon.checkpoints where workflow_uuid = $1 and step = $2

-- name: checkpoint
-- What a user's transaction does before its COMMIT. The share lock on the workflow's row is the fence: without it a
-- process that was paused could commit after the takeover. Fenced, the key is null, which fails the transaction.
insert into operon.checkpoints (workflow_uuid, step, kind, name, token, output, started_at, seen, attempts)
select (
        select w.workflow_uuid from operon.workflows w
        where w.workflow_uuid = $1::uuid and w.owner = $3::bigint and w.epoch = $4::integer and w.status = 0 for share
    ),
    $2::integer, $11::smallint, convert_from($5::bytea, 'UTF8'), $6::bigint, $7::bytea, to_timestamp($8::float8),
    $9::text, $10::smallint

-- name: keep_attempts
select operon.keep_attempts($1, $2, $3, $4, $5, $6, $7)
