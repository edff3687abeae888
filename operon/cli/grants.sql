-- The least that Operon needs, for two roles: "$owner" migrates the schema operon, "$application" runs workflows.
-- Run it in the application's database as a superuser, before `operon migrate` or at any time after it; a second run
-- changes nothing. The roles have no passwords yet:  alter role "$application" password '...'
-- Rights on the application's own tables are not among these.

do $$do$$
begin
    if not exists (select from pg_roles where rolname = '$owner') then
        create role "$owner" login;
    end if;
    if not exists (select from pg_roles where rolname = '$application') then
        create role "$application" login;
    end if;
    -- `create schema if not exists` asks for the right to create, also where the schema is there.
    execute format('grant connect, create on database %I to "$owner"', current_database());
    execute format('grant connect on database %I to "$application"', current_database());
end
$$do$$;

create schema if not exists operon;
alter schema operon owner to "$owner";

-- Somebody else may have migrated before.
do $$do$$
declare
    thing text;
begin
    for thing in
        select format('table %s', c.oid::regclass) from pg_class c
        where c.relnamespace = 'operon'::regnamespace and c.relkind in ('r', 'p', 'v')
        union all
        select format('routine %s', p.oid::regprocedure) from pg_proc p where p.pronamespace = 'operon'::regnamespace
    loop
        execute format('alter %s owner to "$owner"', thing);
    end loop;
end
$$do$$;

-- What is there, and what "$owner" will make.
grant usage on schema operon to "$application";
grant select, insert, update, delete on all tables in schema operon to "$application";
grant usage on all sequences in schema operon to "$application";
grant execute on all routines in schema operon to "$application";
alter default privileges for role "$owner" in schema operon
    grant select, insert, update, delete on tables to "$application";
alter default privileges for role "$owner" in schema operon grant usage on sequences to "$application";
alter default privileges for role "$owner" in schema operon grant execute on routines to "$application";
