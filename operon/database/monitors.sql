-- name: monitor
select operon.monitor($1, $2, $3, $4)

-- name: demonitor
-- Whether there was one, of this watcher, which has not been told yet.
with gone as (
    delete from operon.monitors where ref = $1 and watcher = $2 returning ref
)
select exists (select from gone)
