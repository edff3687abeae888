"""What every test shares: asyncio as the event loop's backend, and a server that outlives the run."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"
