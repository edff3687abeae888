-- What an executor writes on behalf of its live workflows, and how those who wait for it are told.

-- The topics that a parked workflow waits for, as they travel: joined by a character that no topic contains.
create function operon.topics(joined text) returns text[] language sql immutable as
$$select case when joined = '' then '{""}'::text[] else pg_catalog.string_to_array(joined, e'\x1f') end$$;

-- Tells the executors of these workflows to look at them, one notification each; gives those of the caller's own.
-- Those that nobody alive owns are for whoever comes first.
create function operon.ring(me bigint, workflows uuid[], word text default 'wake') returns uuid[] language plpgsql
set search_path = '' set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
    mine uuid[];
begin
    -- A payload has room for some two hundred UUIDs.
    perform pg_catalog.pg_notify(
        coalesce('operon_' || e.incarnation, 'operon_all'),
        case when e.incarnation is null then 'work'
            when count(*) > 200 then 'wake:*'
            else word || ':' || pg_catalog.string_agg(w.workflow_uuid::text, ',') end
    )
    from operon.workflows w
    left join operon.executors e on e.incarnation = w.owner and e.state <> 2
    where w.workflow_uuid = any (workflows) and w.status + 0 = 0 and w.owner is distinct from me
    group by e.incarnation;
    select array_agg(w.workflow_uuid) into mine
    from operon.workflows w
    where w.workflow_uuid = any (workflows) and w.status + 0 = 0 and w.owner + 0 = me;
    return mine;
end
$$;

-- What parked workflows waited for has happened: events of these keys, or, without keys, the end of the targets.
-- The caller has locked the targets' rows, so whoever parks meanwhile has either been seen here or looks after us.
create function operon.wake(me bigint, targets uuid[], keys text[]) returns uuid[] language plpgsql
set search_path = '' set plan_cache_mode = force_generic_plan
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
    waiters uuid[];
begin
    with happened as (
        update operon.waits x set due = true
        from unnest(targets, coalesce(keys, array_fill(null::text, array[cardinality(targets)]))) as t (target, key)
        where x.target = any (array[t.target]) and (t.key is null or x.key = t.key) and not x.due
        returning x.waiter
    )
    select array_agg(distinct waiter) into waiters from happened;
    return case when waiters is not null then operon.ring(me, waiters) end;
end
$$;

-- The group commit: everything that the live workflows of one executor have to say since the last time, in one round
-- trip and one transaction. The update of the executor's own row is the fence: whoever declares the executor dead locks
-- that row first, so either this batch is before the takeover, or it finds no row and nothing of it happens.
-- A start whose UUID is taken is left alone and given back (`taken`); the caller attaches to what is there.
-- `woken`: parked workflows of this executor that waited for what has happened here.
create function operon.flush(
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
    update operon.executors e set batch = number, answers = null
    where e.incarnation = me and e.state <> 2 and e.lost_batch < number
    returning e.revoked into revoked;
    if not found then
        raise exception 'executor % was declared dead, or has given up batch %', me, number using errcode = 'OP001';
    end if;
    if revoked is not null then
        raise exception 'workflows were cancelled' using errcode = 'OP004', detail = pg_catalog.array_to_string(revoked, ',');
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

