"""The databases and the witness of a test file, for tests that kill processes."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from tests.guarantees.worker import case


@pytest.fixture
async def server(tmp_path: Path) -> AsyncGenerator[case.Server]:
    """Where cases are made."""
    async with case.server(tmp_path) as server:
        yield server
