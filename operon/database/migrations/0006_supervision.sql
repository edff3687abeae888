-- What operators see of supervision. Of the events themselves there is a table already.

-- What each executor says of itself, now and then, so that any of them can answer for all. It goes along with the renewal
-- of the lease, in its commit. Unlogged, and a table of its own: it is worth nothing after a crash of the server, and in
-- the executor's row every flush would have to copy it.
create unlogged table operon.executor_snapshots (
    executor bigint primary key,
    at timestamptz not null,
    body bytea not null
) with (fillfactor = 50);

-- Workflows that are suspended by their name. A function, because that table comes with a migration of its own.
create function operon.suspended() returns table (name text, since timestamptz, until timestamptz, crashes integer)
language plpgsql stable set search_path = '' as $$
begin
    if pg_catalog.to_regclass('operon.suspensions') is not null then
        return query select s.name, s.since, s.until, s.crashes::integer from operon.suspensions s;
    end if;
end
$$;
