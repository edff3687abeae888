"""Promise: once `cancel` has returned, nothing of the workflow commits any more; `resume` takes up what is recorded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import pytest

import operon
from operon import Operon, Status
from operon.testing import TestRuntime

STATUS = operon.EventKey("status", str)
GO = operon.Topic("go", int)


class Marks:
    """What the communicators of a test tell it."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.leave = asyncio.Event()
        self.interrupted = False
        self.calls = 0


MARKS = Marks()


@pytest.fixture(autouse=True)
def marks(anyio_backend: str) -> None:
    MARKS.__init__()  # type: ignore[misc]


@operon.communicator(retry=None)
async def stubborn(ctx: operon.CommunicatorContext) -> str:
    MARKS.calls += 1
    MARKS.entered.set()
    await MARKS.leave.wait()
    return "called"


@operon.communicator(retry=None, cancellable=True)
async def polite(ctx: operon.CommunicatorContext) -> str:
    MARKS.entered.set()
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        MARKS.interrupted = True
        raise
    return "called"


@operon.communicator(retry=operon.Retry(max_attempts=2, interval_seconds=3600))
async def failing(ctx: operon.CommunicatorContext) -> None:
    MARKS.entered.set()
    raise ValueError("always")


@operon.transaction
async def note(tx: operon.TransactionContext, what: str) -> None:
    await tx.client.execute("insert into noted values ($1)", what)


@operon.workflow
async def waits(ctx: operon.WorkflowContext) -> int | None:
    await note(ctx, "before")
    await ctx.set_event(STATUS, "waiting")
    got = await ctx.recv(GO)
    await note(ctx, "after")
    return got


@operon.workflow
async def calls(ctx: operon.WorkflowContext) -> str:
    answer = await stubborn(ctx)
    await note(ctx, "after")
    return answer


@operon.workflow
async def calls_politely(ctx: operon.WorkflowContext) -> str:
    return await polite(ctx)


@operon.workflow
async def fails_for_long(ctx: operon.WorkflowContext) -> None:
    await failing(ctx)


@operon.workflow
async def parent(ctx: operon.WorkflowContext) -> int | None:
    child = await waits(ctx)
    await ctx.set_event(STATUS, str(child.workflow_uuid))
    return await child.get_result()


@operon.workflow
async def busy(ctx: operon.WorkflowContext) -> None:
    await ctx.set_event(STATUS, "busy")
    while True:
        await note(ctx, "busy")
        await ctx.execute("insert into noted values ('execute')")


@operon.workflow
async def canceller(ctx: operon.WorkflowContext, other: UUID) -> list[bool]:
    handle = ctx.retrieve_workflow(other)
    return [await handle.cancel(), await handle.cancel(), await handle.resume(), await handle.cancel()]


@operon.initializer
async def tables(ctx: operon.InitializerContext) -> None:
    await ctx.client.execute("create table if not exists noted (what text)")


@pytest.fixture(params=[5.0, 0.0], ids=["live", "parked"])
async def runtime(request: Any, anyio_backend: str) -> AsyncIterator[TestRuntime]:
    async with TestRuntime(__name__, park_after_seconds=request.param, poll_seconds=0.3) as runtime:
        yield runtime


async def settled(runtime: TestRuntime, uuid: UUID) -> None:
    """Waits until a workflow waits, in memory or out of it."""
    async with asyncio.timeout(60):
        while True:
            status = await runtime.context.retrieve_workflow(uuid).get_status()
            if status is not None and status.waiting_for:
                return


async def test_a_workflow_that_waits_is_cancelled_at_once(runtime: TestRuntime) -> None:
    handle = await waits(runtime.context)
    await settled(runtime, handle.workflow_uuid)

    cancelled = await handle.cancel()

    assert cancelled
    with pytest.raises(operon.WorkflowCancelledError):
        await handle.get_result()
    status = await handle.get_status()
    assert status is not None
    assert status.status is Status.CANCELLED
    with pytest.raises(operon.WorkflowFinishedError):
        await runtime.context.send(handle.workflow_uuid, 1, GO)
    assert await runtime.fetchval("select count(*) from noted") == 1
    assert not await handle.cancel()


async def test_a_cancelled_workflow_goes_on_where_it_was(runtime: TestRuntime) -> None:
    handle = await waits(runtime.context)
    await settled(runtime, handle.workflow_uuid)
    await handle.cancel()

    resumed = await handle.resume()
    await runtime.context.send(handle.workflow_uuid, 7, GO)

    assert resumed
    assert await handle.get_result() == 7
    assert [row[0] for row in await runtime.fetch("select what from noted")] == ["before", "after"]
    assert not await handle.resume()


async def test_a_call_ends_first_and_nothing_comes_after_it(runtime: TestRuntime) -> None:
    handle = await calls(runtime.context)
    await MARKS.entered.wait()

    await handle.cancel()
    MARKS.leave.set()

    with pytest.raises(operon.WorkflowCancelledError):
        await handle.get_result()
    assert await runtime.fetchval("select count(*) from operon.checkpoints") == 0
    await handle.resume()
    assert await handle.get_result() == "called"
    assert MARKS.calls == 2


async def test_a_call_that_may_be_interrupted_is(runtime: TestRuntime) -> None:
    handle = await calls_politely(runtime.context)
    await MARKS.entered.wait()

    await handle.cancel()

    with pytest.raises(operon.WorkflowCancelledError):
        await handle.get_result()
    async with asyncio.timeout(60):
        while not MARKS.interrupted:  # noqa: ASYNC110 - the task ends in its own time
            await asyncio.sleep(0)


async def test_a_pause_between_attempts_ends(runtime: TestRuntime) -> None:
    handle = await fails_for_long(runtime.context)
    await MARKS.entered.wait()

    await handle.cancel()

    with pytest.raises(operon.WorkflowCancelledError):
        await handle.get_result()
    async with asyncio.timeout(60):
        while runtime.executor.incarnation.live:  # noqa: ASYNC110 - the actor leaves in its own time
            await asyncio.sleep(0)


async def test_children_are_cancelled_and_resumed_with_their_parent(runtime: TestRuntime) -> None:
    handle = await parent(runtime.context)
    child = UUID(str(await runtime.context.get_event(handle.workflow_uuid, STATUS)))
    await settled(runtime, child)
    await settled(runtime, handle.workflow_uuid)

    await handle.cancel()
    child_handle = runtime.context.retrieve_workflow(child)
    status = await child_handle.get_status()
    await handle.resume()
    await runtime.context.send(child, 3, GO)

    assert status is not None
    assert status.status is Status.CANCELLED
    assert await handle.get_result() == 3


async def test_nothing_commits_after_the_cancel_has_returned(runtime: TestRuntime) -> None:
    for _ in range(30):
        handle = await busy(runtime.context)
        assert await runtime.context.get_event(handle.workflow_uuid, STATUS) == "busy"

        await handle.cancel()

        of_it = "select count(*) from operon.checkpoints where workflow_uuid = $1"
        written = "select count(*) from noted where what in ('busy', 'execute')"
        before = await runtime.fetchval(of_it, handle.workflow_uuid), await runtime.fetchval(written)
        with pytest.raises(operon.WorkflowCancelledError):
            await handle.get_result()
        other = await waits(runtime.context)  # a flush and a transaction of somebody else go through
        await settled(runtime, other.workflow_uuid)
        after = await runtime.fetchval(of_it, handle.workflow_uuid), await runtime.fetchval(written)
        assert after == before


async def test_another_executor_can_cancel(runtime: TestRuntime) -> None:
    handle = await waits(runtime.context)
    await settled(runtime, handle.workflow_uuid)
    async with Operon(__name__, database_url=runtime.database_url, poll_seconds=60.0) as other:
        waiting = asyncio.create_task(other.context().retrieve_workflow(handle.workflow_uuid).get_result())

        assert await other.context().retrieve_workflow(handle.workflow_uuid).cancel()

        with pytest.raises(operon.WorkflowCancelledError):
            await asyncio.wait_for(waiting, 60)
    with pytest.raises(operon.WorkflowCancelledError):
        await handle.get_result()


async def test_a_workflow_can_cancel_another_and_remembers_what_came_of_it(runtime: TestRuntime) -> None:
    victim = await waits(runtime.context)

    handle = await canceller(runtime.context, victim.workflow_uuid)

    assert await handle.get_result() == [True, False, True, True]
    with pytest.raises(operon.WorkflowCancelledError):
        await victim.get_result()


async def test_an_unknown_workflow_cannot_be_cancelled(runtime: TestRuntime) -> None:
    handle = runtime.context.retrieve_workflow(uuid4())

    with pytest.raises(operon.NonExistentWorkflowError):
        await handle.cancel()
    with pytest.raises(operon.NonExistentWorkflowError):
        await handle.resume()


async def test_a_workflow_that_is_cancelled_and_resumed_again_and_again_goes_on_each_time(runtime: TestRuntime) -> None:
    handle = await waits(runtime.context)
    await settled(runtime, handle.workflow_uuid)

    for _ in range(10):
        assert await handle.cancel()
        assert await handle.resume()
        await settled(runtime, handle.workflow_uuid)
    await runtime.context.send(handle.workflow_uuid, 7, GO)

    async with asyncio.timeout(60):
        assert await handle.get_result() == 7
    assert [row[0] for row in await runtime.fetch("select what from noted")] == ["before", "after"]


async def test_a_cancel_that_nobody_was_told_of_is_found_by_the_next_look(anyio_backend: str) -> None:
    async with TestRuntime(__name__, notify="off", poll_seconds=0.3, park_after_seconds=600.0) as runtime:
        handle = await waits(runtime.context)
        await settled(runtime, handle.workflow_uuid)

        async with Operon(__name__, database_url=runtime.database_url, poll_seconds=60.0) as other:
            assert await other.context().retrieve_workflow(handle.workflow_uuid).cancel()

        with pytest.raises(operon.WorkflowCancelledError):
            await handle.get_result(timeout=60)
