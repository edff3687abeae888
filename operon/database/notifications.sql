-- name: oldest
-- The oldest messages of many mailboxes, each under one topic.
select asked.n, found.sequence, found.body, found.traceparent
from unnest($1::uuid[], $2::text[], $3::integer[]) with ordinality as asked (destination, topic, most, n)
cross join lateral (
    select m.sequence, m.body, m.traceparent from operon.notifications m
    where m.destination = asked.destination and m.topic is not distinct from asked.topic
    order by m.sequence limit asked.most
) as found
order by asked.n, found.sequence

-- name: waiting
-- Of these workflows, each with a topic, those that have a message.
-- The limit keeps this to one look each, by the primary key; joined, it reads every message of everybody.
select distinct asked.destination
from unnest($1::uuid[], $2::text[]) as asked (destination, topic)
cross join lateral (
    select from operon.notifications m
    where m.destination = asked.destination and m.topic is not distinct from asked.topic
    limit 1
) as found

-- name: event
-- An event of a workflow, and what is known of the workflow; no row for an unknown one, or one of another owner.
select w.status, w.owner, e.value
from operon.workflows w
left join operon.events e on e.workflow_uuid = w.workflow_uuid and e.key = $2
where w.workflow_uuid = $1 and operon.is_owned($3, w.authenticated_user)

-- name: events
-- Those of these events that were set.
select asked.workflow_uuid, asked.key
from unnest($1::uuid[], $2::text[]) as asked (workflow_uuid, key)
join operon.events e on e.workflow_uuid = any (array[asked.workflow_uuid]) and e.key = asked.key

-- name: bury
-- What was sent and never received by the time its workflow had finished. That another one has ended is not kept: nobody
-- sent it who could mind, and nobody could do anything with it.
with left_over as (
    select m.destination, m.sequence from operon.notifications m
    cross join lateral (
        select from operon.workflows w where w.workflow_uuid = m.destination and w.status in (1, 2) limit 1
    ) as finished
    limit 1000
), gone as (
    delete from operon.notifications m using left_over l
    where m.destination = any (array[l.destination]) and m.sequence = l.sequence
    returning m.*
)
insert into operon.dead_letters (destination, sequence, sent_at, topic, sender, body, reason)
select destination, sequence, sent_at, topic, sender, body, 'never received' from gone
where topic is distinct from 'operon.down'
