-- The group commit, and how an executor finds out whether a batch of it landed whose acknowledgement was lost.

-- The batches that landed, for as long as somebody may ask; and those that have not, and never will. Not a number in the
-- executor's row: that would be one more version of it for each batch, and a transaction that stays open somewhere keeps
-- them all. After an hour each flush would wade through a million.
create table operon.batches (
    executor bigint not null,
    batch bigint not null,
    lost boolean not null default false, -- it had not landed when its executor asked, and was sent anew
    answers text, -- what became of its messages, when one of them was not simply delivered
    primary key (executor, batch)
);
alter table operon.executors drop column if exists batch, drop column if exists answers, drop column if exists lost_batch;

-- Did it land? A flush that is still under way on a lost connection is waited for. One that has not landed never will: it
-- may be on its way to the server, and what it carries is about to be sent anew.
create function operon.landed(me bigint, number bigint, out landed boolean, out answers text) language plpgsql
set search_path = '' as $$
begin
    insert into operon.batches (executor, batch, lost) values (me, number, true) on conflict (executor, batch) do nothing;
    select not b.lost, b.answers into landed, answers
    from operon.batches b where b.executor = me and b.batch = number;
end
$$;

-- The group commit: everything that the live workflows of one executor have to say since the last time, in one round
-- trip and one transaction. The lock on the executor's own row is the fence: whoever declares the executor dead locks
-- that row first, so either this batch is before the takeover, or it finds no row and nothing of it happens.
-- A start whose UUID is taken is left alone and given back (`taken`); the caller attaches to what is there.
-- `woken`: parked workflows of this executor that waited for what has happened here.
create or replace function operon.flush(
    me bigint, number bigint, app_version text,
    s_uuid uuid[], s_name text[], s_inputs bytea[], s_status smallint[], s_output bytea[], s_error bytea[],
    s_caller text[], s_request bytea[], s_parent uuid[], s_parent_step integer[], s_deadline float8[],
    s_wait_kind smallint[], s_wait_what text[], s_wait_topics text[], s_wake float8[],
    c_uuid uuid[], c_step integer[], c_kind smallint[], c_name text[], c_output bytea[], c_error bytea[],
    c_started float8[], c_attempts smallint[], c_seen text[],
    f_uuid uuid[], f_status smallint[], f_output bytea[], f_error bytea[],
    bells text[],
    out taken uuid[], out woken uuid[]
) language plpgsql
-- Planned once, perhaps while the tables were empty, and that plan is kept while they fill. So scans and their joins are
-- off. And whoever looks up many rows at a time says `= any (array[x])` here and in what follows: with a plain `=` a plan
-- for a table that is nearly empty reads all of it along its index, for the sake of the order, and looks up the many.
set search_path = '' set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
    affected bigint;
    revoked uuid[];
begin
    select e.revoked into revoked from operon.executors e
    where e.incarnation = me and e.state <> 2
    for no key update;
    if not found then
        raise exception 'executor % was declared dead', me using errcode = 'OP001';
    end if;
    if revoked is not null then
        raise exception 'workflows were cancelled' using errcode = 'OP004', detail = pg_catalog.array_to_string(revoked, ',');
    end if;
    insert into operon.batches (executor, batch) values (me, number); -- refused, if this batch was given up
    if number % 64 = 0 then -- nobody asks for these any more
        delete from operon.batches b
        where b.executor = me and b.batch between number - 512 and number - 64 and not b.lost;
    end if;
    if s_uuid is not null then
        insert into operon.workflows (
            workflow_uuid, owner, status, name, version, inputs, output, error,
            authenticated_user, authenticated_roles, assumed_role, traceparent, request, parent, parent_step, deadline,
            wait_kind, wait_what, wait_since, wait_topics, wake_at
        )
        select u.id, me, coalesce(u.status, 0), u.name, app_version, u.inputs, u.output, u.error,
            u.caller::json ->> 'user',
            case when u.caller is not null then
                array(select pg_catalog.json_array_elements_text(u.caller::json -> 'roles'))
            end,
            u.caller::json ->> 'assumed_role', u.caller::json ->> 'traceparent',
            u.request, u.parent, u.parent_step, pg_catalog.to_timestamp(u.deadline),
            -- One that only waits from its first moment on begins as a parked one.
            u.wait_kind, u.wait_what, case when u.wait_kind is not null then clock_timestamp() end,
            operon.topics(u.wait_topics), pg_catalog.to_timestamp(u.wake)
        from unnest(
            s_uuid, s_name, s_inputs, s_status, s_output, s_error, s_caller, s_request, s_parent, s_parent_step,
            s_deadline, s_wait_kind, s_wait_what, s_wait_topics, s_wake
        ) as u (
            id, name, inputs, status, output, error, caller, request, parent, parent_step, deadline,
            wait_kind, wait_what, wait_topics, wake
        )
        on conflict (workflow_uuid) do nothing;
        get diagnostics affected = row_count;
        if affected <> cardinality(s_uuid) then
            select array_agg(w.workflow_uuid) into taken from operon.workflows w
            where w.workflow_uuid = any (s_uuid) and w.xmin <> pg_catalog.pg_current_xact_id()::xid;
        end if;
    end if;
    if c_uuid is not null then
        insert into operon.checkpoints (
            workflow_uuid, step, kind, name, output, error, started_at, attempts, seen
        )
        select u.id, u.step, u.kind, u.name, u.output, u.error, pg_catalog.to_timestamp(u.started), u.attempts, u.seen
        from unnest(c_uuid, c_step, c_kind, c_name, c_output, c_error, c_started, c_attempts, c_seen)
            as u (id, step, kind, name, output, error, started, attempts, seen);
    end if;
    if f_uuid is not null then
        update operon.workflows w
        set status = coalesce(u.status, 1), output = u.output, error = u.error, updated_at = clock_timestamp(),
            wait_kind = null, wait_what = null, wait_since = null, wait_topics = null, wake_at = null
        from unnest(f_uuid, f_status, f_output, f_error) as u (id, status, output, error)
        -- By the primary key. The `+ 0` keep this from the index of pending workflows, which a plan made while there were
        -- none takes for short: it would read everything that this executor owns, for each batch.
        where w.workflow_uuid = any (array[u.id]) and w.owner + 0 = me and w.status + 0 = 0;
        get diagnostics affected = row_count;
        if affected <> cardinality(f_uuid) then
            raise exception 'executor % finished workflows that it does not own', me using errcode = 'OP002';
        end if;
        woken := operon.wake(me, f_uuid, null);
    end if;
    if bells is not null then
        perform pg_catalog.pg_notify(split_part(bell, ' ', 1), split_part(bell, ' ', 2)) from unnest(bells) as bell;
    end if;
end
$$;

-- A flush that also carries messages, events and parked workflows. Still one round trip and one transaction.
--
-- Parking loses no wake-up because of two locks. Whoever sends to a workflow first takes its row FOR KEY SHARE; whoever
-- sets an event or ends it has its row FOR NO KEY UPDATE. Whoever parks takes the own row FOR UPDATE and the rows of
-- those it waits for FOR SHARE, and then looks, in a new statement, whether what it waits for is there. So of the two
-- one is first, and the other one sees it. Parking comes last here and skips what is locked, so it never makes a circle.
create or replace function operon.flush_mail(
    me bigint, number bigint, app_version text,
    s_uuid uuid[], s_name text[], s_inputs bytea[], s_status smallint[], s_output bytea[], s_error bytea[],
    s_caller text[], s_request bytea[], s_parent uuid[], s_parent_step integer[], s_deadline float8[],
    s_wait_kind smallint[], s_wait_what text[], s_wait_topics text[], s_wake float8[],
    c_uuid uuid[], c_step integer[], c_kind smallint[], c_name text[], c_output bytea[], c_error bytea[],
    c_started float8[], c_attempts smallint[], c_seen text[],
    f_uuid uuid[], f_status smallint[], f_output bytea[], f_error bytea[],
    bells text[],
    r_uuid uuid[], r_sequence bigint[],
    u_uuid uuid[],
    e_uuid uuid[], e_step integer[], e_key text[], e_value bytea[],
    mailbox_limit integer,
    m_sender uuid[], m_step integer[], m_destination uuid[], m_topic text[], m_body bytea[], m_key text[],
    m_keep boolean[], m_traceparent text[], m_started float8[], m_seen text[], m_owner text[],
    p_uuid uuid[], p_kind smallint[], p_what text[], p_topics text[], p_wake float8[],
    w_waiter uuid[], w_target uuid[], w_key text[],
    out taken uuid[], out woken uuid[], out codes smallint[], out sequences bigint[], out busy uuid[]
) language plpgsql
set search_path = '' set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
    affected bigint;
    fresh bigint[]; -- messages whose idempotency key was new
    others uuid[];
    aside uuid[]; -- who wait for other things
    woke boolean[];
    told smallint[];
    locked uuid[];
    parked uuid[];
    held uuid[]; -- those they wait for, locked
    is_simple boolean := false;
    one record; -- whom the only message is for
    oldest bigint; -- in its mailbox
    newest bigint;
    ready uuid[]; -- those for whom it is there already
begin
    select f.taken, f.woken into taken, woken from operon.flush(
        me, number, app_version,
        s_uuid, s_name, s_inputs, s_status, s_output, s_error, s_caller, s_request, s_parent, s_parent_step, s_deadline,
        s_wait_kind, s_wait_what, s_wait_topics, s_wake,
        c_uuid, c_step, c_kind, c_name, c_output, c_error, c_started, c_attempts, c_seen,
        f_uuid, f_status, f_output, f_error, bells
    ) as f;

    if r_uuid is not null then
        delete from operon.notifications n
        using unnest(r_uuid, r_sequence) as u (id, sequence)
        where n.destination = any (array[u.id]) and n.sequence = u.sequence;
        get diagnostics affected = row_count;
        if affected <> cardinality(r_uuid) then
            raise exception 'a message was removed before it was received' using errcode = 'OP003';
        end if;
    end if;

    if u_uuid is not null then
        delete from operon.waits x where x.waiter = any (u_uuid);
        update operon.workflows w
        set wait_kind = null, wait_what = null, wait_since = null, wait_topics = null, wake_at = null
        where w.workflow_uuid = any (u_uuid) and w.owner + 0 = me and w.status + 0 = 0;
    end if;

    if e_uuid is not null then
        perform from operon.workflows w where w.workflow_uuid = any (e_uuid) order by w.workflow_uuid for no key update;
        insert into operon.events (workflow_uuid, step, key, value)
        select * from unnest(e_uuid, e_step, e_key, e_value)
        on conflict (workflow_uuid, key)
        do update set step = excluded.step, value = excluded.value, set_at = clock_timestamp();
        woken := woken || operon.wake(me, e_uuid, e_key);
    end if;

    if m_destination is not null then
        -- Most batches of an executor with little to do have one message, to a workflow that is not finished. This is all
        -- there is to know of it then, for a third of what the look at many costs.
        if cardinality(m_destination) = 1 and m_key is null and m_owner is null then
            select w.owner, w.wait_kind is not null as waits,
                w.wait_kind is not null and coalesce(m_topic[1], '') = any (coalesce(w.wait_topics, '{}')) as woke
            into one
            from operon.workflows w where w.workflow_uuid = m_destination[1] and w.status + 0 = 0
            for key share;
            is_simple := found;
        end if;
        if is_simple then
            oldest := (
                select n.sequence from operon.notifications n
                where n.destination = m_destination[1] order by n.sequence limit 1
            );
            newest := (
                select n.sequence from operon.notifications n
                where n.destination = m_destination[1] order by n.sequence desc limit 1
            );
            is_simple := coalesce(newest - oldest, 0) < mailbox_limit - 200;
        end if;
        if is_simple then
            codes := '{0}';
            woke := array[one.woke];
            told := array[case when one.owner is distinct from me then 0 when one.waits and not one.woke then 8
                when oldest is null then 2 else 1 end];
            if one.owner is distinct from me and one.waits and not one.woke then
                aside := m_destination;
            elsif one.owner is distinct from me and (one.woke or one.owner is not null) then
                others := m_destination;
            end if;
        else
            perform from operon.workflows w where w.workflow_uuid = any (m_destination) order by w.workflow_uuid for key share;
            if m_key is not null then
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
            -- One look at all of them. Each list says by what it is ordered: they have to go together.
            -- `told`: 1 and 2, to one of ours, which has to be told; 2, and nothing else is in its mailbox; 8, it is parked and
            -- waits for other things, but may just be coming back.
            select array_agg(j.code order by j.n), array_agg(j.woke order by j.n),
                array_agg(
                    case when j.code = 0 and j.owner = me and (j.wait_kind is null or j.woke)
                        then case when j.nth = 1 and j.oldest is null then 2 else 1 end
                        when j.code = 0 and j.owner = me then 8
                        else j.code end
                    order by j.n
                ),
                array_agg(j.destination) filter (
                    where j.code = 0 and j.owner is distinct from me and j.wait_kind is not null and not j.woke
                ),
                array_agg(j.destination) filter (
                    where j.code = 0 and j.owner is distinct from me and (j.woke or (j.wait_kind is null and j.owner is not null))
                )
            into codes, woke, told, aside, others
            from (
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
                        pg_catalog.row_number() over (partition by w.workflow_uuid order by u.n) as nth,
                        w.wait_kind is not null and coalesce(u.topic, '') = any (coalesce(w.wait_topics, '{}')) as woke
                    from unnest(m_destination, m_topic, m_key, m_keep, m_owner) with ordinality
                        as u (destination, topic, key, keep, whose, n)
                    left join operon.workflows w on w.workflow_uuid = any (array[u.destination])
                        and operon.is_owned(u.whose, w.authenticated_user)
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
                offset 0 -- so that it is not written into each of the lists, and looked up for each again
            ) as j;
        end if;
        sequences := array(
            select case when u.code in (0, 5, 7) then pg_catalog.nextval('operon.notifications_sequence_seq') end
            from unnest(codes) with ordinality as u (code, n) order by u.n
        );
        insert into operon.notifications (destination, sequence, woke, topic, sender, traceparent, body)
        overriding system value
        select u.destination, u.sequence, u.woke, u.topic, u.sender, u.traceparent, u.body
        from unnest(codes, m_destination, sequences, woke, m_topic, m_sender, m_traceparent, m_body)
            as u (code, destination, sequence, woke, topic, sender, traceparent, body)
        where u.code = 0;
        if codes && '{5,6,7}' then
            insert into operon.dead_letters (destination, sequence, sent_at, topic, sender, body, reason)
            select u.destination, u.sequence, clock_timestamp(), u.topic, u.sender, u.body, 'finished'
            from unnest(codes, m_destination, sequences, m_topic, m_sender, m_body)
                as u (code, destination, sequence, topic, sender, body)
            where u.code in (5, 7);
            delete from operon.notification_keys k
            using unnest(codes, m_destination, m_key) with ordinality as u (code, destination, key, n)
            where u.code = 6 and u.n = any (fresh) and k.destination = any (array[u.destination]) and k.key = u.key;
        end if;
        codes := told;

        insert into operon.checkpoints (workflow_uuid, step, kind, name, output, started_at, seen)
        select u.sender, u.step, 10, coalesce(u.topic, ''),
            pg_catalog.convert_to(case u.code when 3 then '"duplicate"' when 4 then '"unknown"' when 5 then '"finished"'
                when 6 then '"full"' else '"sent"' end, 'UTF8'),
            pg_catalog.to_timestamp(u.started), u.seen
        from unnest(m_sender, m_step, m_topic, codes, m_started, m_seen) as u (sender, step, topic, code, started, seen)
        where u.step is not null;
        if others is not null then
            perform operon.ring(me, others);
        end if;
        if aside is not null then
            perform operon.ring(me, aside, 'look');
        end if;
        if codes && '{3,4,5,6,7}' then
            update operon.batches b set answers = pg_catalog.array_to_string(codes, ',')
            where b.executor = me and b.batch = number;
        end if;
    end if;

    if p_uuid is not null then
        locked := array(
            select w.workflow_uuid from operon.workflows w
            where w.workflow_uuid = any (p_uuid) and w.owner + 0 = me and w.status + 0 = 0
            order by w.workflow_uuid for update skip locked
        );
        parked := locked;
        if w_target is not null then
            held := array(
                select w.workflow_uuid from operon.workflows w
                where w.workflow_uuid = any (w_target) order by w.workflow_uuid for share skip locked
            );
            parked := array(
                select p from unnest(parked) as p
                where not exists (
                    select from unnest(w_waiter, w_target) as x (waiter, target)
                    where x.waiter = p and x.target <> all (held)
                )
            );
            insert into operon.waits (target, waiter, key)
            select x.target, x.waiter, x.key from unnest(w_waiter, w_target, w_key) as x (waiter, target, key)
            where x.waiter = any (parked)
            on conflict (target, waiter, key) do update set due = false;
        end if;
        -- The look, in a new statement.
        ready := array(
            select p.id from unnest(p_uuid, p_topics) as p (id, topics)
            where p.topics is not null and exists (
                select from operon.notifications n
                where n.destination = any (array[p.id]) and coalesce(n.topic, '') = any (operon.topics(p.topics))
            )
            union
            select x.waiter from unnest(w_waiter, w_target, w_key) as x (waiter, target, key)
            where exists (
                    select from operon.workflows t where t.workflow_uuid = any (array[x.target]) and t.status + 0 <> 0
                        -- One that was cancelled, or is dead, may be resumed, and set the event after all.
                        and (x.key = '' or t.status + 0 in (1, 2))
                )
                or exists (select from operon.events e where e.workflow_uuid = any (array[x.target]) and e.key = x.key)
        );
        update operon.workflows w
        set wait_kind = p.kind, wait_what = p.what, wait_since = clock_timestamp(), wait_topics = operon.topics(p.topics),
            wake_at = pg_catalog.to_timestamp(p.wake)
        from unnest(p_uuid, p_kind, p_what, p_topics, p_wake) as p (id, kind, what, topics, wake)
        where w.workflow_uuid = any (array[p.id]) and p.id = any (parked) and p.id <> all (ready);
        busy := array(select p from unnest(p_uuid) as p where p <> all (parked) or p = any (ready));
        -- Who stays runs, also in the database: it may have parked before, and been rung for before it left memory.
        if busy && locked then
            delete from operon.waits x where x.waiter = any (busy) and x.waiter = any (locked);
            update operon.workflows w
            set wait_kind = null, wait_what = null, wait_since = null, wait_topics = null, wake_at = null
            where w.workflow_uuid = any (busy) and w.workflow_uuid = any (locked) and w.wait_kind is not null;
        end if;
    end if;
end
$$;
