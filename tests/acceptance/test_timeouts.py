"""`ctx.using(timeout=...)`: a workflow, and all that it has started, is cancelled when its time is over."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import pytest

import operon
from operon import CommunicatorContext, EventKey, Status, WorkflowContext, WorkflowHandle
from operon.testing import TestRuntime
from tests.acceptance.facts import parked, set_clock_ahead, waits_for
from tests.acceptance.gates import Gates

HOUR = 3600.0
CHILD = EventKey("child", UUID)

gates = Gates()
cleaned: list[str] = []


@operon.communicator
async def stop_at(ctx: CommunicatorContext, gate: str) -> None:
    await gates[gate].pass_()


@operon.workflow
async def wait(ctx: WorkflowContext) -> Any:
    return await ctx.recv("topic")


@operon.workflow
async def wait_stubbornly(ctx: WorkflowContext, name: str) -> Any:
    """Catches all that a workflow can catch."""
    try:
        return await ctx.recv("topic")
    except Exception:
        return "caught"
    finally:
        cleaned.append(name)


@operon.workflow
async def stop_then_wait(ctx: WorkflowContext, gate: str) -> str:
    await stop_at(ctx, gate)
    await ctx.set_event("after", "never")
    return "done"


@operon.workflow
async def parent(ctx: WorkflowContext, timeout: float | None = None) -> Any:
    child = await wait(ctx.using(timeout=timeout))
    await ctx.set_event(CHILD, child.workflow_uuid)
    return await child.get_result()


@operon.workflow
async def parent_that_catches(ctx: WorkflowContext) -> str:
    child = await wait(ctx.using(timeout=0.05))
    try:
        await child.get_result()
    except operon.WorkflowTimeout as error:
        return type(error).__name__
    return "no timeout"


@pytest.fixture(scope="module")
async def runtime() -> AsyncIterator[TestRuntime]:
    async with TestRuntime(__name__, poll_seconds=0.2) as runtime:
        yield runtime


@pytest.fixture
async def settable() -> AsyncIterator[TestRuntime]:
    """A runtime whose clock a test may set."""
    async with TestRuntime(__name__, poll_seconds=0.1, park_after_seconds=0.05, shutdown_seconds=0.1) as runtime:
        yield runtime


async def cancelled(handle: WorkflowHandle[Any]) -> str:
    """The error of a workflow whose time was over."""
    with pytest.raises(operon.WorkflowTimeout, match=str(handle.workflow_uuid)) as raised:
        await handle.get_result(timeout=60)
    status = await handle.get_status()
    assert status is not None
    assert status.status is Status.CANCELLED
    assert status.waiting_for is None
    return raised.value.message


async def test_a_workflow_is_cancelled_when_its_time_is_over(runtime: TestRuntime) -> None:
    handle = await wait(runtime.context.using(timeout=0.1))

    assert "its timeout had passed" in await cancelled(handle)
    assert "its timeout had passed" in await cancelled(runtime.context.retrieve_workflow(handle.workflow_uuid))


async def test_a_workflow_that_is_quick_enough_notices_nothing(runtime: TestRuntime) -> None:
    handle = await wait(runtime.context.using(timeout=HOUR))

    await runtime.context.send(handle.workflow_uuid, "in time", "topic")

    assert await handle.get_result() == "in time"


async def test_a_workflow_cannot_catch_it_and_cleans_up(runtime: TestRuntime) -> None:
    name = str(uuid4())

    handle = await wait_stubbornly(runtime.context.using(timeout=0.1), name)

    await cancelled(handle)
    assert cleaned == [name]


async def test_a_step_that_is_being_called_ends_and_the_next_is_not_begun(runtime: TestRuntime) -> None:
    gate = str(uuid4())
    handle = await stop_then_wait(runtime.context.using(timeout=0.05), gate)
    await gates[gate].reached.wait()
    with pytest.raises(operon.ResultTimeout):
        await handle.get_result(timeout=0.2)

    gates[gate].open()

    await cancelled(handle)
    assert await runtime.context.get_event(handle.workflow_uuid, "after", timeout=0) is None


async def test_a_message_for_a_cancelled_workflow_is_refused(runtime: TestRuntime) -> None:
    handle = await wait(runtime.context.using(timeout=0.05))
    await cancelled(handle)

    with pytest.raises(operon.WorkflowFinishedError):
        await runtime.context.send(handle.workflow_uuid, "too late", "topic")


async def test_children_inherit_the_time_of_their_parent(runtime: TestRuntime) -> None:
    handle = await parent(runtime.context.using(timeout=0.5))

    child = await runtime.context.get_event(handle.workflow_uuid, CHILD)

    assert child is not None
    await cancelled(handle)
    await cancelled(runtime.context.retrieve_workflow(child))


async def test_a_child_cannot_have_more_time_than_its_parent(runtime: TestRuntime) -> None:
    handle = await parent(runtime.context.using(timeout=0.5), HOUR)

    child = await runtime.context.get_event(handle.workflow_uuid, CHILD)

    assert child is not None
    await cancelled(runtime.context.retrieve_workflow(child))


async def test_a_child_may_have_less_time_and_its_parent_can_catch_that(runtime: TestRuntime) -> None:
    handle = await parent_that_catches(runtime.context)

    assert await handle.get_result(timeout=60) == "WorkflowTimeout"


async def test_a_parked_workflow_is_cancelled_too(settable: TestRuntime) -> None:
    handle = await wait(settable.context.using(timeout=HOUR))
    await parked(settable, handle.workflow_uuid)

    await set_clock_ahead(settable, HOUR + 1)

    await cancelled(handle)


@pytest.mark.parametrize("how", ["crash", "restart"])
async def test_a_workflow_is_cancelled_after_a_restart_too(settable: TestRuntime, how: str) -> None:
    busy = await stop_then_wait(settable.context.using(timeout=HOUR), how)
    idle = await wait(settable.context.using(timeout=HOUR))
    await gates[how].reached.wait()
    await waits_for(idle, "recv topic")

    await (settable.crash() if how == "crash" else settable.restart())
    await set_clock_ahead(settable, HOUR + 1)

    await cancelled(settable.context.retrieve_workflow(idle.workflow_uuid))
    gates[how].open()
    await cancelled(settable.context.retrieve_workflow(busy.workflow_uuid))


async def test_the_time_counts_from_the_start_and_not_from_a_restart(settable: TestRuntime) -> None:
    handle = await wait(settable.context.using(timeout=HOUR))
    await waits_for(handle, "recv topic")

    await set_clock_ahead(settable, HOUR / 2)
    await settable.restart()
    deadline = await settable.fetchval("select deadline - created_at < '61 minutes' from operon.workflows")
    await set_clock_ahead(settable, HOUR + 1)

    assert deadline
    await cancelled(settable.context.retrieve_workflow(handle.workflow_uuid))


async def test_a_second_start_does_not_give_more_time(runtime: TestRuntime) -> None:
    uuid = uuid4()
    first = await wait(runtime.context.using(workflow_uuid=uuid, timeout=0.2))
    second = await wait(runtime.context.using(workflow_uuid=uuid, timeout=HOUR))

    await cancelled(first)
    await cancelled(second)
