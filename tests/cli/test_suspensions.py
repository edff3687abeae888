"""`operon suspensions`: what is suspended is listed, and lifted by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

import operon
from operon.testing import TestRuntime
from tests.cli.calls import Result, call


@operon.workflow
async def works(ctx: operon.WorkflowContext) -> str:
    return "done"


@pytest.fixture
async def runtime() -> AsyncIterator[TestRuntime]:
    async with TestRuntime(__name__, poll_seconds=0.1) as runtime:
        await runtime.execute("insert into operon.suspensions (name, crashes) values ('works', 14)")
        while not runtime.executor.incarnation.suspensions.holds("works"):
            await runtime.executor.incarnation.look_at_the_clock()
        yield runtime


async def ask(runtime: TestRuntime, *arguments: str) -> Result:
    return await call("suspensions", *arguments, "--database-url", runtime.database_url)


async def test_what_is_suspended_is_listed(runtime: TestRuntime) -> None:
    listed, table = await ask(runtime, "list", "--json"), await ask(runtime, "list")

    assert [(each["name"], each["crashes"], each["until"]) for each in listed.json] == [("works", 14, None)]
    assert table.rows[0][:2] == ["works", "14"]


async def test_what_is_lifted_runs_at_once_and_is_an_event(runtime: TestRuntime) -> None:
    handle = await works(runtime.context)

    lifted = await ask(runtime, "lift", "works")

    assert (lifted.code, lifted.out) == (0, "lifted works\n")
    assert await handle.get_result(timeout=60) == "done"
    assert await runtime.fetchval("select text from operon.supervision_events where kind = 'lifted'") == (
        "works goes on: it was lifted by hand"
    )


async def test_what_is_not_suspended_cannot_be_lifted(runtime: TestRuntime) -> None:
    lifted = await ask(runtime, "lift", "other")

    assert lifted.code == 1
    assert "'other' is not suspended" in lifted.err
