"""Migrations: numbered `.sql` files, each applied once, in order, under an advisory lock.

Any number of executors may start at once: the lock lets one of them migrate, and the others find it done. A process
that finds the schema current takes no lock and needs no right to change it. Old code goes on running during a
migration, so a migration adds and never takes away what the release before it uses.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Iterator
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
    await connection.execute("select pg_advisory_lock($1)", LOCK)
    try:
        present = await applied(connection)
        if present and present[-1] > known[-1][0]:
            raise SchemaTooNew(
                f"the schema is at version {present[-1]}, this Operon knows {known[-1][0]}",
                hint="upgrade this process; the schema was migrated by a newer one",
            )
        return [number async for number in apply(connection, (m for m in known if m[0] not in present))]
    except asyncpg.InsufficientPrivilegeError as error:
        raise DatabaseUnusable(
            f"this database role may not migrate the schema: {error}",
            hint="run `operon migrate` once with a role that may create a schema, or grant it",
        ) from error
    finally:
        await connection.execute("select pg_advisory_unlock($1)", LOCK)


async def apply(connection: Connection, todo: Iterator[tuple[int, str, str]]) -> AsyncGenerator[int]:
    for number, name, text in todo:
        async with connection.transaction():
            await connection.execute("create schema if not exists operon")
            await connection.execute(
                "create table if not exists operon.migrations "
                "(number integer primary key, name text not null, applied_at timestamptz not null default now())"
            )
            await connection.execute(text)
            await connection.execute("insert into operon.migrations (number, name) values ($1, $2)", number, name)
        yield number


async def applied(connection: Connection) -> list[int]:
    if await connection.fetchval("select to_regclass('operon.migrations')") is None:
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
