"""Time that passes at once: whatever is due on the way is woken in its turn, in memory or parked."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta

import anyio
import pytest

import operon
from operon import CommunicatorContext, RecvTimeout, WorkflowContext, WorkflowTimeout
from operon.errors import InvocationError, OperonError
from operon.status import Status
from operon.testing import TestRuntime

DAY = 86_400.0

told: list[str] = []
gate = anyio.Event()


@operon.communicator
async def tell(ctx: CommunicatorContext, what: str) -> None:
    told.append(what)


@operon.communicator(retry=operon.Retry(max_attempts=3, interval_seconds=3600))
async def insist(ctx: CommunicatorContext) -> int:
    if ctx.attempt < 3:
        raise ConnectionError("nobody answers")
    return ctx.attempt


@operon.communicator
async def hang(ctx: CommunicatorContext) -> None:
    await gate.wait()


@operon.workflow
async def remind(ctx: WorkflowContext, who: str, days: int, every: float) -> float:
    began = ctx.now()
    for day in range(days):
        await ctx.sleep(every)
        await tell(ctx, f"{who} {day}")
    return (ctx.now() - began).total_seconds()


@operon.workflow
async def wait_for_payment(ctx: WorkflowContext, timeout: float) -> str | None:
    answer: str | None = await ctx.recv("payment", timeout)
    return answer


@operon.workflow
async def require_payment(ctx: WorkflowContext) -> str:
    paid: str = await ctx.recv("payment", DAY, required=True)
    return paid


@operon.workflow
async def until(ctx: WorkflowContext, when: datetime) -> datetime:
    await ctx.sleep_until(when)
    return ctx.now()


@operon.workflow
async def persist(ctx: WorkflowContext) -> int:
    return await insist(ctx)


@operon.workflow
async def stuck(ctx: WorkflowContext) -> None:
    await hang(ctx)


@pytest.fixture(params=[False, True], ids=["in memory", "parked"])
async def runtime(request: pytest.FixtureRequest) -> AsyncGenerator[TestRuntime]:
    told.clear()
    async with TestRuntime(__name__, evict_always=request.param) as runtime:
        yield runtime


async def test_a_sleep_of_days_is_over_when_they_have_passed(runtime: TestRuntime) -> None:
    handle = await remind(runtime.context, "Ada", 1, 3 * DAY)

    await runtime.advance(days=2)
    early = list(told)
    await runtime.advance(days=1)

    assert early == []
    assert told == ["Ada 0"]
    assert 3 * DAY <= await handle.get_result() < 3 * DAY + 60


async def test_what_sleeps_again_and_again_wakes_each_time(runtime: TestRuntime) -> None:
    handle = await remind(runtime.context, "Ada", 3, DAY)

    await runtime.advance(days=3, minutes=1)

    assert told == ["Ada 0", "Ada 1", "Ada 2"]
    assert 3 * DAY <= await handle.get_result() < 3 * DAY + 60


async def test_sleepers_wake_in_the_order_of_their_deadlines(runtime: TestRuntime) -> None:
    await remind(runtime.context, "often", 3, DAY)
    await remind(runtime.context, "seldom", 1, 2.5 * DAY)

    await runtime.advance(days=4)

    assert told == ["often 0", "often 1", "seldom 0", "often 2"]


async def test_a_recv_gives_up_when_its_time_has_passed(runtime: TestRuntime) -> None:
    patient = await wait_for_payment(runtime.context, 3 * DAY)
    strict = await require_payment(runtime.context)

    await runtime.advance(days=1)

    with pytest.raises(RecvTimeout):
        await strict.get_result()
    await runtime.context.send(patient.workflow_uuid, "42 EUR", "payment")
    assert await patient.get_result() == "42 EUR"


async def test_a_workflow_is_cancelled_when_its_timeout_has_passed(runtime: TestRuntime) -> None:
    handle = await wait_for_payment(runtime.context.using(timeout=DAY), 3 * DAY)

    await runtime.advance(days=2)

    with pytest.raises(WorkflowTimeout):
        await handle.get_result()
    status = await handle.get_status()
    assert status is not None
    assert status.status is Status.CANCELLED


async def test_the_database_and_the_workflow_agree_on_the_time(runtime: TestRuntime) -> None:
    when = datetime.now(UTC) + timedelta(days=400)
    handle = await until(runtime.context, when)

    await runtime.advance(days=401)

    assert when <= await handle.get_result() < when + timedelta(minutes=1)
    assert await runtime.fetchval("select operon.clock() - clock_timestamp() between '400 days' and '402 days'")


async def test_the_pauses_between_attempts_pass_too(runtime: TestRuntime) -> None:
    handle = await persist(runtime.context)

    await runtime.advance(days=1)

    assert await handle.get_result() == 3


async def test_a_crash_does_not_put_the_clock_back(runtime: TestRuntime) -> None:
    handle = await remind(runtime.context, "Ada", 1, 3 * DAY)
    await runtime.advance(days=2)

    await runtime.crash()
    await runtime.advance(days=1)

    assert told == ["Ada 0"]
    assert await handle.get_result() >= 3 * DAY


async def test_time_passes_wherever_it_crashes(runtime: TestRuntime) -> None:
    async for _crash in runtime.crash_everywhere():
        told.clear()
        handle = await remind(runtime.context, "Ada", 2, DAY)

        await runtime.advance(days=2, minutes=1)

        assert list(dict.fromkeys(told)) == ["Ada 0", "Ada 1"]  # once again where the crash came before the record
        assert await handle.get_result() >= 2 * DAY


async def test_a_step_that_runs_is_named_when_it_keeps_time_from_passing() -> None:
    async with TestRuntime(__name__) as runtime:
        handle = await stuck(runtime.context)

        with pytest.raises(OperonError, match=f"stuck {handle.workflow_uuid}"):
            await runtime.settled(timeout=0.05)

        gate.set()
        await runtime.settled()
        await handle.get_result()


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
async def test_time_only_goes_forward(seconds: float) -> None:
    async with TestRuntime(__name__) as runtime:
        with pytest.raises((InvocationError, ValueError)):
            await runtime.advance(seconds=seconds)
