"""Databases for tests: made from a template that is already migrated, because copying is faster than migrating."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

from operon.database.connection import Connection, connect
from operon.database.migrate import LOCK, migrate, migrations
from operon.errors import ConfigurationError

NAME = re.compile(r"^operon_test_[0-9a-z_]{1,40}$")


# Moves stay in the table: what ended before one of them is judged by the time that it was then.
MOVABLE_CLOCK = """
create table operon.test_clock (moved_at timestamptz primary key default clock_timestamp(), ahead interval not null);
insert into operon.test_clock (ahead) values ('0');
create or replace function operon.clock() returns timestamptz language sql volatile as
'select clock_timestamp() + (select ahead from operon.test_clock order by moved_at desc limit 1)';
"""


async def embedded_server(folder: Path) -> str:
    """A server that stays for the next test run."""
    from operon.database import embedded

    return await embedded.start(folder, production=False)


async def move_clock(connection: Connection, seconds: float) -> None:
    """Puts the clock of a private database forward, for good; `operon.clock()` is all that the runtime asks."""
    if not await has_movable_clock(connection):
        await connection.execute(MOVABLE_CLOCK)
    await connection.execute(
        "insert into operon.test_clock (ahead) select ahead + make_interval(secs => $1) from operon.test_clock "
        "order by moved_at desc limit 1",
        seconds,
    )


async def moves(connection: Connection) -> list[tuple[float, float]]:
    """When the clock of a private database was moved, and how many seconds it has been ahead from then on."""
    if not await has_movable_clock(connection):
        return []
    rows = await connection.fetch(
        "select extract(epoch from moved_at)::float8, extract(epoch from ahead)::float8 from operon.test_clock "
        "order by moved_at"
    )
    return [(row[0], row[1]) for row in rows]


async def has_movable_clock(connection: Connection) -> bool:
    """Whether the clock of a private database was ever moved."""
    return await connection.fetchval("select to_regclass('operon.test_clock')") is not None


async def create_database(server: str, name: str, template: str | None = None) -> None:
    """A new database, migrated. Only names that begin with `operon_test_` are made, and so removed."""
    check(name)
    connection = await connect(server)
    try:
        source = template or await migrated_template(connection, server)
        await connection.execute(f'create database "{name}" template "{check(source)}"')
    finally:
        await connection.close()


async def drop_database(server: str, name: str) -> None:
    """Removes a database that `create_database` made."""
    connection = await connect(server)
    try:
        await connection.execute(f'drop database if exists "{check(name)}" with (force)')
    finally:
        await connection.close()


async def migrated_template(connection: Connection, server: str) -> str:
    """The template of this schema version, made once for each server."""
    text = "".join(sql for _, _, sql in migrations())
    name = f"operon_test_template_{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    await connection.execute("select pg_advisory_lock($1)", LOCK)
    try:
        if await connection.fetchval("select 1 from pg_database where datname = $1", name) is None:
            unfinished = f"{name}_new"
            await connection.execute(f'drop database if exists "{check(unfinished)}" with (force)')
            await connection.execute(f'create database "{unfinished}"')
            fresh = await connect(server, database=unfinished)
            try:
                await migrate(fresh)
            finally:
                await fresh.close()
            await connection.execute(f'alter database "{unfinished}" rename to "{name}"')
    finally:
        await connection.execute("select pg_advisory_unlock($1)", LOCK)
    return name


async def execute(url: str, statement: str, *args: Any) -> str:
    """One statement on a connection of its own."""
    connection = await connect(url)
    try:
        return await connection.execute(statement, *args)
    finally:
        await connection.close()


async def fetch(url: str, statement: str, *args: Any) -> list[Any]:
    """One query on a connection of its own."""
    connection = await connect(url)
    try:
        return await connection.fetch(statement, *args)
    finally:
        await connection.close()


def check(name: str) -> str:
    """Database names cannot be parameters, so they are checked: only names of our own making pass."""
    if not NAME.match(name):
        raise ConfigurationError(f"{name!r} is no name of a test database")
    return name
