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


async def embedded_server(folder: Path) -> str:
    """A server that stays for the next test run."""
    from operon.database import embedded

    return await embedded.start(folder, production=False)


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
