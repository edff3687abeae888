-- The group commit: everything that the live workflows of one executor have to say since the last time, in one round
-- trip and one transaction. The lock on the executor's own row is the fence: whoever declares the executor dead locks
-- that row first, so either this batch is before the takeover, or it finds no row and nothing of it happens.
-- A start whose UUID is taken is left alone and given back (`taken`); the caller attaches to what is there.
-- `woken`: parked workflows of this executor that waited for what has happened here. `codes` and `sequences`: what became
-- of its messages (see `operon.deliver`). `busy`: those that wanted to park and stay (see `operon.park`).
--
-- `after`: a batch without which this one must not be. An executor sends a batch while the one before it is under way, on
-- another connection: there it waits for the row, and then finds out whether that one has come to anything.
--
-- Two executors may wait for each other's workflows, and each flush then wants rows of `operon.waits` that the other one
-- changes. There is no circle: rows of those who are to be woken come first; what somebody waited for who waits no more
-- is taken away after that, without waiting for anybody.
create function operon.flush(
    me bigint, number bigint, after bigint, app_version text,
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
-- Planned once, perhaps while the tables were empty, and that plan is kept while they fill. So scans and their joins are
-- off. And whoever looks up many rows at a time says `= any (array[x])` here and in what follows: with a plain `=` a plan
-- for a table that is nearly empty reads all of it along its index, for the sake of the order, and looks up the many.
-- What this calls runs with these settings too.
set search_path = '' set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
    affected bigint;
    revoked uuid[];
    waiters uuid[];
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
    if after is not null and not exists (
        select from operon.batches b where b.executor = me and b.batch = after and not b.lost
    ) then
        raise exception 'batch % has not landed, and comes before batch %', after, number using errcode = 'OP005';
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

    -- Before the ends, which look at what is left in the mailboxes.
    if r_uuid is not null then
        delete from operon.notifications n
        using unnest(r_uuid, r_sequence) as u (id, sequence)
        where n.destination = any (array[u.id]) and n.sequence = u.sequence;
        get diagnostics affected = row_count;
        if affected <> cardinality(r_uuid) then
            raise exception 'a message was removed before it was received' using errcode = 'OP003';
        end if;
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
        waiters := operon.happened(f_uuid, null);
    end if;

    if u_uuid is not null then
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
        waiters := waiters || operon.happened(e_uuid, e_key);
    end if;

    if m_destination is not null then
        select d.codes, d.sequences into codes, sequences from operon.deliver(
            me, mailbox_limit, m_sender, m_step, m_destination, m_topic, m_body, m_key, m_keep, m_traceparent, m_started,
            m_seen, m_owner
        ) as d;
        if codes && '{3,4,5,6,7}' then
            update operon.batches b set answers = pg_catalog.array_to_string(codes, ',')
            where b.executor = me and b.batch = number;
        end if;
    end if;

    if waiters is not null then
        woken := operon.ring(me, waiters);
    end if;
    if bells is not null then
        perform pg_catalog.pg_notify(split_part(bell, ' ', 1), split_part(bell, ' ', 2)) from unnest(bells) as bell;
    end if;

    if f_uuid is not null or u_uuid is not null then
        perform operon.stop_waiting(f_uuid || u_uuid);
    end if;
    if p_uuid is not null then
        busy := operon.park(me, p_uuid, p_kind, p_what, p_topics, p_wake, w_waiter, w_target, w_key);
    end if;
end
$$;

-- What workflows wait for has happened: events of these keys or, without keys, the end of the targets; who monitors an end
-- gets a message. Gives those who may go on, to be rung for. The caller has locked the targets' rows, so whoever parks
-- meanwhile has either been seen here or looks after us.
create function operon.happened(targets uuid[], keys text[]) returns uuid[] language plpgsql as $$
declare
    waiters uuid[];
begin
    with due as (
        update operon.waits x set due = true
        from unnest(targets, coalesce(keys, array_fill(null::text, array[cardinality(targets)]))) as t (target, key)
        where x.target = any (array[t.target]) and (t.key is null or x.key = t.key) and not x.due
        returning x.waiter
    )
    select array_agg(distinct waiter) into waiters from due;
    if keys is null then
        -- What would have woken who has ended, does not any more: every look for work would read it, for ever.
        update operon.notifications n set woke = false where n.destination = any (targets) and n.woke;
        waiters := waiters || operon.tell_monitors(targets);
    end if;
    return waiters;
end
$$;

-- These workflows wait for nothing any more. A row that somebody just sets due stays, and nobody waits for him: looks for
-- work ask whether the waiter is parked, and the hourly sweep removes it.
create function operon.stop_waiting(waiters uuid[]) returns void language plpgsql as $$
begin
    delete from operon.waits x where x.ctid = any (array(
        select y.ctid from operon.waits y where y.waiter = any (waiters) for update skip locked
    ));
end
$$;

-- As before, for those who end workflows from outside of a flush.
create or replace function operon.wake(me bigint, targets uuid[], keys text[]) returns uuid[] language plpgsql
set search_path = '' set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
    waiters uuid[] := operon.happened(targets, keys);
begin
    if keys is null then
        perform operon.stop_waiting(targets);
    end if;
    return case when waiters is not null then operon.ring(me, waiters) end;
end
$$;

-- Whoever calls these has the settings that they were made with, and each setting costs something.
alter function operon.ring(bigint, uuid[], text) reset all;
alter function operon.tell_monitors(uuid[]) reset all;
