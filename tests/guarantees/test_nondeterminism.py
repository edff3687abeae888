"""Promise: a history that the code does not follow stops its workflow, loses nothing, and is never retried in a loop.

Each workflow here asks `CODE` what to do, so that a test can change "the code" between two lives of one workflow, as a
deployment would.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any
from uuid import UUID

import pytest

import operon
from operon.testing import TestRuntime


class Code:
    """What is deployed: the steps that the workflows take, and whether `hold` still holds."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.plan: list[str] = []
        self.holds = True
        self.rng = random.Random(0)
        self.entered = asyncio.Event()  # somebody is inside `hold`


CODE = Code()


@operon.communicator(retry=None)
async def charge(ctx: operon.CommunicatorContext) -> str:
    return "charged"


@operon.communicator(retry=None)
async def release(ctx: operon.CommunicatorContext) -> str:
    return "released"


@operon.transaction
async def book(tx: operon.TransactionContext) -> str:
    return "booked"


@operon.communicator(retry=None)
async def hold(ctx: operon.CommunicatorContext) -> str:
    """The step that the first life of every workflow dies in."""
    if CODE.holds:
        CODE.entered.set()
        await asyncio.Event().wait()
    return "held"


STEPS: dict[str, Callable[[operon.WorkflowContext], Any]] = {
    "charge": lambda ctx: charge(ctx),
    "release": lambda ctx: release(ctx),
    "book": lambda ctx: book(ctx),
    "hold": lambda ctx: hold(ctx),
    "now": lambda ctx: asyncio.sleep(0, ctx.now().isoformat()),
}


@operon.workflow
async def follow(ctx: operon.WorkflowContext) -> list[str]:
    return [await STEPS[step](ctx) for step in list(CODE.plan)]


@operon.workflow
async def bystander(ctx: operon.WorkflowContext) -> str:
    with suppress(Exception):  # whatever goes wrong is none of its business
        await STEPS[CODE.plan[0]](ctx)
    return await charge(ctx)


@pytest.fixture
async def runtime() -> AsyncIterator[TestRuntime]:
    CODE.reset()
    async with TestRuntime(__name__, poll_seconds=0.2) as runtime:
        yield runtime


async def lives_twice(runtime: TestRuntime, first: list[str], then: list[str]) -> operon.WorkflowHandle[Any]:
    """Runs `first` until its `hold`, crashes there, and lets the code be `then` for the next life."""
    CODE.plan = first
    handle: operon.WorkflowHandle[Any] = await follow(runtime.context)
    await CODE.entered.wait()
    CODE.plan = then
    CODE.holds = False
    await runtime.crash()
    return handle


async def recorded(runtime: TestRuntime, workflow_uuid: UUID) -> list[tuple[Any, ...]]:
    return [
        tuple(row)
        for row in await runtime.fetch(
            "select step, kind, name, output, error from operon.checkpoints where workflow_uuid = $1 order by step",
            workflow_uuid,
        )
    ]


@pytest.mark.parametrize(
    ("first", "then", "asked", "was"),
    [
        pytest.param(["charge", "hold"], ["release", "hold"], "release", "charge", id="another name"),
        pytest.param(
            ["charge", "hold"], ["book", "hold"], "transaction 'book'", "communicator 'charge'", id="another kind"
        ),
        pytest.param(["charge", "hold"], ["now", "hold"], "now", "charge", id="a helper for a step"),
        pytest.param(["charge", "book", "hold"], ["charge"], "the end of the workflow", "book", id="fewer steps"),
        pytest.param(["charge", "book", "hold"], [], "the end of the workflow", "charge", id="no steps"),
        pytest.param(["charge", "book", "hold"], ["charge", "release", "book"], "release", "book", id="more steps"),
        pytest.param(["charge", "book", "hold"], ["book", "charge"], "book", "charge", id="reordered"),
    ],
)
async def test_code_that_asks_for_another_step_is_stopped_with_both_named(
    runtime: TestRuntime, first: list[str], then: list[str], asked: str, was: str
) -> None:
    handle = await lives_twice(runtime, first, then)
    before = await recorded(runtime, handle.workflow_uuid)

    with pytest.raises(operon.NondeterminismError) as caught:
        await handle.get_result(timeout=60)
    status = await handle.get_status()

    message = str(caught.value)
    assert asked in message
    assert was in message
    assert str(handle.workflow_uuid) in message
    assert "Hint" in message
    assert status is not None
    assert status.status is operon.Status.DEAD
    assert before != []
    assert await recorded(runtime, handle.workflow_uuid) == before  # nothing lost, nothing added


async def test_a_workflow_that_was_stopped_is_not_tried_again(runtime: TestRuntime) -> None:
    handle = await lives_twice(runtime, ["charge", "hold"], ["release"])
    with pytest.raises(operon.NondeterminismError):
        await handle.get_result(timeout=60)
    stopped = await handle.get_status()

    await runtime.restart()
    later = await runtime.context.retrieve_workflow(handle.workflow_uuid).get_status()
    CODE.plan = ["charge"]
    other = await follow(runtime.context)  # recovery has looked, and there was nothing for it

    assert await other.get_result(timeout=60) == ["charged"]
    assert later == stopped


async def test_code_that_swallows_the_error_is_stopped_all_the_same(runtime: TestRuntime) -> None:
    CODE.plan = ["hold"]
    handle = await bystander(runtime.context)
    await CODE.entered.wait()
    await runtime.execute(
        "insert into operon.checkpoints (workflow_uuid, step, kind, name, output) values ($1, 0, 1, 'release', '1')",
        handle.workflow_uuid,
    )

    await runtime.crash()

    with pytest.raises(operon.NondeterminismError):
        await handle.get_result(timeout=60)
    assert len(await recorded(runtime, handle.workflow_uuid)) == 1


async def test_the_error_is_the_same_for_whoever_asks_later(runtime: TestRuntime) -> None:
    handle = await lives_twice(runtime, ["charge", "hold"], ["release"])
    with pytest.raises(operon.NondeterminismError) as first:
        await handle.get_result(timeout=60)

    await runtime.restart()
    with pytest.raises(operon.NondeterminismError) as second:
        await runtime.context.retrieve_workflow(handle.workflow_uuid).get_result(timeout=60)

    assert str(second.value) == str(first.value)


@operon.communicator(retry=None)
async def fetch(ctx: operon.CommunicatorContext, place: str) -> str:
    """Answers after a pause that nobody could foresee, so that every life sees another order."""
    for _ in range(CODE.rng.randint(0, 12)):
        await asyncio.sleep(0)
    return place


@operon.transaction
async def store(tx: operon.TransactionContext, place: str) -> str:
    stored: str = await tx.client.fetchval("select $1::text", place)
    return stored


async def branch(ctx: operon.WorkflowContext, name: str, steps: int) -> list[str]:
    """Steps one after another; each is given its place, so an answer in the wrong place is seen."""
    found: list[str] = []
    for number in range(steps):
        place = f"{name}{number}"
        match number % 3:
            case 0:
                found.append(await fetch(ctx, place))
            case 1:
                found.append(await ctx.fetchval("select $1::text", place))
            case _:
                found.append(await store(ctx, place))
    return found


async def nested(ctx: operon.WorkflowContext, name: str) -> list[list[str]]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(branch(ctx, f"{name}.{n}.", n + 1)) for n in range(2)]
    last = await branch(ctx, f"{name}.last.", 2)
    return [*(task.result() for task in tasks), last]


@operon.workflow
async def in_parallel(ctx: operon.WorkflowContext) -> list[Any]:
    gathered = await asyncio.gather(branch(ctx, "a", 3), nested(ctx, "b"), branch(ctx, "c", 1))
    async with asyncio.TaskGroup() as group:  # somebody has to own the racers when the workflow is taken down
        racers = [group.create_task(branch(ctx, f"r{n}.", 2)) for n in range(3)]
        order = [(await first)[0] for first in asyncio.as_completed(racers)]
    return [*gathered, sorted(order), await fetch(ctx, "end")]


CROWDS_MAX = 10
RECORDED = "select count(*) from operon.checkpoints where step >= 0"
EXPECTED: list[Any] = [
    ["a0", "a1", "a2"],
    [["b.0.0"], ["b.1.0", "b.1.1"], ["b.last.0", "b.last.1"]],
    ["c0"],
    ["r0.0", "r1.0", "r2.0"],
    "end",
]


@pytest.mark.long
async def test_concurrent_steps_replay_the_same_wherever_they_crash(runtime: TestRuntime) -> None:
    async for crash in runtime.crash_everywhere():
        CODE.rng.seed(crash)
        handle = await in_parallel(runtime.context)

        assert await handle.get_result(timeout=60) == EXPECTED


async def test_concurrent_steps_of_many_workflows_replay_the_same_after_several_crashes(runtime: TestRuntime) -> None:
    CODE.rng.seed(7)

    # On a busy machine the crashes may come all at once; then some more have to be taken over again and again.
    for crowd in range(1, CROWDS_MAX + 1):
        handles = [await in_parallel(runtime.context) for _ in range(20)]
        for count in range(crowd * 300 - 260, crowd * 300 - 20, 40):
            while await runtime.fetchval(RECORDED) < count:  # noqa: ASYNC110 - a fact elsewhere rings no bell
                await asyncio.sleep(0)
            await runtime.crash()
        assert await asyncio.gather(*(handle.get_result(timeout=60) for handle in handles)) == [EXPECTED] * 20
        await asyncio.gather(*(handle.get_status() for handle in handles))  # told a moment before it is durable
        if await runtime.fetchval("select max(epoch) from operon.workflows") > 2:
            break
    else:
        pytest.fail("nobody was taken over twice")

    assert await runtime.fetchval("select count(*) from operon.workflows where status <> 1") == 0
