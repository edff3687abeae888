"""Migrations: numbered `.sql` files, each applied once, in order, in a transaction and under an advisory lock.

Any number of executors may start at once: the lock lets one of them migrate, and the others find it done. A process
that finds the schema current takes no lock and needs no right to change it. Old code goes on running during a
migration, so a migration adds and never takes away what the release before it uses.
"""

from __future__ import annotations

import re
from importlib.resources import files

import asyncpg

from operon.database.connection import Connection
from operon.errors import DatabaseUnusable, SchemaTooNew

# "operon" as a number: the key of the lock under which one process at a time migrates or initialises.
LOCK = 0x6F7065726F6E

OLDEST_SERVER = 140000
FILE = re.compile(r"^(\d{4})_\w+\.sql$")


def migrations() -> list[tuple[int, str, str]]:
    """Number, name and text of every migration, in order."""
    folder = files("operon.database").joinpath("migrations")
    return sorted(
        (int(match[1]), file.name, file.read_text(encoding="utf-8"))
        for file in folder.iterdir()
        if (match := FILE.match(file.name))
    )


async def migrate(connection: Connection) -> list[int]:
    """Brings the schema up to this code's version; gives the numbers that it applied.

    Raises DatabaseUnusable for a server that is too old or read-only, SchemaTooNew for a schema of a newer Operon.
    """
    await refuse_unusable(connection)
    known = migrations()
    if await applied(connection) == [number for number, _, _ in known]:
        return []
    done: list[int] = []
    try:
        while (number := await apply_next(connection, known)) is not None:
            done.append(number)
    except asyncpg.InsufficientPrivilegeError as error:
        raise DatabaseUnusable(
            f"this database role may not migrate the schema: {error}",
            hint="run `operon migrate` once with a role that may create a schema, or grant it",
        ) from error
    return done


async def apply_next(connection: Connection, known: list[tuple[int, str, str]]) -> int | None:
    """Applies the first migration that is missing, and gives its number; None when none is missing any more.

    The lock is the transaction's and not the session's, which a pooler may give to somebody else.
    """
    async with connection.transaction():
        await connection.execute("select pg_advisory_xact_lock($1)", LOCK)
        present = await applied(connection)
        if present and present[-1] > known[-1][0]:
            raise SchemaTooNew(
                f"the schema is at version {present[-1]}, this Operon knows {known[-1][0]}",
                hint="upgrade this process; the schema was migrated by a newer one",
            )
        for number, name, text in known:
            if number in present:
                continue
            await connection.execute("create schema if not exists operon")
            await connection.execute(
                "create table if not exists operon.migrations "
                "(number integer primary key, name text not null, applied_at timestamptz not null default now())"
            )
            await connection.execute(text)
            await connection.execute("insert into operon.migrations (number, name) values ($1, $2)", number, name)
            return number
    return None


async def applied(connection: Connection) -> list[int]:
    # Of the catalog's rows: what to_regclass remembers is as old as the transaction that has waited for the lock.
    if not await connection.fetchval(
        "select exists (select from pg_class c join pg_namespace n on n.oid = c.relnamespace "
        "where n.nspname = 'operon' and c.relname = 'migrations')"
    ):
        return []
    return [row[0] for row in await connection.fetch("select number from operon.migrations order by number")]


async def refuse_unusable(connection: Connection) -> None:
    row = await connection.fetchrow(
        "select current_setting('server_version_num')::int, current_setting('server_version'), pg_is_in_recovery(), "
        "current_setting('default_transaction_read_only')::bool"
    )
    if row is None or row[0] < OLDEST_SERVER:
        raise DatabaseUnusable(f"the server is PostgreSQL {row and row[1]}", hint="Operon needs PostgreSQL 14 or newer")
    if row[2] or row[3]:
        raise DatabaseUnusable(
            "the database is read-only", hint="point database_url at the primary; a standby cannot run workflows"
        )
