-- name: server
-- What a server has to be for Operon's promises to hold, and who we are on it.
select
    current_setting('server_version_num')::int as version_number,
    current_setting('server_version') as version,
    pg_is_in_recovery() or current_setting('default_transaction_read_only')::bool as read_only,
    current_setting('fsync')::bool as fsync,
    current_setting('full_page_writes')::bool as full_page_writes,
    current_setting('synchronous_commit') as synchronous_commit,
    current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int as connections,
    current_database()::text as database,
    current_user::text as role,
    (select rolsuper from pg_roles where rolname = current_user) as superuser,
    has_database_privilege(current_database(), 'create') as may_create,
    pg_backend_pid() as pid

-- name: missing_rights
-- What this role may not do in the schema and would have to, in the words of `grant`.
select format('usage on schema %I', n.nspname)
from pg_namespace n
where n.nspname = 'operon' and not has_schema_privilege(n.oid, 'usage')
union all
select format('%s on %I.%I', lower(p.privilege), n.nspname, c.relname)
from pg_namespace n
join pg_class c on c.relnamespace = n.oid and c.relkind in ('r', 'p') and c.relname <> 'migrations'
cross join unnest(array['SELECT', 'INSERT', 'UPDATE', 'DELETE']) as p (privilege)
where n.nspname = 'operon' and not has_table_privilege(c.oid, p.privilege)
union all
select format('select on %I.%I', n.nspname, c.relname)
from pg_namespace n
join pg_class c on c.relnamespace = n.oid and c.relname = 'migrations'
where n.nspname = 'operon' and not has_table_privilege(c.oid, 'select')
union all
-- A case, because the condition beside it may be looked at second, and of a table the question is an error.
select format('usage on sequence %I.%I', n.nspname, c.relname)
from pg_namespace n
join pg_class c on c.relnamespace = n.oid
where n.nspname = 'operon' and case when c.relkind = 'S' then not has_sequence_privilege(c.oid, 'usage') end
union all
select format('execute on function %s', p.oid::regprocedure)
from pg_namespace n
join pg_proc p on p.pronamespace = n.oid
where n.nspname = 'operon' and not has_function_privilege(p.oid, 'execute')

-- name: clock
select clock_timestamp()

-- name: process
select pg_backend_pid()

-- name: ring
select pg_notify($1, $2)
