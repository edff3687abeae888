"""What becomes of the children that a workflow leaves behind: they go on, are cancelled, or are waited for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Literal
from uuid import UUID

import pytest

import operon
from operon import InvocationError, Status, WorkflowContext, WorkflowHandle
from operon.testing import TestRuntime
from tests.acceptance.facts import checkpoints, waits_for

WORD = operon.Topic("word", str)
CHILD = operon.EventKey("child", UUID)
Close = Literal["abandon", "cancel", "wait"]
EVERYBODY = "select name, status, count(*) from operon.workflows group by 1, 2 order by 1, 2"
died: set[UUID] = set()  # who has died once


class Broken(Exception):
    """What a parent ends with."""


@operon.workflow
async def listener(ctx: WorkflowContext) -> str:
    return await ctx.recv(WORD, required=True)


@operon.workflow
async def broken(ctx: WorkflowContext) -> None:
    raise Broken("child")


@operon.workflow
async def parent(ctx: WorkflowContext, close: Close, how: str = "returns", hears: bool = False) -> UUID:
    child = await listener(ctx.using(parent_close=close))
    await ctx.set_event(CHILD, child.workflow_uuid)
    if how == "dies" and ctx.workflow_uuid not in died:
        died.add(ctx.workflow_uuid)
        raise MemoryError
    if hears:
        await child.get_result()
    if how == "raises":
        raise Broken("parent")
    return child.workflow_uuid


@operon.workflow
async def grandparent(ctx: WorkflowContext) -> UUID:
    child = await parent(ctx.using(parent_close="cancel"), "abandon")
    return await child.get_result()


@operon.workflow
async def parent_of_many(ctx: WorkflowContext, token: str) -> list[str]:
    """Of each kind, one that it has heard of and one that it leaves."""
    children = await asyncio.gather(
        listener(ctx.using(parent_close="cancel")),
        listener(ctx.using(parent_close="wait")),
        listener(ctx.using(parent_close="cancel")),
        broken(ctx.using(parent_close="wait")),
    )
    for child in children[:3]:
        if child is not children[0]:
            await ctx.send(child.workflow_uuid, token, WORD)
    return [await children[2].get_result(), str(children[0].workflow_uuid)]


@pytest.fixture(params=[False, True], ids=["live", "parked"])
async def runtime(request: pytest.FixtureRequest) -> AsyncIterator[TestRuntime]:
    async with TestRuntime(__name__, evict_always=request.param, poll_seconds=0.2, crash_budget=0) as runtime:
        yield runtime


async def child_of(runtime: TestRuntime, handle: WorkflowHandle[Any]) -> WorkflowHandle[str]:
    uuid = await runtime.context.get_event(handle.workflow_uuid, CHILD, timeout=60)
    assert uuid is not None
    return runtime.context.retrieve_workflow(uuid)


async def ended(handle: WorkflowHandle[Any]) -> Any:
    """What a workflow has returned or raised."""
    outcomes: tuple[Any, ...] = await asyncio.gather(handle.get_result(timeout=60), return_exceptions=True)
    return outcomes[0]


async def state(handle: WorkflowHandle[Any]) -> Status | None:
    status = await handle.get_status()
    return None if status is None else status.status


@pytest.mark.parametrize("how", ["returns", "raises"])
async def test_an_abandoned_child_goes_on(runtime: TestRuntime, how: str) -> None:
    handle = await parent(runtime.context, "abandon", how)
    child = await child_of(runtime, handle)
    await ended(handle)

    await runtime.context.send(child.workflow_uuid, "still here", WORD)

    assert await child.get_result(timeout=60) == "still here"


@pytest.mark.parametrize("how", ["returns", "raises", "dies"])
async def test_a_child_is_cancelled_before_its_parent_has_ended(runtime: TestRuntime, how: str) -> None:
    runtime.checks_replay = how != "dies"
    handle = await parent(runtime.context, "cancel", how)
    outcome = await ended(handle)

    child = await child_of(runtime, handle)

    assert isinstance(outcome, UUID) is (how == "returns")
    assert await state(child) is Status.CANCELLED
    assert await state(handle) is {"returns": Status.SUCCESS, "raises": Status.ERROR, "dies": Status.DEAD}[how]


async def test_a_dead_parent_that_is_resumed_has_its_child_again(runtime: TestRuntime) -> None:
    runtime.checks_replay = False
    handle = await parent(runtime.context, "cancel", "dies", hears=True)
    child = await child_of(runtime, handle)
    await ended(handle)
    assert await state(child) is Status.CANCELLED

    await handle.resume()

    await runtime.context.send(child.workflow_uuid, "again", WORD)
    assert await child.get_result(timeout=60) == "again"
    assert await ended(handle) == child.workflow_uuid


@pytest.mark.parametrize("how", ["returns", "raises"])
async def test_a_parent_waits_for_a_child_before_it_ends(runtime: TestRuntime, how: str) -> None:
    handle = await parent(runtime.context, "wait", how)
    child = await child_of(runtime, handle)
    await waits_for(handle, f"the result of {child.workflow_uuid}")

    await runtime.context.send(child.workflow_uuid, "go", WORD)

    outcome = await ended(handle)
    assert isinstance(outcome, UUID if how == "returns" else Broken)
    assert await state(child) is Status.SUCCESS


async def test_the_time_of_a_parent_that_waits_ends_both(runtime: TestRuntime) -> None:
    handle = await parent(runtime.context.using(timeout=1.0), "wait")
    child = await child_of(runtime, handle)

    with pytest.raises(operon.WorkflowTimeout):
        await handle.get_result(timeout=60)

    with pytest.raises(operon.WorkflowTimeout):
        await child.get_result(timeout=60)


async def test_who_is_cancelled_takes_its_children_along_whatever_was_said(runtime: TestRuntime) -> None:
    handle = await parent(runtime.context, "abandon", hears=True)
    child = await child_of(runtime, handle)

    await handle.cancel()

    assert await state(child) is Status.CANCELLED


@pytest.mark.parametrize("close", ["cancel", "wait"])
async def test_a_child_that_was_heard_of_costs_no_step(runtime: TestRuntime, close: Close) -> None:
    handle = await parent(runtime.context, close, hears=True)
    child = await child_of(runtime, handle)
    await runtime.context.send(child.workflow_uuid, "heard", WORD)

    await handle.get_result(timeout=60)

    kinds = [kind for kind, _, _ in await checkpoints(runtime, handle.workflow_uuid)]
    assert kinds == ["child", "set_event", "result"]


async def test_what_is_cancelled_with_its_parent_cancels_its_own(runtime: TestRuntime) -> None:
    handle = await grandparent(runtime.context)

    grandchild = runtime.context.retrieve_workflow(await handle.get_result(timeout=60))

    assert await state(grandchild) is Status.PENDING  # its own parent had ended, and had abandoned it
    await grandchild.cancel()


async def test_children_are_closed_once_wherever_their_parent_crashes() -> None:
    async with TestRuntime(__name__) as runtime:
        async for _crash in runtime.crash_everywhere():
            handle = await parent_of_many(runtime.context, "t")

            told, left = await handle.get_result(timeout=60)

            assert told == "t"
            assert await state(handle) is Status.SUCCESS
            rows = await runtime.fetch(EVERYBODY)
            assert [tuple(row) for row in rows] == [
                ("broken", 2, 1),
                ("listener", 1, 2),
                ("listener", 3, 1),
                ("parent_of_many", 1, 1),
            ]
            assert await state(runtime.context.retrieve_workflow(left)) is Status.CANCELLED


def test_a_word_that_is_none_is_refused() -> None:
    ctx = WorkflowContext.__new__(WorkflowContext)

    with pytest.raises(InvocationError, match="parent_close='forget'"):
        ctx.using(parent_close="forget")  # type: ignore[arg-type]
