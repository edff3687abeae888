-- Messages that nobody received: what an operator can do with them.

-- Sends a dead letter to its workflow again, once: with a key of its own, and in the transaction that takes it out of the
-- dead. False when there is no such letter any more.
create function operon.requeue(destination uuid, sequence bigint) returns boolean language plpgsql
set search_path = '' set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
    letter operon.dead_letters;
begin
    perform from operon.workflows w where w.workflow_uuid = requeue.destination and w.status = 0 for key share;
    if not found then
        raise exception 'workflow % has ended, or is unknown', destination using errcode = 'OP410';
    end if;
    delete from operon.dead_letters d where d.destination = requeue.destination and d.sequence = requeue.sequence
    returning * into letter;
    if not found then
        return false;
    end if;
    perform operon.send(
        destination, pg_catalog.convert_from(letter.body, 'UTF8')::json, letter.topic, 'dead letter ' || sequence
    );
    return true;
end
$$;
