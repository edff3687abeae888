"""The server that the databases of these tests are on."""

from __future__ import annotations

import asyncio
import os

import pytest

from operon.database import testbed
from operon.testing import FOLDER, SERVER


@pytest.fixture(scope="session")
def server() -> str:
    return os.environ.get(SERVER) or asyncio.run(testbed.embedded_server(FOLDER))
