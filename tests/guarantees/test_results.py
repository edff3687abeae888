"""A waiting handle is woken by the completion itself, in any process, never by a poll."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import pytest

import operon
from operon import CommunicatorContext, Operon, WorkflowContext
from operon.testing import TestRuntime

# Long enough that nothing in these tests could be found by polling.
NEVER = 3600.0

gates: dict[str, asyncio.Event] = {}


@operon.communicator
async def wait_at(ctx: CommunicatorContext, gate: str) -> str:
    await gates[gate].wait()
    return gate


@operon.workflow
async def gated(ctx: WorkflowContext, gate: str) -> str:
    return await wait_at(ctx, gate)


@operon.workflow
async def failing(ctx: WorkflowContext, gate: str) -> str:
    await wait_at(ctx, gate)
    raise ValueError("as ordered")


@pytest.fixture
async def runtime() -> AsyncIterator[TestRuntime]:
    async with TestRuntime(__name__, poll_seconds=NEVER) as runtime:
        yield runtime


@pytest.fixture
async def other(runtime: TestRuntime) -> AsyncIterator[Operon]:
    """A second executor on the same database."""
    async with Operon(__name__, database_url=runtime.database_url, poll_seconds=NEVER) as app:
        yield app


def new_gate() -> str:
    name = str(uuid4())
    gates[name] = asyncio.Event()
    return name


async def awaited_elsewhere(app: Operon, workflow_uuid: UUID) -> None:
    """Returns when the owner knows that another executor waits."""
    incarnation = app.executor.incarnation
    while not incarnation.listeners.get(workflow_uuid):  # noqa: ASYNC110 - set by a notification; nothing else to wait for
        await asyncio.sleep(0)


async def test_a_handle_in_another_executor_is_woken_by_the_completion(runtime: TestRuntime, other: Operon) -> None:
    gate = new_gate()
    handle = await gated(runtime.context, gate)

    there = asyncio.create_task(other.context().retrieve_workflow(handle.workflow_uuid).get_result())
    async with asyncio.timeout(60):
        await awaited_elsewhere(runtime.app, handle.workflow_uuid)
        gates[gate].set()
        result = await there

    assert result == gate
    assert await handle.get_result() == gate


async def test_many_waiters_elsewhere_are_all_woken(runtime: TestRuntime, other: Operon) -> None:
    gate = new_gate()
    handle = await gated(runtime.context, gate)

    retrieved = other.context().retrieve_workflow(handle.workflow_uuid)
    waiters = [asyncio.create_task(retrieved.get_result()) for _ in range(50)]
    async with asyncio.timeout(60):
        await awaited_elsewhere(runtime.app, handle.workflow_uuid)
        gates[gate].set()
        results = await asyncio.gather(*waiters)

    assert results == [gate] * 50


async def test_an_error_wakes_its_waiters_too_and_keeps_its_class(runtime: TestRuntime, other: Operon) -> None:
    gate = new_gate()
    handle = await failing(runtime.context, gate)

    there = asyncio.create_task(other.context().retrieve_workflow(handle.workflow_uuid).get_result())
    async with asyncio.timeout(60):
        await awaited_elsewhere(runtime.app, handle.workflow_uuid)
        gates[gate].set()
        with pytest.raises(ValueError, match="as ordered"):
            await there


async def test_a_waiter_survives_the_loss_of_every_notification(runtime: TestRuntime) -> None:
    gate = new_gate()
    handle = await gated(runtime.context, gate)
    async with Operon(__name__, database_url=runtime.database_url, poll_seconds=0.1) as other:
        there = asyncio.create_task(other.context().retrieve_workflow(handle.workflow_uuid).get_result())
        async with asyncio.timeout(60):
            await awaited_elsewhere(runtime.app, handle.workflow_uuid)
            runtime.app.executor.incarnation.listeners.clear()  # the owner forgets that it was asked
            gates[gate].set()

            assert await there == gate


async def test_a_result_that_is_late_is_a_typed_error_and_the_workflow_goes_on(runtime: TestRuntime) -> None:
    gate = new_gate()
    handle = await gated(runtime.context, gate)

    with pytest.raises(operon.ResultTimeout):
        await handle.get_result(timeout=0.01)
    gates[gate].set()

    assert await handle.get_result(timeout=60) == gate


async def test_a_waiter_that_goes_away_leaves_nothing_behind(runtime: TestRuntime, other: Operon) -> None:
    gate = new_gate()
    handle = await gated(runtime.context, gate)
    actor = runtime.app.executor.incarnation.live[handle.workflow_uuid]
    here = asyncio.create_task(handle.get_result())
    there = asyncio.create_task(other.context().retrieve_workflow(handle.workflow_uuid).get_result())
    async with asyncio.timeout(60):
        await awaited_elsewhere(runtime.app, handle.workflow_uuid)

    for task in (here, there):
        task.cancel()
    await asyncio.gather(here, there, return_exceptions=True)

    assert actor.waiting == 0
    assert other.executor.results.awaited == 0
    gates[gate].set()
    assert await handle.get_result() == gate


async def test_the_status_never_contradicts_a_result_that_was_told(runtime: TestRuntime) -> None:
    gate = new_gate()
    gates[gate].set()

    for _ in range(100):
        handle = await gated(runtime.context, gate)
        await handle.get_result()
        status = await handle.get_status()

        assert status is not None
        assert status.status is operon.Status.SUCCESS
