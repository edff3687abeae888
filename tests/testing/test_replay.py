"""The replay check: a workflow that would not survive a crash is found without one, and shown step by step."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from itertools import count
from typing import Any

import pytest

import operon
from operon import CommunicatorContext, NondeterminismError, TransactionContext, WorkflowContext
from operon.handles import WorkflowHandle
from operon.testing import TestRuntime

called: list[str] = []
fresh = count()  # what no replay sees again


@operon.communicator
async def call(ctx: CommunicatorContext, what: str) -> str:
    called.append(what)
    return what


@operon.communicator(retry=None)
async def fail(ctx: CommunicatorContext) -> None:
    raise LookupError("there is nothing")


@operon.transaction
async def count_workflows(tx: TransactionContext) -> int:
    number: int = await tx.client.fetchval("select count(*) from operon.workflows")
    return number


@operon.workflow
async def child(ctx: WorkflowContext, number: int) -> int:
    await ctx.set_event("number", number)
    return number * 2


@operon.workflow
async def everything(ctx: WorkflowContext) -> set[str]:
    """One step of each kind, some of them at the same time."""
    _ = ctx.now(), ctx.uuid4(), ctx.random()
    await count_workflows(ctx)
    handle = await child(ctx, 21)
    event = await ctx.get_event(handle.workflow_uuid, "number")
    first, second = await asyncio.gather(call(ctx, "a"), call(ctx, "b"))
    with contextlib.suppress(LookupError):
        await fail(ctx)
    await ctx.sleep(0.01)
    await ctx.fetchval("select 1")
    message = await ctx.recv("letter", timeout=0)
    return {first, second, str(event), str(await handle.get_result()), str(message), *map(str, range(20))}


@operon.workflow
async def first_of_two(ctx: WorkflowContext) -> str:
    """A branch that is given up has no record of its answer."""
    async with asyncio.TaskGroup() as group:
        letter = group.create_task(ctx.recv("letter"))
        long = group.create_task(ctx.sleep(3600))
        await asyncio.wait({letter, long}, return_when=asyncio.FIRST_COMPLETED)
        long.cancel()
    return str(await letter) if not long.done() or long.cancelled() else "late"


async def a_sleep_and_a_call(ctx: WorkflowContext, seconds: float) -> str:
    await ctx.sleep(seconds)
    return await call(ctx, f"after {seconds}")


@operon.workflow
async def sleeps_side_by_side(ctx: WorkflowContext) -> list[str]:
    """The first branch does not sleep at all, so it calls its next step before the second one begins."""
    return list(await asyncio.gather(*(a_sleep_and_a_call(ctx, seconds) for seconds in (0, 0.01, 0.0))))


@operon.workflow
async def waits(ctx: WorkflowContext) -> None:
    await call(ctx, "before")
    await ctx.recv("letter")


@operon.workflow
async def raises(ctx: WorkflowContext) -> None:
    await call(ctx, "before")
    raise ValueError(f"as ever: {object()!r}")


@operon.workflow
async def other_outcome(ctx: WorkflowContext) -> int:
    await call(ctx, "same")
    return next(fresh)


@operon.workflow
async def other_error(ctx: WorkflowContext) -> int:
    raise ValueError(f"number {next(fresh)}")


@operon.workflow
async def other_step(ctx: WorkflowContext) -> None:
    await call(ctx, "first")
    if next(fresh) == 0:
        await count_workflows(ctx)
    else:
        await call(ctx, "second")


@operon.workflow
async def more_steps(ctx: WorkflowContext) -> None:
    for _ in range(1 + next(fresh)):
        await call(ctx, "again")


@operon.workflow
async def more_values(ctx: WorkflowContext) -> float:
    return sum(ctx.random() for _ in range(1 + next(fresh)))


@operon.workflow
async def fewer_steps(ctx: WorkflowContext) -> None:
    for _ in range(3 - next(fresh)):
        await call(ctx, "again")


@operon.workflow
async def by_chance(ctx: WorkflowContext) -> float:
    return random.random()


WRONG: list[tuple[Callable[[Any], Awaitable[WorkflowHandle[Any]]], str]] = [
    (other_outcome, "every step is the same, and the outcome is not"),
    (other_error, "every step is the same, and the outcome is not"),
    (other_step, "step 1 is now communicator 'call', but was recorded as transaction 'count_workflows'"),
    (more_steps, "the replay asks for step 1, communicator 'call', which was never recorded"),
    (more_values, "the replay asks for step 1, random 'random', which was never recorded"),
    (fewer_steps, "step 2 was recorded, and the replay ended before it"),
    (by_chance, "every step is the same, and the outcome is not"),
]


@pytest.fixture(autouse=True)
def again() -> None:
    global fresh
    fresh = count()
    called.clear()


@pytest.fixture
async def runtime() -> AsyncGenerator[TestRuntime]:
    async with TestRuntime(__name__, check_replay=False) as runtime:
        yield runtime


@pytest.mark.parametrize(("workflow", "what"), WRONG, ids=lambda it: getattr(it, "name", ""))
async def test_a_workflow_that_decides_by_what_is_not_recorded_is_found(
    runtime: TestRuntime, workflow: Callable[[Any], Awaitable[WorkflowHandle[Any]]], what: str
) -> None:
    handle = await workflow(runtime.context)
    with contextlib.suppress(ValueError):
        await handle.get_result()

    with pytest.raises(NondeterminismError) as caught:
        await runtime.check_replay()

    assert what in caught.value.message
    assert str(handle.workflow_uuid) in caught.value.message


async def test_the_difference_is_shown_step_by_step(runtime: TestRuntime) -> None:
    handle = await other_step(runtime.context)
    await handle.get_result()

    with pytest.raises(NondeterminismError) as caught:
        await runtime.check_replay()

    shown = caught.value.message.strip().splitlines()[3:]
    assert [line.rstrip() for line in shown] == [
        "  step  recorded                       replayed",
        "     0  communicator 'call'            communicator 'call'",
        ">    1  transaction 'count_workflows'  communicator 'call'",
        ">  end  SUCCESS null                   ERROR operon.errors.NondeterminismError: "
        + shown[-1].partition("NondeterminismError: ")[2],
    ]


async def test_one_of_every_step_comes_out_the_same_and_nothing_runs_again(runtime: TestRuntime) -> None:
    handle = await everything(runtime.context)
    await handle.get_result()
    await count_workflows(runtime.context)
    ran, rows = list(called), await everything_recorded(runtime)

    checked = await runtime.check_replay()

    assert checked == 3  # the parent, the child, the single step
    assert called == ran
    assert await everything_recorded(runtime) == rows


async def test_a_branch_that_was_given_up_is_no_difference(runtime: TestRuntime) -> None:
    handle = await first_of_two(runtime.context)
    await runtime.context.send(handle.workflow_uuid, "hello", "letter")
    assert await handle.get_result() == "hello"
    await runtime.advance(days=1)  # by now the long branch would be over

    assert await runtime.check_replay() == 1


async def test_a_sleep_that_was_none_is_no_difference(runtime: TestRuntime) -> None:
    handle = await sleeps_side_by_side(runtime.context)
    await handle.get_result()

    assert await runtime.check_replay() == 1


async def test_a_cancelled_workflow_is_replayed_as_far_as_it_came(runtime: TestRuntime) -> None:
    handle = await waits(runtime.context.using(timeout=60))
    await runtime.advance(minutes=2)
    with pytest.raises(operon.WorkflowTimeout):
        await handle.get_result()

    assert await runtime.check_replay() == 1


async def test_the_same_error_is_no_difference(runtime: TestRuntime) -> None:
    handle = await raises(runtime.context)
    with pytest.raises(ValueError, match="as ever"):
        await handle.get_result()

    assert await runtime.check_replay() == 1


async def test_the_check_is_made_at_the_end_of_the_runtime() -> None:
    with pytest.raises(NondeterminismError, match="other_outcome"):
        async with TestRuntime(__name__) as runtime:
            handle = await other_outcome(runtime.context)
            await handle.get_result()


async def test_a_test_that_failed_is_not_checked_as_well() -> None:
    with pytest.raises(AssertionError, match="this is what failed"):
        async with TestRuntime(__name__) as runtime:
            handle = await other_outcome(runtime.context)
            await handle.get_result()

            raise AssertionError("this is what failed")


async def test_the_check_may_be_switched_off() -> None:
    async with TestRuntime(__name__, check_replay=False) as runtime:
        handle = await other_outcome(runtime.context)

        assert await handle.get_result() == 0


async def everything_recorded(runtime: TestRuntime) -> list[Any]:
    rows = await runtime.fetch("select * from operon.workflows order by workflow_uuid")
    return rows + await runtime.fetch("select * from operon.checkpoints order by workflow_uuid, step")
