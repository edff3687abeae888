-- The fence of a user's transaction.

-- A workflow, if this executor runs it in this epoch: then nobody takes it over before the transaction has ended. Else null.
-- A function for the sake of the plan, which is made in the user's session: it is never one that reads all workflows.
create function operon.hold(id uuid, me bigint, its_epoch integer) returns uuid language plpgsql
set search_path = '' set plan_cache_mode = force_generic_plan set enable_seqscan = off as $$
begin
    perform from operon.workflows w
    where w.workflow_uuid = id and w.owner + 0 = me and w.epoch = its_epoch and w.status + 0 = 0
    for share;
    return case when found then id end;
end
$$;
