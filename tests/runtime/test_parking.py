"""Parking: who only waits leaves memory, and comes back for what it waits for, and for nothing else."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import pytest

import operon
from operon import CommunicatorContext, EventKey, Operon, Status, WorkflowContext, WorkflowHandle
from operon.runtime.parking import Counts
from operon.testing import TestRuntime
from tests.acceptance.facts import parked, set_clock_ahead, until, waits_for
from tests.acceptance.gates import Gates

HOUR = 3600.0
STATE = EventKey("state", str)

gates = Gates()
lives: Counter[UUID] = Counter()


@operon.communicator
async def stop_at(ctx: CommunicatorContext, gate: str) -> None:
    await gates[gate].pass_()


@operon.workflow
async def receive(ctx: WorkflowContext, topic: str, times: int = 1, timeout: float | None = None) -> list[Any]:
    lives[ctx.workflow_uuid] += 1
    await ctx.set_event(STATE, "waiting")
    return [await ctx.recv(topic, timeout) for _ in range(times)]


@operon.workflow
async def sleep(ctx: WorkflowContext, duration: float) -> str:
    lives[ctx.workflow_uuid] += 1
    await ctx.sleep(duration)
    return "slept"


@operon.workflow
async def hold(ctx: WorkflowContext, gate: str) -> str:
    await stop_at(ctx, gate)
    await ctx.set_event(STATE, "held")
    return "done"


@operon.workflow
async def read_event(ctx: WorkflowContext, of: UUID) -> Any:
    return await ctx.get_event(of, STATE)


@operon.workflow
async def read_result(ctx: WorkflowContext, of: UUID) -> Any:
    return await ctx.retrieve_workflow(of).get_result()


@operon.workflow
async def everything_at_once(ctx: WorkflowContext, of: UUID) -> list[Any]:
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(ctx.recv("topic")),
            group.create_task(ctx.get_event(of, STATE)),
            group.create_task(ctx.retrieve_workflow(of).get_result()),
            group.create_task(ctx.recv_any("a", "b", timeout=HOUR)),
        ]
    return [str(task.result()) for task in tasks]


@operon.workflow
async def hold_and_receive(ctx: WorkflowContext, gate: str) -> list[Any]:
    return [*await asyncio.gather(stop_at(ctx, gate), ctx.recv("topic"))]


@operon.workflow
async def hold_then_receive(ctx: WorkflowContext, gate: str) -> Any:
    await stop_at(ctx, gate)
    return await ctx.recv("topic")


@operon.workflow
async def conversation(ctx: WorkflowContext, times: int) -> list[Any]:
    """Something of each kind, one after the other."""
    told: list[Any] = []
    for number in range(times):
        told.append(await ctx.recv("topic"))
        await ctx.set_event(f"said {number}", told[-1])
    child = await sleep(ctx, 0.01)
    told.append(await child.get_result())
    return told


@pytest.fixture(scope="module")
async def runtime() -> AsyncIterator[TestRuntime]:
    async with TestRuntime(__name__, evict_always=True, poll_seconds=0.2) as runtime:
        yield runtime


async def finished(handle: WorkflowHandle[Any]) -> Any:
    async with asyncio.timeout(60):
        return await handle.get_result()


# ---------------------------------------------------------------------- who leaves


async def test_a_workflow_that_waits_leaves_memory_after_a_while() -> None:
    async with TestRuntime(__name__, park_after_seconds=2) as runtime:
        handle = await receive(runtime.context, "topic")
        await waits_for(handle, "recv topic")
        lived = handle.workflow_uuid in runtime.executor.incarnation.live

        await parked(runtime, handle.workflow_uuid)

        assert lived


async def test_a_second_start_of_a_parked_workflow_does_nothing_of_it_again(runtime: TestRuntime) -> None:
    gates["once"].open()
    ctx = runtime.context_of(workflow_uuid=uuid4())
    first = await hold_then_receive(ctx, "once")
    await parked(runtime, first.workflow_uuid)
    called = gates["once"].arrivals

    second = await hold_then_receive(ctx, "once")
    await runtime.context.send(first.workflow_uuid, "a message", "topic")

    assert await finished(second) == "a message"
    assert gates["once"].arrivals == called == 1


async def test_one_that_sleeps_for_longer_than_that_leaves_at_once() -> None:
    async with TestRuntime(__name__, park_after_seconds=60) as runtime:
        long = await sleep(runtime.context, HOUR)
        short = await sleep(runtime.context, 30)

        await parked(runtime, long.workflow_uuid)

        assert short.workflow_uuid in runtime.executor.incarnation.live


async def test_one_that_does_something_besides_stays(runtime: TestRuntime) -> None:
    gate = str(uuid4())
    handle = await hold_and_receive(runtime.context, gate)
    other = await receive(runtime.context, "topic")
    await gates[gate].reached.wait()

    await parked(runtime, other.workflow_uuid)  # a sweep has passed

    assert handle.workflow_uuid in runtime.executor.incarnation.live

    gates[gate].open()
    await parked(runtime, handle.workflow_uuid)
    await runtime.context.send(handle.workflow_uuid, 1, "topic")

    assert await finished(handle) == [None, 1]
    assert gates[gate].arrivals == 1


async def test_the_status_of_a_parked_workflow_says_what_it_waits_for(runtime: TestRuntime) -> None:
    held = str(uuid4())
    target = await hold(runtime.context, held)
    uuid = target.workflow_uuid
    handles: list[WorkflowHandle[Any]] = [
        await receive(runtime.context, "topic"),
        await sleep(runtime.context, HOUR),
        await read_event(runtime.context, uuid),
        await read_result(runtime.context, uuid),
    ]
    await parked(runtime, *(handle.workflow_uuid for handle in handles))

    told = [status.waiting_for for handle in handles if (status := await handle.get_status())]
    finished_after = [await runtime.context.retrieve_workflow(handle.workflow_uuid).get_status() for handle in handles]
    gates[held].open()

    assert told == ["recv topic", "sleep", f"event state of {uuid}", f"the result of {uuid}"]
    assert {status.status for status in finished_after if status} == {Status.PENDING}
    await finished(handles[2])
    ended = await handles[2].get_status()
    assert ended is not None
    assert ended.waiting_for is None


# ---------------------------------------------------------------------- who comes back


async def test_a_message_brings_a_workflow_back(runtime: TestRuntime) -> None:
    handle = await receive(runtime.context, "topic", 3)

    for number in range(3):
        await parked(runtime, handle.workflow_uuid)
        await runtime.context.send(handle.workflow_uuid, number, "topic")

        while await runtime.fetchval("select count(*) from operon.notifications"):  # noqa: ASYNC110 - no bell rings
            await asyncio.sleep(0.005)

    assert await finished(handle) == [0, 1, 2]


async def test_a_message_on_another_topic_wakes_nobody(runtime: TestRuntime) -> None:
    handle = await receive(runtime.context, "topic")
    await parked(runtime, handle.workflow_uuid)
    lived = lives[handle.workflow_uuid]

    await runtime.context.send(handle.workflow_uuid, "for nobody", "other")
    await runtime.context.send(handle.workflow_uuid, "for nobody")
    witness = await sleep(runtime.context, 0.5)  # the activator has looked since, more than once
    await finished(witness)

    assert lives[handle.workflow_uuid] == lived
    assert handle.workflow_uuid not in runtime.executor.incarnation.live

    await runtime.context.send(handle.workflow_uuid, "for it", "topic")

    assert await finished(handle) == ["for it"]


async def test_an_event_and_a_result_bring_a_workflow_back(runtime: TestRuntime) -> None:
    gate = str(uuid4())
    target = await hold(runtime.context, gate)
    event = await read_event(runtime.context, target.workflow_uuid)
    result = await read_result(runtime.context, target.workflow_uuid)
    await parked(runtime, event.workflow_uuid, result.workflow_uuid)

    gates[gate].open()

    assert [await finished(event), await finished(result)] == ["held", "done"]
    assert await runtime.fetchval("select count(*) from operon.waits where target = $1", target.workflow_uuid) == 0


async def test_time_brings_a_workflow_back(runtime: TestRuntime) -> None:
    parker = runtime.executor.incarnation.parker
    before = parker.parked

    handle = await sleep(runtime.context, 1)

    assert await finished(handle) == "slept"
    assert parker.parked == before + 1  # counted, as on a busy machine its time may come before anybody has looked


async def test_a_time_that_comes_just_as_its_workflow_leaves_memory_is_not_missed() -> None:
    async with TestRuntime(__name__, park_after_seconds=0.0, poll_seconds=HOUR) as runtime:

        async def wait(each: int) -> None:
            for number in range(100):
                handle = await receive(runtime.context, "never", timeout=(each + number / 100) / 1000)
                assert await handle.get_result() == [None]

        async with asyncio.timeout(60), asyncio.TaskGroup() as waiters:
            for each in range(8):
                waiters.create_task(wait(each))


async def test_a_workflow_whose_branches_all_wait_is_parked_and_goes_on_where_each_was(runtime: TestRuntime) -> None:
    gate = str(uuid4())
    target = await hold(runtime.context, gate)
    handle = await everything_at_once(runtime.context, target.workflow_uuid)
    await parked(runtime, handle.workflow_uuid)

    activator = runtime.executor.incarnation.activator
    before = activator.activated
    await runtime.context.send(handle.workflow_uuid, "letter", "b")
    await until(lambda: activator.activated > before)
    await parked(runtime, handle.workflow_uuid)
    gates[gate].open()
    await runtime.context.send(handle.workflow_uuid, "message", "topic")

    assert await finished(handle) == ["message", "held", "done", "Received(topic='b', message='letter')"]


async def test_a_workflow_of_every_kind_of_wait_goes_through_with_each_of_them_evicted(runtime: TestRuntime) -> None:
    handle = await conversation(runtime.context, 5)

    for number in range(5):
        await runtime.context.send(handle.workflow_uuid, number, "topic")
        said = await runtime.context.get_event(handle.workflow_uuid, f"said {number}", timeout=60)
        assert said == number

    assert await finished(handle) == [0, 1, 2, 3, 4, "slept"]


async def test_messages_that_race_with_the_parking_are_not_lost(runtime: TestRuntime) -> None:
    handles = [await receive(runtime.context, "topic", 5) for _ in range(20)]

    async def talk(handle: WorkflowHandle[Any], number: int) -> None:
        for message in range(5):
            for _ in range(number * 3):
                await asyncio.sleep(0)
            await runtime.context.send(handle.workflow_uuid, message, "topic")

    await asyncio.gather(*(talk(handle, number) for number, handle in enumerate(handles)))

    assert [await finished(handle) for handle in handles] == [[0, 1, 2, 3, 4]] * 20


# ---------------------------------------------------------------------- what goes on meanwhile


async def test_a_handle_of_a_parked_workflow_waits_on(runtime: TestRuntime) -> None:
    handle = await receive(runtime.context, "topic")
    before = asyncio.create_task(handle.get_result())
    await parked(runtime, handle.workflow_uuid)
    after = asyncio.create_task(handle.get_result())
    anybody = asyncio.create_task(runtime.context.retrieve_workflow(handle.workflow_uuid).get_result(timeout=60))
    await until(lambda: runtime.executor.results.awaited)

    with pytest.raises(operon.ResultTimeout):
        await handle.get_result(timeout=0.05)
    await runtime.context.send(handle.workflow_uuid, 1, "topic")

    async with asyncio.timeout(60):
        assert await asyncio.gather(before, after, anybody) == [[1]] * 3


async def test_events_of_a_parked_workflow_can_be_read(runtime: TestRuntime) -> None:
    handle = await receive(runtime.context, "topic")
    await parked(runtime, handle.workflow_uuid)

    assert await runtime.context.get_event(handle.workflow_uuid, STATE) == "waiting"
    assert await runtime.context.get_event(handle.workflow_uuid, "other", timeout=0) is None


async def test_a_second_start_of_a_parked_workflow_attaches_to_it(runtime: TestRuntime) -> None:
    uuid = uuid4()
    first = await receive(runtime.context.using(workflow_uuid=uuid), "topic")
    await parked(runtime, uuid)

    second = await receive(runtime.context.using(workflow_uuid=uuid), "topic")
    await runtime.context.send(uuid, "one", "topic")

    assert [await finished(first), await finished(second)] == [["one"]] * 2


async def test_another_executor_sends_to_a_parked_workflow_and_hears_of_its_end(runtime: TestRuntime) -> None:
    handle = await receive(runtime.context, "topic")
    await parked(runtime, handle.workflow_uuid)

    async with Operon(__name__, database_url=runtime.database_url) as other:
        there = asyncio.create_task(other.context().retrieve_workflow(handle.workflow_uuid).get_result(timeout=60))
        await until(lambda: other.executor.results.awaited)
        await other.context().send(handle.workflow_uuid, "from afar", "topic")

        assert await there == ["from afar"]


async def test_parked_workflows_outlive_their_executor(runtime: TestRuntime) -> None:
    handles = [await receive(runtime.context, "topic") for _ in range(10)]
    await parked(runtime, *(handle.workflow_uuid for handle in handles))

    await runtime.restart()
    await asyncio.gather(*(runtime.context.send(handle.workflow_uuid, 1, "topic") for handle in handles))

    for handle in handles:
        assert await finished(runtime.context.retrieve_workflow(handle.workflow_uuid)) == [1]


# ---------------------------------------------------------------------- many


async def test_more_workflows_can_wait_than_may_live() -> None:
    async with TestRuntime(__name__, max_live=10, poll_seconds=0.1) as runtime:
        handles: list[WorkflowHandle[Any]] = []
        most = 0
        while len(handles) < 100:
            try:
                handles.append(await receive(runtime.context, "topic"))
            except operon.ExecutorFull:
                await asyncio.sleep(0.005)
            most = max(most, len(runtime.executor.incarnation.live))

        await asyncio.gather(*(runtime.context.send(handle.workflow_uuid, 1, "topic") for handle in handles))
        async with asyncio.timeout(60):
            results = await asyncio.gather(*(handle.get_result() for handle in handles))

    assert results == [[1]] * 100
    assert most <= 10


async def test_many_that_wait_for_one_time_all_come_back_when_it_has_come() -> None:
    async with TestRuntime(__name__, max_live=20, poll_seconds=0.1, evict_always=True) as runtime:
        handles: list[WorkflowHandle[Any]] = []
        while len(handles) < 100:
            try:
                handles.append(await sleep(runtime.context, HOUR))
            except operon.ExecutorFull:
                await asyncio.sleep(0.005)
        await parked(runtime, *(handle.workflow_uuid for handle in handles))

        await set_clock_ahead(runtime, HOUR + 1)
        async with asyncio.timeout(60):
            results = await asyncio.gather(*(handle.get_result() for handle in handles))

    assert results == ["slept"] * 100


async def test_an_incarnation_counts_who_lives_who_waits_and_who_was_parked() -> None:
    async with TestRuntime(__name__, park_after_seconds=0.1, poll_seconds=0.1) as runtime:
        gate = str(uuid4())
        parker = runtime.executor.incarnation.parker
        held = await hold(runtime.context, gate)
        await gates[gate].reached.wait()
        waiting = await receive(runtime.context, "topic")
        await waits_for(waiting, "recv topic")
        while_it_waits = parker.counts

        await parked(runtime, waiting.workflow_uuid)
        while_it_is_parked = parker.counts
        gates[gate].open()
        await runtime.context.send(waiting.workflow_uuid, 1, "topic")
        await finished(waiting)
        await finished(held)
        await until(lambda: not runtime.executor.incarnation.live)

        assert while_it_waits == Counts(live=2, waiting=1, parked=0, woken=0)
        assert while_it_is_parked == Counts(live=1, waiting=0, parked=1, woken=0)
        assert parker.counts == Counts(live=0, waiting=0, parked=1, woken=0)


# ---------------------------------------------------------------------- the testing kit


async def test_evict_always_parks_whoever_waits_and_nothing_else_is_needed() -> None:
    async with TestRuntime(__name__, evict_always=True) as runtime:
        handle = await receive(runtime.context, "topic")

        await parked(runtime, handle.workflow_uuid)
        await runtime.context.send(handle.workflow_uuid, 1, "topic")

        assert await finished(handle) == [1]
        assert lives[handle.workflow_uuid] == 2
        assert runtime.app.settings.park_after_seconds == 0


def test_evict_always_and_a_time_to_park_after_contradict_each_other() -> None:
    with pytest.raises(operon.ConfigurationError, match="evict_always"):
        TestRuntime(__name__, evict_always=True, park_after_seconds=5)
