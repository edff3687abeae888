"""A database for an example that runs in a process of its own."""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from operon.database import testbed
from operon.testing import FOLDER, SERVER, with_database


@pytest.fixture
async def database_url() -> AsyncGenerator[str]:
    async with private_database() as url:
        yield url


@asynccontextmanager
async def private_database() -> AsyncGenerator[str]:
    """The URL of a database that is gone afterwards."""
    server = os.environ.get(SERVER) or await testbed.embedded_server(FOLDER)
    name = f"operon_test_{secrets.token_hex(6)}"
    await testbed.create_database(server, name)
    try:
        yield with_database(server, name)
    finally:
        await testbed.drop_database(server, name)
