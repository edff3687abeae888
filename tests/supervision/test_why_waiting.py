"""Why is it not running: it waits, and `GET /operon/supervisor?uuid=` says for what, and what becomes of that."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import UUID

import pytest

import operon
from operon import EventKey, Topic
from operon.runtime.events import Kind
from operon.testing import TestRuntime
from tests.supervision.facts import get, until_event, until_why
from tests.supervision.stage import STAGE, Stage, label

STATUS = EventKey("status", str)
JOBS = Topic("jobs", str, on_poison="skip", max_deliveries=1)


@operon.workflow
async def receives(ctx: operon.WorkflowContext) -> None:
    await ctx.recv("payment", 3600)


@operon.workflow
async def chews(ctx: operon.WorkflowContext) -> None:
    while (job := await ctx.recv(JOBS, 3600)) is not None:
        if job == "poison":
            raise MemoryError("no more")


@operon.workflow
async def watches(ctx: operon.WorkflowContext) -> None:
    """Waits for an event of the workflow that it is told of."""
    target = await ctx.recv(Topic("target", UUID), required=True)
    await ctx.get_event(target, STATUS, timeout=3600)


@operon.workflow
async def follows(ctx: operon.WorkflowContext) -> None:
    target = await ctx.recv(Topic("target", UUID), required=True)
    await ctx.retrieve_workflow(target).get_result()


@operon.workflow
async def books(ctx: operon.WorkflowContext) -> None:
    await label(ctx)


@operon.workflow
async def ships(ctx: operon.WorkflowContext) -> None:
    child = await books(ctx)
    await child.get_result()


@operon.workflow
async def sleeps(ctx: operon.WorkflowContext) -> None:
    await ctx.sleep(3600)


@operon.workflow
async def breaks(ctx: operon.WorkflowContext) -> None:
    raise MemoryError("no more")


@pytest.fixture(params=["parked", "live"])
async def runtime(request: pytest.FixtureRequest) -> AsyncIterator[TestRuntime]:
    after = 0 if request.param == "parked" else 3600
    STAGE.append(Stage())
    async with TestRuntime(__name__, check_replay=False, park_after_seconds=after, crash_budget=1) as runtime:
        yield runtime
        STAGE[-1].may_return.set()


async def tell(runtime: TestRuntime, workflow_uuid: UUID, target: UUID) -> None:
    await runtime.context.send(workflow_uuid, target, Topic("target", UUID))


async def test_a_message_with_what_else_is_there(runtime: TestRuntime) -> None:
    handle = await receives(runtime.context)
    await runtime.settled()
    await runtime.context.send(handle.workflow_uuid, 1, "other")

    found = await until_why(runtime, handle.workflow_uuid, "recv")

    assert "Waits for a message on `payment` since" in found["text"]
    assert "1 message on other topics is there. Nothing is wrong." in found["text"]
    assert found["until"] is not None


async def test_a_message_that_was_set_aside_before(runtime: TestRuntime) -> None:
    handle = await chews(runtime.context)
    await runtime.context.send(handle.workflow_uuid, "poison", JOBS)
    await until_event(runtime, Kind.SET_ASIDE)

    found = await until_why(runtime, handle.workflow_uuid, "recv_aside")

    assert "1 message on `jobs` was set aside as a dead letter: it crashed 'chews' 1 times in a row" in found["text"]
    assert "MemoryError: no more." in found["text"]


async def test_an_event_with_what_its_workflow_waits_for(runtime: TestRuntime) -> None:
    other, handle = await receives(runtime.context), await watches(runtime.context)
    await tell(runtime, handle.workflow_uuid, other.workflow_uuid)

    found = await until_why(runtime, handle.workflow_uuid, "event")

    end = str(other.workflow_uuid)[-6:]
    text = f"Waits for event `status` of `receives` …{end}, which itself waits for a message on `payment`."
    assert found["text"] == text
    assert found["link"] == f"/operon/supervisor?uuid={other.workflow_uuid}"


async def test_an_event_of_a_workflow_that_was_cancelled(runtime: TestRuntime) -> None:
    other, handle = await receives(runtime.context), await watches(runtime.context)
    await tell(runtime, handle.workflow_uuid, other.workflow_uuid)
    await until_why(runtime, handle.workflow_uuid, "event")
    await other.cancel()

    found = await until_why(runtime, handle.workflow_uuid, "event_never")

    assert ", which is CANCELLED and did not set it; it times out at " in found["text"]


async def test_a_child_with_what_it_runs(runtime: TestRuntime) -> None:
    handle = await ships(runtime.context)
    await STAGE[-1].called.wait()

    found = await until_why(runtime, handle.workflow_uuid, "child")

    assert found["text"].startswith("Waits for child `books` …")
    assert ", which runs `label` since " in found["text"]


async def test_the_result_of_another_workflow(runtime: TestRuntime) -> None:
    other, handle = await sleeps(runtime.context), await follows(runtime.context)
    await tell(runtime, handle.workflow_uuid, other.workflow_uuid)

    found = await until_why(runtime, handle.workflow_uuid, "handle")

    assert found["text"].startswith("Waits for the result of `sleeps` …")
    assert ", which sleeps until " in found["text"]


async def test_nobody_waits_for_the_result_of_a_dead_one(runtime: TestRuntime) -> None:
    other, handle = await breaks(runtime.context), await follows(runtime.context)
    await tell(runtime, handle.workflow_uuid, other.workflow_uuid)

    dead = await until_why(runtime, other.workflow_uuid, "dead")
    found = await until_why(runtime, handle.workflow_uuid, "error")

    assert "crashed 2 times in a row before step 0 was recorded, the last time with MemoryError" in dead["text"]
    assert (
        found["text"] == "Failed at step 1, `get_result`, with `WorkflowDeadError`; its own result, nothing is retried."
    )


@pytest.mark.parametrize("count", [1, 2, 3])
async def test_workflows_that_wait_for_one_another_in_a_circle(runtime: TestRuntime, count: int) -> None:
    ring = [(await watches(runtime.context)).workflow_uuid for _ in range(count)]
    for waiter, target in zip(ring, ring[1:] + ring[:1], strict=True):
        await tell(runtime, waiter, target)

    found = await until_why(runtime, ring[0], "cycle")

    end = str(ring[1 % count])[-6:]
    text = {
        1: "Waits for itself: it cannot go on before ",
        2: f"Waits for …{end}, which waits for this one: neither can go on before ",
        3: f"Waits for …{end}, which waits for this one by way of 1 more: none of them can go on before ",
    }
    assert found["text"].startswith(text[count])
    assert found["link"] == f"/operon/supervisor?uuid={ring[1 % count]}"


async def test_a_circle_of_others_is_none_of_its_own(runtime: TestRuntime) -> None:
    one, two, handle = [(await watches(runtime.context)).workflow_uuid for _ in range(3)]
    for waiter, target in ((one, two), (two, one), (handle, one)):
        await tell(runtime, waiter, target)
    await until_why(runtime, one, "cycle")

    assert (await until_why(runtime, handle, "event"))["code"] == "event"


async def test_a_sleep(runtime: TestRuntime) -> None:
    handle = await sleeps(runtime.context)

    found = await until_why(runtime, handle.workflow_uuid, "sleep")

    assert found["text"].startswith("Sleeps until ")
    assert found["text"].endswith("Nothing is wrong.")


async def test_an_unknown_workflow_is_none(runtime: TestRuntime) -> None:
    assert (await get(runtime, uuid=UUID(int=1)))["workflow"] is None
