"""An application that was there before: it goes on as it was, and what is new works, whichever of the two is served."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from examples import existing
from operon.testing import TestRuntime
from tests.examples.served import Answer, started


@pytest.fixture
async def runtime() -> AsyncGenerator[TestRuntime]:
    async with TestRuntime(existing.app) as runtime:
        yield runtime


async def test_an_old_route_starts_a_workflow(runtime: TestRuntime) -> None:
    answer = await runtime.client.post("/sign-ups/Ada")

    assert await answer.get_data(as_text=True) == "Signed up: Hello, Ada!"
    assert await runtime.fetchval("select name from operon.workflows") == "greet"


@pytest.mark.parametrize("served", ["app", "quart"])
async def test_hypercorn_serves_old_and_new(served: str, database_url: str, tmp_path: Path) -> None:
    hypercorn = (sys.executable, "-m", "hypercorn", f"examples.existing:{served}", "--bind", "127.0.0.1:0")
    async with started(hypercorn, tmp_path, {"OPERON_DATABASE_URL": database_url}) as server:
        old, missing = await server.get("/"), await server.get("/nowhere")
        new = await server.get("/greeting/Ada")
        signed_up = await server.post("/sign-ups/Ada", None)
        code = await server.stop()

    assert old == Answer(200, "The old front page.")
    assert missing == Answer(404, "The old page for what is not there.")
    assert new == Answer(200, "Hello, Ada!")
    assert signed_up == Answer(200, "Signed up: Hello, Ada!")
    assert code == 0
