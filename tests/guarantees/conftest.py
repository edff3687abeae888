"""The databases and the witness of a test file, for tests that kill processes."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from operon.runtime.executor import Executor
from operon.testing import replays
from tests.guarantees.executors.process import private_folder
from tests.guarantees.worker import case


@pytest.fixture
async def server(tmp_path: Path) -> AsyncGenerator[case.Server]:
    """Where cases are made."""
    async with case.server(tmp_path) as server:
        yield server


@pytest.fixture
async def own_server() -> AsyncGenerator[Path]:
    """A folder for a server of this test's own, which it may stop and crash."""
    async with private_folder() as folder:
        yield folder


@pytest.fixture(autouse=True)
def no_replay_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workflows here measure time, are cancelled and crash on purpose: what they promise is asserted by hand."""

    async def nothing(_executor: Executor) -> int:
        return 0

    monkeypatch.setattr(replays, "check_replay", nothing)
