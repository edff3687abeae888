"""A database for an example that runs in a process of its own."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from operon.database import testbed
from operon.database.stock import stock_of
from operon.testing import FOLDER, SERVER, with_database


@pytest.fixture
async def database_url() -> AsyncGenerator[str]:
    async with private_database() as url:
        yield url


@asynccontextmanager
async def private_database() -> AsyncGenerator[str]:
    """The URL of a database that is gone afterwards."""
    server = os.environ.get(SERVER) or await testbed.embedded_server(FOLDER)
    stock = stock_of(server)
    name = await stock.take()
    try:
        yield with_database(server, name)
    finally:
        stock.give_back(name)
