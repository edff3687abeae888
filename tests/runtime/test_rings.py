"""A ring that comes at an awkward moment is heard: nobody polls here, so who misses one waits for ever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest

import operon
from operon.database import notifications, workflows
from operon.runtime.waits import WaitKind
from operon.testing import TestRuntime
from tests.acceptance.facts import until

NEVER = 3600.0
SECONDS = 30.0
SETTINGS: dict[str, Any] = {"poll_seconds": NEVER, "park_after_seconds": NEVER}


@operon.workflow
async def listens(ctx: operon.WorkflowContext) -> str:
    return str(await ctx.recv("news"))


@operon.workflow
async def tells(ctx: operon.WorkflowContext) -> None:
    await ctx.recv("now")
    await ctx.set_event("told", "everything")
    await ctx.recv("end")


@pytest.fixture
async def runtime() -> AsyncIterator[TestRuntime]:
    async with TestRuntime(__name__, **SETTINGS) as runtime:
        yield runtime


def waits(runtime: TestRuntime, workflow_uuid: UUID, kind: WaitKind) -> bool:
    actor = runtime.executor.incarnation.live[workflow_uuid]
    return actor.waits is not None and kind in actor.waits.kinds


async def test_a_message_that_comes_while_its_mailbox_is_looked_into_is_received(
    runtime: TestRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = await listens(runtime.context)
    await until(lambda: waits(runtime, handle.workflow_uuid, WaitKind.MESSAGE))
    real, looks = notifications.oldest, 0

    async def look_too_early(*args: Any) -> Any:
        nonlocal looks
        looks += 1
        found = await real(*args)
        if looks == 1:
            await runtime.context.send(handle.workflow_uuid, "hello", "news")
        return found

    monkeypatch.setattr(notifications, "oldest", look_too_early)
    runtime.executor.incarnation.activator.wake(handle.workflow_uuid)  # for nothing

    async with asyncio.timeout(SECONDS):
        assert await handle.get_result() == "hello"
    assert looks == 2


async def test_an_event_that_is_set_after_the_look_and_before_anybody_asked_to_be_told_is_heard_of(
    runtime: TestRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = await tells(runtime.context)
    await until(lambda: waits(runtime, handle.workflow_uuid, WaitKind.MESSAGE))
    real, asked = workflows.ring, 0

    async def ask_too_late(connection: Any, channel: str, bell: str) -> None:
        nonlocal asked
        if bell.startswith("tell:"):
            asked += 1
            await runtime.context.send(handle.workflow_uuid, None, "now")
            assert await runtime.context.get_event(handle.workflow_uuid, "told") == "everything"
        await real(connection, channel, bell)

    monkeypatch.setattr(workflows, "ring", ask_too_late)
    async with (
        operon.Operon(__name__, database_url=runtime.database_url, **SETTINGS) as other,
        asyncio.timeout(SECONDS),
    ):
        assert await other.context().get_event(handle.workflow_uuid, "told") == "everything"

    assert asked == 1
    await runtime.context.send(handle.workflow_uuid, None, "end")
    await handle.get_result()
