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
def own_parking(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who says itself when workflows leave memory is marked, and runs the same whatever the environment says of it.

    So a run with another `OPERON_PARK_AFTER_SECONDS` can leave it out. To be sure of that, something stands there which
    is no number: an executor that asks for it, in this process or in one of its own, does not start.
    """
    if request.node.get_closest_marker("own_parking") is not None:
        monkeypatch.setenv("OPERON_PARK_AFTER_SECONDS", "asked for by a test that is marked own_parking")


@pytest.fixture(autouse=True)
def no_replay_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workflows here measure time, are cancelled and crash on purpose: what they promise is asserted by hand."""

    async def nothing(_executor: Executor) -> int:
        return 0

    monkeypatch.setattr(replays, "check_replay", nothing)
