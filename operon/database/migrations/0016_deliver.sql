-- Messages of a flush: each is put into its mailbox, or it is found out why it cannot be, and its sender's step says so.
--
-- Parking loses no wake-up because of two locks. Whoever sends to a workflow first takes its row FOR KEY SHARE; whoever
-- sets an event or ends it has its row FOR NO KEY UPDATE. Whoever parks takes the own row FOR UPDATE and the rows of
-- those it waits for FOR SHARE, and then looks, in a new statement, whether what it waits for is there. So of the two
-- one is first, and the other one sees it. Parking comes last in a flush and skips what is locked, so it never makes a
-- circle. The messages are sorted by their destinations, so those who send never make one either.
--
-- What is told of a message, in the order in which they came: 0 sent; 1 to one of the caller's own; 2 ... and nothing else
-- is in its mailbox; 3 a duplicate; 4 nobody is there; 5 finished; 6 full; 7 finished, and that does not matter; 8 to one
-- of the caller's own, which is parked and waits for other things, but may just be coming back.
create function operon.deliver(
    me bigint, mailbox_limit integer,
    m_sender uuid[], m_step integer[], m_destination uuid[], m_topic text[], m_body bytea[], m_key text[],
    m_keep boolean[], m_traceparent text[], m_started float8[], m_seen text[], m_owner text[],
    out codes smallint[], out sequences bigint[]
) language plpgsql as $$
declare
    fresh bigint[]; -- messages whose idempotency key was new
    others uuid[];
    aside uuid[]; -- who wait for other things
    their_owners bigint[];
    owners_aside bigint[];
    one record; -- whom the only message is for
    oldest bigint; -- in its mailbox
    newest bigint;
begin
    -- Most batches of an executor with little to do have one message, to a workflow that is not finished. This is all that
    -- there is to do then, for a third of what the statement for many costs.
    if cardinality(m_destination) = 1 and m_key is null and m_owner is null then
        select w.owner, w.owner is not distinct from me as ours, w.wait_kind is not null as waits,
            w.wait_kind is not null and coalesce(m_topic[1], '') = any (coalesce(w.wait_topics, '{}')) as woke
        into one
        from operon.workflows w where w.workflow_uuid = m_destination[1] and w.status + 0 = 0
        for key share;
        if found then
            oldest := (
                select n.sequence from operon.notifications n
                where n.destination = m_destination[1] order by n.sequence limit 1
            );
            newest := (
                select n.sequence from operon.notifications n
                where n.destination = m_destination[1] order by n.sequence desc limit 1
            );
        end if;
        if found and coalesce(newest - oldest, 0) < mailbox_limit - 200 then
            sequences := array[pg_catalog.nextval('operon.notifications_sequence_seq')];
            insert into operon.notifications (destination, sequence, woke, topic, sender, traceparent, body)
            overriding system value
            values (m_destination[1], sequences[1], one.woke, m_topic[1], m_sender[1], m_traceparent[1], m_body[1]);
            if m_step[1] is not null then
                insert into operon.checkpoints (workflow_uuid, step, kind, name, output, started_at, seen)
                values (m_sender[1], m_step[1], 10, coalesce(m_topic[1], ''), '"sent"', pg_catalog.to_timestamp(m_started[1]),
                    m_seen[1]);
            end if;
            codes := array[case when not one.ours then 0 when one.waits and not one.woke then 8
                when oldest is null then 2 else 1 end];
            if not one.ours and (one.waits or one.owner is not null) then
                perform operon.tell(
                    array[one.owner], m_destination, case when one.waits and not one.woke then 'look' else 'wake' end
                );
            end if;
            return;
        end if;
    end if;

    if m_key is not null then
        perform from operon.workflows w where w.workflow_uuid = any (m_destination) order by w.workflow_uuid for key share;
        with wanted as materialized (
            select distinct on (u.destination, u.key) u.n, u.destination, u.key
            from unnest(m_destination, m_key, m_owner) with ordinality as u (destination, key, whose, n)
            join operon.workflows w on w.workflow_uuid = any (array[u.destination]) and w.status + 0 = 0
                and operon.is_owned(u.whose, w.authenticated_user)
            where u.key is not null
            order by u.destination, u.key, u.n
        ), remembered as (
            insert into operon.notification_keys (destination, key)
            select wanted.destination, wanted.key from wanted order by wanted.destination, wanted.key
            on conflict do nothing
            returning destination, key
        )
        select array_agg(wanted.n) into fresh
        from wanted join remembered on (remembered.destination, remembered.key) = (wanted.destination, wanted.key);
    end if;

    with judged as materialized (
        select l.*, x.oldest,
            case when l.status is null then 4
                when l.status <> 0 then case
                    when l.key is not null and exists (
                        select from operon.notification_keys k
                        where k.destination = any (array[l.destination]) and k.key = l.key
                    ) then 3
                    when l.keep then 7 else 5 end
                when l.key is not null and not l.n = any (coalesce(fresh, '{}')) then 3
                -- Counted only where the sequence does not say that it cannot be full: counting reads the whole mailbox.
                when l.nth > mailbox_limit or coalesce(x.newest - x.oldest, 0) >= mailbox_limit - 200 and l.nth + (
                    select count(*) from (
                        select from operon.notifications n where n.destination = l.destination limit mailbox_limit
                    ) as counted
                ) > mailbox_limit then 6
                else 0 end as code
        from (
            select u.*, w.status, w.owner, w.wait_kind,
                pg_catalog.row_number() over (partition by u.destination order by u.n) as nth,
                w.wait_kind is not null and coalesce(u.topic, '') = any (coalesce(w.wait_topics, '{}')) as woke
            from unnest(
                m_sender, m_step, m_destination, m_topic, m_body, m_key, m_keep, m_traceparent, m_started, m_seen, m_owner
            ) with ordinality as u (
                sender, step, destination, topic, body, key, keep, traceparent, started, seen, whose, n
            )
            -- The lock, one by one in the order of the destinations: with it comes what is there to know.
            left join lateral (
                select x.status, x.owner, x.wait_kind, x.wait_topics from operon.workflows x
                where x.workflow_uuid = u.destination and operon.is_owned(u.whose, x.authenticated_user)
                for key share
            ) as w on true
        ) as l
        left join lateral (
            -- Not min and max: a plan made while there are no messages would read the whole mailbox for them.
            select (
                select n.sequence from operon.notifications n
                where n.destination = l.destination order by n.sequence limit 1
            ) as oldest, (
                select n.sequence from operon.notifications n
                where n.destination = l.destination order by n.sequence desc limit 1
            ) as newest
        ) as x on l.status = 0
    ), numbered as materialized (
        select j.*, case when j.code in (0, 5, 7) then pg_catalog.nextval('operon.notifications_sequence_seq') end as sequence,
            case when j.code <> 0 or j.owner is not distinct from me then null
                when j.wait_kind is not null and not j.woke then 'look'
                when j.woke or j.owner is not null then 'wake' end as told
        from judged j order by j.n
    ), sent as (
        insert into operon.notifications (destination, sequence, woke, topic, sender, traceparent, body)
        overriding system value
        select j.destination, j.sequence, j.woke, j.topic, j.sender, j.traceparent, j.body from numbered j where j.code = 0
    ), buried as (
        insert into operon.dead_letters (destination, sequence, sent_at, topic, sender, body, reason)
        select j.destination, j.sequence, clock_timestamp(), j.topic, j.sender, j.body, 'finished'
        from numbered j where j.code in (5, 7)
    ), noted as (
        insert into operon.checkpoints (workflow_uuid, step, kind, name, output, started_at, seen)
        select j.sender, j.step, 10, coalesce(j.topic, ''),
            pg_catalog.convert_to(case j.code when 3 then '"duplicate"' when 4 then '"unknown"' when 5 then '"finished"'
                when 6 then '"full"' else '"sent"' end, 'UTF8'),
            pg_catalog.to_timestamp(j.started), j.seen
        from numbered j where j.step is not null
    )
    -- Each list says by what it is ordered: they have to go together.
    select array_agg(
            case when j.code <> 0 or j.owner is distinct from me then j.code
                when j.wait_kind is not null and not j.woke then 8
                when j.nth = 1 and j.oldest is null then 2 else 1 end
            order by j.n
        ),
        array_agg(j.sequence order by j.n),
        array_agg(j.destination order by j.n) filter (where j.told = 'wake'),
        array_agg(j.owner order by j.n) filter (where j.told = 'wake'),
        array_agg(j.destination order by j.n) filter (where j.told = 'look'),
        array_agg(j.owner order by j.n) filter (where j.told = 'look')
    into codes, sequences, others, their_owners, aside, owners_aside
    from numbered j;

    if 6 = any (codes) then
        delete from operon.notification_keys k
        using unnest(codes, m_destination, m_key) with ordinality as u (code, destination, key, n)
        where u.code = 6 and u.n = any (fresh) and k.destination = any (array[u.destination]) and k.key = u.key;
    end if;
    if others is not null then
        perform operon.tell(their_owners, others, 'wake');
    end if;
    if aside is not null then
        perform operon.tell(owners_aside, aside, 'look');
    end if;
end
$$;

-- As `operon.ring`, where it is known who owns them: one notification for each of the owners.
create function operon.tell(owners bigint[], workflows uuid[], word text) returns void language plpgsql as $$
begin
    perform pg_catalog.pg_notify(
        coalesce('operon_' || e.incarnation, 'operon_all'),
        case when e.incarnation is null then 'work' when o.many > 200 then 'wake:*' else word || ':' || o.ids end
    )
    from (
        select u.owner, count(*) as many, pg_catalog.string_agg(u.id::text, ',') as ids
        from unnest(owners, workflows) as u (owner, id) group by u.owner
    ) as o
    left join operon.executors e on e.incarnation = o.owner and e.state <> 2;
end
$$;

-- Who sends holds the destination's row, so a foreign key would only look it up once more, for each message. Whoever
-- removes workflows removes what was sent to them.
alter table operon.notifications drop constraint if exists notifications_destination_fkey;
alter table operon.notification_keys drop constraint if exists notification_keys_destination_fkey;

create function operon.forget() returns trigger language plpgsql
set search_path = '' set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
begin
    delete from operon.notifications n using gone where n.destination = any (array[gone.workflow_uuid]);
    delete from operon.notification_keys k using gone where k.destination = any (array[gone.workflow_uuid]);
    return null;
end
$$;

create trigger workflows_forget after delete on operon.workflows
referencing old table as gone for each statement execute function operon.forget();
