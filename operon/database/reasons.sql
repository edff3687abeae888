-- name: chain
-- For whom a parked workflow waits, and that one, and so on: one way, so far and no further. A live one has no rows here.
with recursive chain as (
    select $1::uuid as workflow_uuid, 0 as depth
    union all
    select x.target, c.depth + 1
    from chain c
    cross join lateral (
        select x.target from operon.waits x where x.waiter = c.workflow_uuid and not x.due order by x.target limit 1
    ) as x
    where c.depth < $2
)
select workflow_uuid from chain where depth > 0 order by depth

-- name: usual
-- How long a step took of late, in seconds: in the newest workflows of this name, and in this workflow itself where it
-- is a loop. Looked up one by one, so that nothing more is read however many have finished.
select percentile_disc(0.99) within group (order by u.seconds) as p99, count(*)
from (
    select extract(epoch from c.completed_at - c.started_at)::float8 as seconds
    from operon.checkpoints c
    where c.workflow_uuid = $1 and c.step between $3::integer - $5::integer and $3 - 1 and c.name = $4 and c.error is null
    union all
    select c.seconds
    from (select w.workflow_uuid, w.name from operon.workflows w order by w.workflow_uuid desc limit $5) as w
    cross join lateral (
        select extract(epoch from c.completed_at - c.started_at)::float8 as seconds
        from operon.checkpoints c
        where c.workflow_uuid = w.workflow_uuid and c.step = $3 and c.name = $4 and c.error is null
        limit 1
    ) as c
    where w.name = $2 and w.workflow_uuid <> $1
) as u
where u.seconds >= 0

-- name: set_aside
-- Messages of these topics that were set aside, the last one first, with the beginning of why.
select d.topic, left(split_part(d.detail, E'\n', 1), 200) as detail
from operon.dead_letters d
where d.destination = $1 and d.reason = 'poison' and coalesce(d.topic, '') = any ($2)
order by d.sequence desc
limit $3
