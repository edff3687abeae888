"""A migrated database, and an empty one, for each test that asks."""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator

import asyncpg
import pytest

from operon.database import testbed
from operon.database.stock import stock_of
from operon.testing import FOLDER, SERVER, with_database


@pytest.fixture
async def server() -> str:
    """The server that test databases are made on, as its superuser."""
    return os.environ.get(SERVER) or await testbed.embedded_server(FOLDER)


@pytest.fixture
async def database(server: str) -> AsyncIterator[str]:
    """A database with the schema."""
    stock = stock_of(server)
    name = await stock.take()
    yield with_database(server, name)
    stock.give_back(name)


@pytest.fixture
async def empty(server: str) -> AsyncIterator[str]:
    """A database without the schema."""
    name = f"operon_test_{secrets.token_hex(6)}"
    connection = await asyncpg.connect(server)
    await connection.execute(f'create database "{name}"')
    yield with_database(server, name)
    await connection.execute(f'drop database "{name}" with (force)')
    await connection.close()
