"""A database for an example that runs in a process of its own."""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncGenerator

import pytest

from operon.database import testbed
from operon.testing import FOLDER, SERVER, with_database


@pytest.fixture
async def database_url() -> AsyncGenerator[str]:
    server = os.environ.get(SERVER) or await testbed.embedded_server(FOLDER)
    name = f"operon_test_{secrets.token_hex(6)}"
    await testbed.create_database(server, name)
    yield with_database(server, name)
    await testbed.drop_database(server, name)
