"""Promise: a workflow is cancelled when its time is over, also one that nobody lets run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

import operon
from operon import Status, WorkflowTimeout
from operon.runtime import overdue
from operon.testing import TestRuntime

NOBODYS = """
insert into operon.workflows (workflow_uuid, name, version, inputs, deadline)
values ($1, 'nobody has this', '', '{}', operon.clock())
"""


class Ward:
    called = asyncio.Event()
    may_leave = asyncio.Event()


@operon.communicator(retry=None)
async def stay(ctx: operon.CommunicatorContext) -> None:
    Ward.called.set()
    await Ward.may_leave.wait()


@operon.workflow(max_live=1)
async def visit(ctx: operon.WorkflowContext) -> str:
    await stay(ctx)
    return "seen"


@pytest.fixture
async def runtime(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[TestRuntime]:
    monkeypatch.setattr(overdue, "GRACE_SECONDS", 0.3)
    monkeypatch.setattr(Ward, "called", asyncio.Event())
    monkeypatch.setattr(Ward, "may_leave", asyncio.Event())
    async with TestRuntime(__name__, poll_seconds=0.1) as runtime:
        yield runtime
        Ward.may_leave.set()


async def test_who_waits_for_room_under_its_name_is_cancelled_when_its_time_is_over(runtime: TestRuntime) -> None:
    first = await visit(runtime.context)
    second = await visit(runtime.context.using(timeout=0.2))

    async with asyncio.timeout(20):
        with pytest.raises(WorkflowTimeout, match="its timeout had passed"):
            await second.get_result()

    Ward.may_leave.set()
    assert await first.get_result() == "seen"


async def test_a_workflow_whose_code_nobody_has_is_cancelled_when_its_time_is_over(runtime: TestRuntime) -> None:
    handle = runtime.context.retrieve_workflow(uuid4())
    await runtime.execute(NOBODYS, handle.workflow_uuid)

    async with asyncio.timeout(20):
        with pytest.raises(WorkflowTimeout, match="'nobody has this'"):
            await handle.get_result()

    status = await handle.get_status()
    assert status is not None
    assert status.status is Status.CANCELLED


async def test_whoever_lives_is_left_to_its_own_timer(runtime: TestRuntime) -> None:
    """Who is inside of a communicator is told when that has answered, and its answer is recorded."""
    handle = await visit(runtime.context)
    await Ward.called.wait()
    await runtime.execute("update operon.workflows set deadline = operon.clock()")
    later = runtime.context.retrieve_workflow(uuid4())
    await runtime.execute(NOBODYS, later.workflow_uuid)

    with pytest.raises(WorkflowTimeout):
        await later.get_result()

    Ward.may_leave.set()
    assert await handle.get_result() == "seen"
