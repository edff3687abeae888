"""Events: what workflows publish, for anybody to wait for and to read, during and after."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import pytest

import operon
from operon import CommunicatorContext, EventKey, Operon, Status, WorkflowContext, WorkflowStatus
from operon.testing import TestRuntime
from tests.acceptance.facts import checkpoints, until, waits_for
from tests.acceptance.gates import Gates

STATUS = EventKey("status", str)
PROGRESS = EventKey("progress", int)

gates = Gates()


@operon.communicator
async def stop_at(ctx: CommunicatorContext, gate: str) -> None:
    await gates[gate].pass_()


@operon.workflow
async def publish(ctx: WorkflowContext, events: dict[str, Any], before: str = "", after: str = "") -> str:
    """Publishes between two gates."""
    if before:
        await stop_at(ctx, before)
    for key, value in events.items():
        await ctx.set_event(key, value)
    if after:
        await stop_at(ctx, after)
    return "done"


@operon.workflow
async def publish_again(ctx: WorkflowContext, after: str, replace: bool) -> list[str]:
    await ctx.set_event(STATUS, "first")
    told: list[str] = []
    try:
        await ctx.set_event(STATUS, "second", replace=replace)
        told.append("set")
    except operon.DuplicateEventError as error:
        told.append(error.message)
    await stop_at(ctx, after)
    return told


@operon.workflow
async def publish_wrong(ctx: WorkflowContext) -> str:
    wrong: Any = "not a number"
    try:
        await ctx.set_event(PROGRESS, wrong)
    except operon.InputError as error:
        return error.message
    return "set"


@operon.workflow
async def progress(ctx: WorkflowContext, gate: str, steps: int) -> None:
    for step in range(steps):
        await ctx.set_event(PROGRESS, step, replace=True)
        await stop_at(ctx, f"{gate} {step}")


@operon.workflow
async def fail_without(ctx: WorkflowContext, gate: str) -> None:
    await stop_at(ctx, gate)
    raise ValueError("it failed")


@operon.workflow
async def read_event(ctx: WorkflowContext, of: UUID, key: str, timeout: float | None) -> Any:
    return await ctx.get_event(of, key, timeout)


@operon.workflow
async def read_twice(ctx: WorkflowContext, of: UUID, gate: str) -> tuple[str | None, bool, str | None]:
    """The event and the status of another workflow, as they were found first, and the event once more at the end."""
    event = await ctx.get_event(of, STATUS, timeout=0)
    status: WorkflowStatus | None = await ctx.retrieve_workflow(of).get_status()
    await stop_at(ctx, gate)
    return event, status is None or not status.status.is_finished, await ctx.get_event(of, STATUS, timeout=0)


@operon.workflow
async def read_and_catch(ctx: WorkflowContext, of: UUID, gate: str) -> str:
    try:
        value = await ctx.get_event(of, STATUS)
        told = f"read {value}"
    except operon.OperonError as error:
        told = f"{type(error).__name__}: {error.message}"
    await stop_at(ctx, gate)
    return told


@operon.workflow
async def read_of_a_child(ctx: WorkflowContext, gate: str) -> Any:
    child = await publish(ctx, {"status": "born"}, "", gate)
    return await ctx.get_event(child.workflow_uuid, STATUS)


@operon.workflow
async def read_in_a_group(ctx: WorkflowContext, of: UUID) -> list[Any]:
    return [*await asyncio.gather(*(ctx.get_event(of, key) for key in "baa"))]


@pytest.fixture(scope="module")
async def runtime() -> AsyncIterator[TestRuntime]:
    async with TestRuntime(__name__, poll_seconds=0.2) as runtime:
        yield runtime


# ---------------------------------------------------------------------- reading


async def test_events_can_be_read_after_the_workflow_and_a_missing_one_is_none(runtime: TestRuntime) -> None:
    handle = await publish(runtime.context, {"one": 1, "two": {"any": ["json"]}, "nothing": None})
    await handle.get_result()

    ctx = runtime.context
    told = [await ctx.get_event(handle.workflow_uuid, key, timeout=0) for key in ("one", "two", "nothing", "missing")]

    assert told == [1, {"any": ["json"]}, None, None]


async def test_an_event_can_be_read_while_its_workflow_runs(runtime: TestRuntime) -> None:
    after = str(uuid4())
    handle = await publish(runtime.context, {"status": "paid"}, "", after)
    await gates[after].reached.wait()

    status = await runtime.context.get_event(handle.workflow_uuid, STATUS)
    gates[after].open()

    assert status == "paid"


async def test_a_thousand_wait_for_one_event_and_all_are_told(runtime: TestRuntime) -> None:
    before, after = str(uuid4()), str(uuid4())
    handle = await publish(runtime.context, {"status": "paid"}, before, after)
    ctx = runtime.context
    waiting = [asyncio.create_task(ctx.get_event(handle.workflow_uuid, STATUS)) for _ in range(1000)]
    await until(lambda: runtime.executor.results.awaited)

    gates[before].open()

    assert await asyncio.gather(*waiting) == ["paid"] * 1000
    gates[after].open()
    await handle.get_result()
    assert runtime.executor.results.awaited == 0


async def test_who_waits_elsewhere_is_told_too(runtime: TestRuntime) -> None:
    before, after = str(uuid4()), str(uuid4())
    handle = await publish(runtime.context, {"other": 1, "status": "paid"}, before, after)

    async with Operon(__name__, database_url=runtime.database_url) as other:
        waiting = [asyncio.create_task(other.context().get_event(handle.workflow_uuid, STATUS)) for _ in range(50)]
        await until(lambda: other.executor.results.awaited)
        gates[before].open()

        assert await asyncio.gather(*waiting) == ["paid"] * 50

    gates[after].open()


async def test_get_event_gives_none_when_the_time_is_over(runtime: TestRuntime) -> None:
    gate = str(uuid4())
    handle = await publish(runtime.context, {}, gate)

    from_outside = await runtime.context.get_event(handle.workflow_uuid, STATUS, timeout=0.05)
    reader = await read_event(runtime.context, handle.workflow_uuid, "status", 0.05)

    assert from_outside is None
    assert await reader.get_result() is None
    gates[gate].open()


@pytest.mark.parametrize("kind", ["success", "error"])
async def test_who_waits_for_an_event_is_told_at_once_when_the_workflow_has_finished_without(
    runtime: TestRuntime, kind: str
) -> None:
    gate = str(uuid4())
    handle = await (publish(runtime.context, {}, gate) if kind == "success" else fail_without(runtime.context, gate))
    uuid = handle.workflow_uuid
    outside = asyncio.create_task(runtime.context.get_event(uuid, STATUS))
    inside = await read_event(runtime.context, uuid, "status", None)
    await waits_for(inside, f"event status of {uuid}")

    gates[gate].open()

    assert await outside is None
    assert await inside.get_result() is None
    assert await runtime.context.get_event(uuid, STATUS) is None


async def test_an_event_of_an_unknown_workflow_is_an_error_and_recorded_as_one(runtime: TestRuntime) -> None:
    gate, unknown = str(uuid4()), uuid4()

    with pytest.raises(operon.NonExistentWorkflowError, match=str(unknown)):
        await runtime.context.get_event(unknown, STATUS)
    handle = await read_and_catch(runtime.context, unknown, gate)
    await gates[gate].reached.wait()
    await publish(runtime.context.using(workflow_uuid=unknown), {"status": "here"})
    await runtime.crash()
    gates[gate].open()

    assert await handle.get_result() == f"NonExistentWorkflowError: there is no workflow {unknown}"


# ---------------------------------------------------------------------- in workflows


async def test_a_workflow_reads_the_event_of_another_and_records_it(runtime: TestRuntime) -> None:
    before, after = str(uuid4()), str(uuid4())
    handle = await publish(runtime.context, {"status": "paid"}, before, after)
    reader = await read_event(runtime.context, handle.workflow_uuid, "status", None)
    await waits_for(reader, f"event status of {handle.workflow_uuid}")

    gates[before].open()

    assert await reader.get_result() == "paid"
    await reader.get_status()
    assert await checkpoints(runtime, reader.workflow_uuid) == [("get_event", "status", '"paid"')]
    gates[after].open()


async def test_what_was_not_there_is_not_there_in_a_replay_either(runtime: TestRuntime) -> None:
    before, gate = str(uuid4()), str(uuid4())
    handle = await publish(runtime.context, {"status": "paid"}, before)
    reader = await read_twice(runtime.context, handle.workflow_uuid, gate)
    await gates[gate].reached.wait()

    gates[before].open()
    await handle.get_result()
    await runtime.crash()
    gates[gate].open()
    another = await read_twice(runtime.context, handle.workflow_uuid, gate)

    assert await reader.get_result() == (None, True, "paid")
    assert await another.get_result() == ("paid", False, "paid")


async def test_a_workflow_reads_the_event_of_a_child_that_it_has_just_started(runtime: TestRuntime) -> None:
    gate = str(uuid4())

    handle = await read_of_a_child(runtime.context, gate)

    assert await handle.get_result() == "born"
    gates[gate].open()


async def test_branches_wait_for_several_events_at_once(runtime: TestRuntime) -> None:
    before, after = str(uuid4()), str(uuid4())
    handle = await publish(runtime.context, {"a": 1, "b": 2}, before, after)
    reader = await read_in_a_group(runtime.context, handle.workflow_uuid)
    await waits_for(reader, f"event b of {handle.workflow_uuid}; event a of {handle.workflow_uuid}")

    gates[before].open()

    assert await reader.get_result() == [2, 1, 1]
    gates[after].open()


# ---------------------------------------------------------------------- setting


async def test_an_event_is_set_once_and_that_it_was_is_recorded(runtime: TestRuntime) -> None:
    after = str(uuid4())
    handle = await publish_again(runtime.context, after, replace=False)
    await gates[after].reached.wait()

    await runtime.crash()
    gates[after].open()

    told = await handle.get_result()
    assert told == [f"'publish_again' {handle.workflow_uuid} has set the event 'status' before"]
    assert await runtime.context.get_event(handle.workflow_uuid, STATUS) == "first"


async def test_an_event_changes_when_it_says_so(runtime: TestRuntime) -> None:
    after = str(uuid4())
    gates[after].open()
    handle = await publish_again(runtime.context, after, replace=True)

    assert await handle.get_result() == ["set"]
    assert await runtime.context.get_event(handle.workflow_uuid, STATUS) == "second"


async def test_who_asks_again_sees_what_an_event_was_replaced_with(runtime: TestRuntime) -> None:
    gate = str(uuid4())
    handle = await progress(runtime.context, gate, 3)

    seen: list[int | None] = []
    for step in range(3):
        await gates[f"{gate} {step}"].reached.wait()
        seen.append(await runtime.context.get_event(handle.workflow_uuid, PROGRESS))
        gates[f"{gate} {step}"].open()

    assert seen == [0, 1, 2]


async def test_two_workflows_have_each_their_own_events(runtime: TestRuntime) -> None:
    first, second = [await publish(runtime.context, {"status": name}) for name in ("one", "two")]

    told = [await runtime.context.get_event(handle.workflow_uuid, STATUS) for handle in (first, second)]

    assert told == ["one", "two"]


async def test_a_value_of_another_type_is_refused_where_it_is_set_and_nothing_is_published(
    runtime: TestRuntime,
) -> None:
    handle = await publish_wrong(runtime.context)

    assert "progress" in await handle.get_result()
    assert await runtime.context.get_event(handle.workflow_uuid, PROGRESS) is None


async def test_an_event_of_another_type_is_an_error_where_it_is_read(runtime: TestRuntime) -> None:
    handle = await publish(runtime.context, {"progress": "far"})

    with pytest.raises(operon.DecodingError, match="progress"):
        await runtime.context.get_event(handle.workflow_uuid, PROGRESS)


async def test_an_event_outlives_a_crash_and_is_not_set_twice(runtime: TestRuntime) -> None:
    after = str(uuid4())
    handle = await publish(runtime.context, {"status": "paid"}, "", after)
    await gates[after].reached.wait()

    await runtime.crash()
    read = await runtime.context.get_event(handle.workflow_uuid, STATUS)
    gates[after].open()

    assert await handle.get_result() == "done"
    assert read == "paid"
    status = await handle.get_status()
    assert status is not None
    assert status.status is Status.SUCCESS
