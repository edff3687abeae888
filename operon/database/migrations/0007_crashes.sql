-- The restart budget of a workflow: crashes without progress since the last one. Progress is a recorded step.
--
-- An actor that crashed is parked until its pause is over, so whoever owns it then brings it back like any other. When a
-- process died, nobody knows which of its workflows it was that took it down: it counts for all that were awake, but
-- where some of them had crashed before without getting any further, only for those that had done so most often.

alter table operon.executors
    -- Of one that was declared dead: how often those had crashed in a row that are blamed. Null if it left in order.
    add column blame smallint;

create index workflows_crashed on operon.workflows (owner) where status = 0 and crash_count > 0;

-- How many steps of a workflow are recorded.
create function operon.progress(id uuid) returns integer language sql stable as
$$select count(*)::integer from operon.checkpoints c where c.workflow_uuid = id and c.step >= 0$$;

-- Whether a workflow was awake at a moment, as far as its row tells: a parked one, because what it waits for had come.
create function operon.was_awake(id uuid, wait_kind smallint, wake_at timestamptz, moment timestamptz)
returns boolean language sql stable as $$
select wait_kind is null or coalesce(wake_at <= moment, false)
    or exists (select from operon.notifications n where n.destination = id and n.woke and n.sent_at <= moment)
    or exists (
        select from operon.waits x
        join operon.workflows t on t.workflow_uuid = any (array[x.target])
        left join operon.events e on e.workflow_uuid = any (array[x.target]) and e.key = x.key
        where x.waiter = id and x.due and coalesce(e.set_at, t.updated_at) <= moment
    )
$$;

-- Whether a workflow is not to be run beside another one like it: three times its process died, and it got nowhere.
create function operon.is_suspect(id uuid, crash_count smallint, crash_step integer) returns boolean language sql stable as
$$select crash_count > 1 and crash_step = operon.progress(id)$$;

-- What is known of a workflow's crashes when it is claimed.
create function operon.crashes(
    id uuid, owner bigint, wait_kind smallint, wake_at timestamptz,
    inout crash_count smallint, inout crash_step integer
) language plpgsql stable set search_path = '' as $$
declare
    blamed smallint;
    died timestamptz;
    steps integer;
begin
    select e.blame, e.died_at into blamed, died from operon.executors e where e.incarnation = owner and e.state = 2;
    if blamed is null or not operon.was_awake(id, wait_kind, wake_at, died) then
        return;
    end if;
    steps := operon.progress(id);
    if steps is distinct from crash_step then
        crash_count := 0;
        crash_step := steps;
    end if;
    if crash_count >= blamed then
        crash_count := crash_count + 1;
    end if;
end
$$;
