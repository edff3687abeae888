"""Time: sleeps and the ends of waits, which survive restarts and are met by the database's clock alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

import operon
from operon import CommunicatorContext, EventKey, WorkflowContext
from operon.testing import TestRuntime
from tests.acceptance.facts import checkpoints, parked, set_clock_ahead, waits_for
from tests.acceptance.gates import Gates

HOUR = 3600.0
NEVER = EventKey("never", str)

gates = Gates()


@operon.communicator
async def stop_at(ctx: CommunicatorContext, gate: str) -> None:
    await gates[gate].pass_()


@operon.workflow
async def sleep(ctx: WorkflowContext, duration: float, gate: str = "") -> float:
    """How long it slept by its own clock; recorded, so a replay says what the first life would have."""
    began = ctx.now()
    await ctx.sleep(duration)
    slept = (ctx.now() - began).total_seconds()
    if gate:
        await stop_at(ctx, gate)
    return slept


@operon.workflow
async def sleep_until(ctx: WorkflowContext, when: datetime) -> datetime:
    await ctx.sleep_until(when)
    return ctx.now()


@operon.workflow
async def sleep_naively(ctx: WorkflowContext) -> str:
    try:
        await ctx.sleep_until(datetime(2100, 1, 1))
    except operon.InvocationError as error:
        return error.message
    return "slept"


@operon.workflow
async def receive(ctx: WorkflowContext, timeout: float, gate: str = "") -> Any:
    message = await ctx.recv("topic", timeout)
    if gate:
        await stop_at(ctx, gate)
    return message


@operon.workflow
async def read_event(ctx: WorkflowContext, of: UUID, timeout: float) -> Any:
    return await ctx.get_event(of, NEVER, timeout)


@operon.workflow
async def read_result(ctx: WorkflowContext, of: UUID, timeout: float) -> str:
    try:
        await ctx.retrieve_workflow(of).get_result(timeout)
    except operon.ResultTimeout as error:
        return type(error).__name__
    return "it finished"


@operon.workflow
async def receive_or_sleep(ctx: WorkflowContext, duration: float) -> list[Any]:
    return [*await asyncio.gather(ctx.sleep(duration), ctx.recv("topic"))]


@operon.workflow
async def sleep_side_by_side(ctx: WorkflowContext) -> list[int]:
    woken: list[int] = []

    async def one(number: int, duration: float) -> None:
        await ctx.sleep(duration)
        woken.append(number)

    await asyncio.gather(one(1, 0.2), one(2, 0.05), one(3, 0.1))
    return woken


@pytest.fixture(scope="module")
async def runtime() -> AsyncIterator[TestRuntime]:
    async with TestRuntime(__name__, poll_seconds=0.2) as runtime:
        yield runtime


@pytest.fixture
async def settable() -> AsyncIterator[TestRuntime]:
    """A runtime whose clock a test may set."""
    async with TestRuntime(__name__, poll_seconds=0.1, park_after_seconds=0.05) as runtime:
        yield runtime


# ---------------------------------------------------------------------- sleeping


async def test_a_workflow_sleeps_as_long_as_it_says(runtime: TestRuntime) -> None:
    handle = await sleep(runtime.context, 0.2)

    assert await handle.get_result() >= 0.2


@pytest.mark.parametrize("duration", [0, 0.0])
async def test_to_sleep_for_no_time_is_no_wait(runtime: TestRuntime, duration: float) -> None:
    handle = await sleep(runtime.context, duration)

    assert 0 <= await handle.get_result() < HOUR


async def test_a_workflow_sleeps_until_a_time_in_any_zone(runtime: TestRuntime) -> None:
    zone = datetime.now(UTC).astimezone().tzinfo
    when = datetime.now(zone) + timedelta(seconds=0.2)

    handle = await sleep_until(runtime.context, when)

    assert await handle.get_result() >= when


@pytest.mark.parametrize("when", [datetime.min, datetime(1969, 7, 20), datetime(2000, 1, 1)], ids=str)
async def test_to_sleep_until_a_time_that_has_passed_is_no_wait(runtime: TestRuntime, when: datetime) -> None:
    handle = await sleep_until(runtime.context, when.replace(tzinfo=UTC))

    assert await handle.get_result(timeout=60)


async def test_a_time_without_a_zone_is_refused(runtime: TestRuntime) -> None:
    handle = await sleep_naively(runtime.context)

    assert "without a zone" in await handle.get_result()


async def test_a_sleep_is_recorded_when_it_begins_and_a_replay_skips_it(runtime: TestRuntime) -> None:
    gate = str(uuid4())
    handle = await sleep(runtime.context, 0.1, gate)
    await gates[gate].reached.wait()

    before = await checkpoints(runtime, handle.workflow_uuid)
    await runtime.crash()
    gates[gate].open()
    slept = await handle.get_result()

    assert [kind for kind, _, _ in before] == ["now", "sleep", "now"]
    assert slept >= 0.1
    assert (await checkpoints(runtime, handle.workflow_uuid))[:3] == before


async def test_sleeps_side_by_side_end_in_the_order_of_their_times(runtime: TestRuntime) -> None:
    handle = await sleep_side_by_side(runtime.context)

    assert await handle.get_result() == [2, 3, 1]


async def test_a_message_and_a_sleep_are_waited_for_at_once(runtime: TestRuntime) -> None:
    handle = await receive_or_sleep(runtime.context, 0.05)
    await waits_for(handle, "recv topic")

    await runtime.context.send(handle.workflow_uuid, "message", "topic")

    assert await handle.get_result() == [None, "message"]


@pytest.mark.parametrize("times", [1, 2])
async def test_a_workflow_with_two_waits_goes_on_from_both_after_a_crash(runtime: TestRuntime, times: int) -> None:
    handle = await receive_or_sleep(runtime.context, 0.3)
    await waits_for(handle, "sleep; recv topic")

    for _ in range(times):
        await runtime.crash()
    await runtime.context.send(handle.workflow_uuid, "message", "topic")

    assert await handle.get_result() == [None, "message"]


# ---------------------------------------------------------------------- restarts


async def test_a_restart_in_the_middle_of_a_sleep_waits_for_the_rest_only(settable: TestRuntime) -> None:
    handle = await sleep(settable.context, HOUR)
    await parked(settable, handle.workflow_uuid)

    await settable.crash()
    await set_clock_ahead(settable, HOUR + 1)

    assert HOUR <= await handle.get_result(timeout=60) < HOUR + 60


async def test_a_restart_in_the_middle_of_a_timeout_waits_for_the_rest_only(settable: TestRuntime) -> None:
    handle = await receive(settable.context, HOUR)
    await waits_for(handle, "recv topic")
    recorded = await checkpoints(settable, handle.workflow_uuid)

    await settable.restart()
    await set_clock_ahead(settable, HOUR / 2)
    await settable.restart()
    half = settable.context.retrieve_workflow(handle.workflow_uuid)
    status = await half.get_status()
    await set_clock_ahead(settable, HOUR + 1)

    assert await half.get_result(timeout=60) is None
    assert status is not None
    assert not status.status.is_finished
    # The deadline was recorded when the wait began, and never again.
    assert [kind for kind, _, _ in recorded] == ["wait"]
    assert (await checkpoints(settable, handle.workflow_uuid))[:1] == recorded


@pytest.mark.parametrize("kind", ["event", "result"])
async def test_the_timeouts_of_events_and_results_go_on_over_restarts_too(settable: TestRuntime, kind: str) -> None:
    other = await receive(settable.context, 10 * HOUR)
    uuid = other.workflow_uuid
    handle = await (read_event if kind == "event" else read_result)(settable.context, uuid, HOUR)
    await waits_for(handle, f"event never of {uuid}" if kind == "event" else f"the result of {uuid}")

    await settable.crash()
    await set_clock_ahead(settable, HOUR + 1)

    assert await handle.get_result(timeout=60) == (None if kind == "event" else "ResultTimeout")


async def test_a_message_in_the_rest_of_the_time_is_received(settable: TestRuntime) -> None:
    handle = await receive(settable.context, HOUR)
    await waits_for(handle, "recv topic")

    await settable.restart()
    await settable.context.send(handle.workflow_uuid, "in time", "topic")

    assert await settable.context.retrieve_workflow(handle.workflow_uuid).get_result(timeout=60) == "in time"


# ---------------------------------------------------------------------- whose clock


@pytest.mark.parametrize("off", [-HOUR, HOUR], ids=["an hour late", "an hour early"])
async def test_a_machine_whose_clock_is_off_wakes_nobody_early_and_nobody_late(
    monkeypatch: pytest.MonkeyPatch, off: float
) -> None:
    true_time = time.time
    monkeypatch.setattr(time, "time", lambda: true_time() + off)

    async with TestRuntime(__name__, poll_seconds=0.1) as runtime:
        began = time.monotonic()
        when = datetime.fromtimestamp(true_time() + 0.3, UTC)
        handles = [await sleep(runtime.context, 0.3), await receive(runtime.context, 0.3)]
        until = await sleep_until(runtime.context, when)
        async with asyncio.timeout(60):
            slept, received = [await handle.get_result() for handle in handles]
            woken = await until.get_result()
        took = time.monotonic() - began

    assert slept >= 0.3
    assert received is None
    assert woken >= when
    assert took >= 0.3


async def test_the_databases_clock_decides_for_workflows_that_are_parked(settable: TestRuntime) -> None:
    handle = await sleep(settable.context, HOUR)
    await parked(settable, handle.workflow_uuid)

    await set_clock_ahead(settable, HOUR + 1)

    assert HOUR <= await handle.get_result(timeout=60) < HOUR + 60


async def test_a_database_whose_clock_was_set_back_makes_nobody_wake_early(settable: TestRuntime) -> None:
    await set_clock_ahead(settable, HOUR)
    await settable.restart()
    handle = await sleep(settable.context, 2 * HOUR)
    await parked(settable, handle.workflow_uuid)

    await set_clock_ahead(settable, 0)
    await settable.restart()
    await set_clock_ahead(settable, 3 * HOUR - 60)
    found = await settable.fetchval("select wake_at > operon.clock() from operon.workflows where wait_kind is not null")
    status = await settable.context.retrieve_workflow(handle.workflow_uuid).get_status()
    await set_clock_ahead(settable, 3 * HOUR + 1)

    assert found
    assert status is not None
    assert not status.status.is_finished
    result = await settable.context.retrieve_workflow(handle.workflow_uuid).get_result(timeout=60)
    assert result >= 2 * HOUR
