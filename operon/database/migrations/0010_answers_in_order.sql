-- What became of each message of a flush is answered in the order of the messages.
--
-- `operon.flush_mail` collects the answers out of a sorted subquery. That order lasts only as long as nothing sorts again,
-- and since PostgreSQL 16 an aggregate with `distinct` does: it sorts the rows that all aggregates beside it see. Then
-- answers went to other messages of the batch than they were about: one that was new was dropped as a duplicate, and a
-- duplicate was delivered. So the order is said with each answer, and the two lists of whom to ring may say a name twice.
do $$
declare
    definition text := pg_get_functiondef('operon.flush_mail'::regproc);
    part text[];
begin
    foreach part slice 1 in array array[
        ['array_agg(j.code), array_agg(j.woke),', 'array_agg(j.code order by j.n), array_agg(j.woke order by j.n),'],
        ['pg_catalog.nextval(''operon.notifications_sequence_seq'') end)',
            'pg_catalog.nextval(''operon.notifications_sequence_seq'') end order by j.n)'],
        ['else j.code end
            ),', 'else j.code end order by j.n
            ),'],
        ['array_agg(distinct j.destination)', 'array_agg(j.destination)']
    ] loop
        if position(part[1] in definition) = 0 then
            raise exception 'operon.flush_mail does not have: %', part[1];
        end if;
        definition := replace(definition, part[1], part[2]);
    end loop;
    execute definition;
end
$$;
