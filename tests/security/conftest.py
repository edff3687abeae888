"""A database of one's own, and a role for it whose password is known."""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

import pytest

from operon.database import testbed
from operon.testing import FOLDER, SERVER, with_database


@dataclass(frozen=True, slots=True)
class Database:
    """A migrated database: as its superuser, and as a role that owns nothing, and may log in with a password."""

    url: str
    role: str
    password: str

    @property
    def owner(self) -> str:
        """The superuser's name."""
        return urlsplit(self.url).username or "operon"

    @property
    def as_role(self) -> str:
        """The URL of the same database for the role."""
        return urlunsplit(urlsplit(self.url)._replace(netloc=f"{self.role}:{self.password}@"))


@pytest.fixture
async def database() -> AsyncIterator[Database]:
    server = os.environ.get(SERVER) or await testbed.embedded_server(FOLDER)
    suffix = secrets.token_hex(6)
    name = f"operon_test_{suffix}"
    await testbed.create_database(server, name)
    database = Database(with_database(server, name), f"operon_test_role_{suffix}", f"canary-dsn-{secrets.token_hex(8)}")
    await testbed.execute(server, f"create role {database.role} login password '{database.password}'")
    yield database
    await testbed.execute(database.url, f"drop owned by {database.role} cascade")
    await testbed.drop_database(server, name)
    await testbed.execute(server, f"drop role {database.role}")
