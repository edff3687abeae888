"""Promise: who pauses for long between two attempts waits like any other, out of memory, and counts on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

import operon
from operon.database import checkpoints
from operon.operations import Workflow
from operon.runtime.journal import StepKind
from operon.testing import TestRuntime
from tests.acceptance.facts import parked, until

HOUR = 3600.0
EVERY_HOUR = operon.Retry(max_attempts=4, interval_seconds=HOUR, backoff_rate=1, jitter=False)
AT_ONCE = operon.Retry(max_attempts=4, interval_seconds=0.01, backoff_rate=1, jitter=False)

ANNOUNCED = "select count(*) from operon.checkpoints where step < 0"
WAITS = "select wait_what from operon.workflows where wait_kind is not null"


class Gateway:
    """What is called: it is away, for the first so many attempts."""

    def __init__(self) -> None:
        self.fails = 2
        self.calls: list[tuple[int, str]] = []
        self.open = asyncio.Event()
        self.open.set()


gateway = Gateway()


async def charge(ctx: operon.CommunicatorContext) -> int:
    gateway.calls.append((ctx.attempt, ctx.idempotency_key))
    await gateway.open.wait()
    if len(gateway.calls) <= gateway.fails:
        raise ConnectionError(f"away, {len(gateway.calls)}")
    return ctx.attempt


@operon.communicator(retry=EVERY_HOUR)
async def patient(ctx: operon.CommunicatorContext) -> int:
    return await charge(ctx)


@operon.communicator(retry=AT_ONCE)
async def hasty(ctx: operon.CommunicatorContext) -> int:
    return await charge(ctx)


@operon.communicator(retry=EVERY_HOUR, cancellable=True)
async def cancellable(ctx: operon.CommunicatorContext) -> int:
    return await charge(ctx)


@operon.workflow
async def pays(ctx: operon.WorkflowContext) -> int:
    return await patient(ctx)


@operon.workflow
async def pays_cancellably(ctx: operon.WorkflowContext) -> int:
    return await cancellable(ctx)


@operon.workflow
async def pays_at_once(ctx: operon.WorkflowContext) -> int:
    return await hasty(ctx)


@operon.workflow
async def pays_and_listens(ctx: operon.WorkflowContext) -> list[Any]:
    answers = await asyncio.gather(patient(ctx), ctx.recv("topic"), patient(ctx))
    return [*answers, await ctx.recv("topic")]


@operon.workflow
async def survives(ctx: operon.WorkflowContext) -> list[str]:
    try:
        await patient(ctx)
    except operon.MaxRetriesExceeded as error:
        return [f"{type(each).__name__}: {each}" for each in error.errors]
    return []


@pytest.fixture(autouse=True)
def fresh() -> None:
    global gateway
    gateway = Gateway()


@pytest.fixture
async def runtime(anyio_backend: str) -> AsyncIterator[TestRuntime]:
    async with TestRuntime(__name__, park_after_seconds=5, poll_seconds=0.2) as runtime:
        yield runtime


async def attempts(count: int) -> None:
    await until(lambda: len(gateway.calls) >= count)


@pytest.mark.parametrize("workflow", [pays, pays_cancellably])
async def test_a_long_pause_between_attempts_is_spent_out_of_memory_and_the_attempts_count_on(
    runtime: TestRuntime, workflow: Workflow[[], int]
) -> None:
    handle = await workflow(runtime.context)

    for made in (1, 2):
        await attempts(made)
        await parked(runtime, handle.workflow_uuid)
        operation = "patient" if workflow is pays else "cancellable"
        failed = f"its next attempt of {operation}: {made} of 4 failed, the last with ConnectionError"
        assert await runtime.fetchval(WAITS) == failed
        await runtime.advance(seconds=HOUR)

    assert await handle.get_result(timeout=60) == 3
    assert gateway.calls == [(made, f"{handle.workflow_uuid}:0") for made in (1, 2, 3)]
    assert await runtime.fetchval("select attempts from operon.checkpoints where step = 0") == 3


async def test_a_communicator_that_is_a_workflow_of_its_own_pauses_out_of_memory_too(runtime: TestRuntime) -> None:
    answer = asyncio.create_task(patient(runtime.context))

    await attempts(1)
    await until(lambda: not runtime.executor.incarnation.live)
    await runtime.advance(hours=2)

    assert await answer == 3


async def test_who_crashes_in_a_long_pause_counts_on_and_does_not_pause_anew(runtime: TestRuntime) -> None:
    handle = await pays(runtime.context)
    await attempts(1)
    await parked(runtime, handle.workflow_uuid)
    await runtime.advance(seconds=HOUR - 1)
    assert len(gateway.calls) == 1

    await runtime.crash()
    await runtime.advance(seconds=1)

    await attempts(2)
    await runtime.advance(seconds=HOUR)
    assert await handle.get_result(timeout=60) == 3
    assert [attempt for attempt, _ in gateway.calls] == [1, 2, 3]


async def test_who_crashes_at_an_attempt_makes_that_one_again(runtime: TestRuntime) -> None:
    handle = await pays(runtime.context)
    await attempts(1)
    await parked(runtime, handle.workflow_uuid)
    gateway.open.clear()
    await runtime.execute("update operon.workflows set wake_at = operon.clock()")
    await runtime.execute(
        "update operon.checkpoints set output = convert_to(replace(convert_from(output, 'UTF8'), "
        "(convert_from(output, 'UTF8')::json ->> 'due'), '0'), 'UTF8') where step < 0"
    )
    await attempts(2)

    await runtime.crash()
    await attempts(3)
    gateway.open.set()

    assert await handle.get_result(timeout=60) == 2
    assert [attempt for attempt, _ in gateway.calls] == [1, 2, 2]


async def test_the_errors_of_all_attempts_are_told_also_those_of_earlier_lives(runtime: TestRuntime) -> None:
    gateway.fails = 4
    handle = await survives(runtime.context)

    for made in (1, 2, 3):
        await attempts(made)
        await parked(runtime, handle.workflow_uuid)
        await runtime.advance(seconds=HOUR)

    assert await handle.get_result(timeout=60) == [f"ConnectionError: away, {made}" for made in (1, 2, 3, 4)]


async def test_branches_that_pause_and_listen_leave_memory_together(runtime: TestRuntime) -> None:
    gateway.fails = 3
    handle = await pays_and_listens(runtime.context)
    await attempts(2)
    await until(lambda: runtime.executor.incarnation.live[handle.workflow_uuid].idle)
    incarnation = runtime.executor.incarnation
    incarnation.parker._park(incarnation.live[handle.workflow_uuid])  # pyright: ignore[reportPrivateUsage]
    await parked(runtime, handle.workflow_uuid)

    await runtime.context.send(handle.workflow_uuid, "first", "topic")
    await runtime.advance(hours=1)
    await runtime.advance(hours=1)
    await runtime.context.send(handle.workflow_uuid, "second", "topic")

    first, message, second, last = await handle.get_result(timeout=60)
    assert (message, last) == ("first", "second")
    assert sorted((first, second)) == [2, 3]


async def test_a_workflow_that_pauses_is_cancelled_at_once_and_attempts_nothing_more(runtime: TestRuntime) -> None:
    handle = await pays(runtime.context)
    await attempts(1)
    await parked(runtime, handle.workflow_uuid)

    await handle.cancel()

    with pytest.raises(operon.WorkflowCancelledError):
        await handle.get_result(timeout=60)
    await runtime.advance(hours=2)
    assert len(gateway.calls) == 1


async def test_short_pauses_are_not_recorded(runtime: TestRuntime) -> None:
    handle = await pays_at_once(runtime.context)

    assert await handle.get_result(timeout=60) == 3
    assert await runtime.fetchval(ANNOUNCED) == 0


async def test_a_pause_that_cannot_be_recorded_is_spent_in_memory(
    runtime: TestRuntime, caplog: pytest.LogCaptureFixture
) -> None:
    await runtime.execute("alter function operon.keep_attempts rename to keep_no_attempts")
    handle = await pays(runtime.context)

    await attempts(1)
    await runtime.advance(hours=2)

    assert await handle.get_result(timeout=60) == 3
    assert await runtime.fetchval(ANNOUNCED) == 0
    assert "could not be recorded" in caplog.text


async def test_attempts_are_kept_for_the_owner_the_epoch_and_a_workflow_that_runs(runtime: TestRuntime) -> None:
    gateway.open.clear()
    handle = await pays(runtime.context)
    await attempts(1)
    uuid, me = handle.workflow_uuid, runtime.executor.incarnation.number
    ask = runtime.executor.look_ups.ask

    async def kept(me: int, epoch: int) -> bool:
        return await ask(lambda c: checkpoints.keep_attempts(c, me, uuid, epoch, -1, StepKind.CALL, "patient", b"{}"))

    assert not await kept(me, 2)
    assert not await kept(me + 1, 1)
    assert await kept(me, 1)
    await handle.cancel()
    assert not await kept(me, 1)
    gateway.open.set()


async def test_nothing_is_kept_by_an_executor_that_was_declared_dead(runtime: TestRuntime) -> None:
    handle = await pays(runtime.context)
    await attempts(1)
    await parked(runtime, handle.workflow_uuid)
    number = runtime.executor.incarnation.number

    await runtime.execute("update operon.executors set state = 2 where incarnation = $1", number)

    assert not await runtime.executor.look_ups.ask(
        lambda c: checkpoints.keep_attempts(c, number, handle.workflow_uuid, 1, -1, StepKind.CALL, "patient", b"{}")
    )
