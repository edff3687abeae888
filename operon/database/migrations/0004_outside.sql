-- For psql, triggers and other languages: start a workflow, send it a message. Both are part of the caller's transaction.

-- Starts a workflow; any executor whose application has the operation runs it.
-- select operon.start('checkout', '{"show": "Hamlet", "seat": "A1"}')
create function operon.start(name text, inputs json default '{}', workflow_uuid uuid default null)
returns uuid language plpgsql
set search_path = '' set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
    id uuid := coalesce(workflow_uuid, pg_catalog.gen_random_uuid());
begin
    if pg_catalog.json_typeof(inputs) <> 'object' then
        raise exception 'the inputs of a workflow are a JSON object of its arguments by name' using errcode = '22023';
    end if;
    insert into operon.workflows (workflow_uuid, name, version, inputs)
    values (id, name, '', pg_catalog.convert_to(inputs::text, 'UTF8'))
    on conflict on constraint workflows_pkey do nothing;
    if not found and not exists (select from operon.workflows w where w.workflow_uuid = id and w.name = start.name) then
        raise exception 'workflow % is another operation''s', id using errcode = 'OP409';
    end if;
    perform pg_catalog.pg_notify('operon_all', 'work');
    return id;
end
$$;

-- Sends a message to a workflow; false when its idempotency key was used before.
-- select operon.send('0198...', '{"amount": 100}', 'payment')
create function operon.send(
    destination uuid, body json, topic text default null, idempotency_key text default null, mailbox_limit integer default 10000
) returns boolean language plpgsql
set search_path = '' set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
    w operon.workflows;
begin
    if topic = '' then
        raise exception 'a topic has a name' using errcode = '22023';
    end if;
    select * into w from operon.workflows x where x.workflow_uuid = destination for key share;
    if not found then
        raise exception 'there is no workflow %', destination using errcode = 'OP404';
    end if;
    if w.status <> 0 and exists (
        select from operon.notification_keys k
        where k.destination = send.destination and k.key = pg_catalog.to_json(idempotency_key)::text
    ) then
        return false;
    end if;
    if w.status <> 0 then
        insert into operon.dead_letters (destination, sequence, sent_at, topic, body, reason)
        values (destination, pg_catalog.nextval('operon.notifications_sequence_seq'), clock_timestamp(), topic,
            pg_catalog.convert_to(body::text, 'UTF8'), 'finished');
        raise warning 'workflow % is finished; the message is a dead letter', destination;
        return false;
    end if;
    if idempotency_key is not null then
        insert into operon.notification_keys (destination, key)
        values (destination, pg_catalog.to_json(idempotency_key)::text) on conflict do nothing;
        if not found then
            return false;
        end if;
    end if;
    if (select count(*) from (
            select from operon.notifications n where n.destination = send.destination limit mailbox_limit
        ) as counted) >= mailbox_limit then
        raise exception 'the mailbox of workflow % is full', destination using errcode = 'OP429';
    end if;
    insert into operon.notifications (destination, topic, body, woke)
    values (destination, topic, pg_catalog.convert_to(body::text, 'UTF8'),
        w.wait_kind is not null and coalesce(topic, '') = any (coalesce(w.wait_topics, '{}')));
    perform operon.ring(
        0, array[destination],
        case when w.wait_kind is null or coalesce(topic, '') = any (w.wait_topics) then 'wake' else 'look' end
    );
    return true;
end
$$;
