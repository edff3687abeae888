"""The commands, called in this process and in processes of their own."""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from operon.database import testbed
from operon.database.embedded import EmbeddedPostgres
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
    await testbed.execute(server, f'create database "{name}"')
    yield with_database(server, name)
    await testbed.drop_database(server, name)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty current folder; a server that is started in it is stopped."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for data in tmp_path.rglob(".operon/postgres"):
        EmbeddedPostgres(data).stop()
