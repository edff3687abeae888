"""One UUID, one run: a repeated start gives the recorded answer, and a replay asks nothing a second time."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from datetime import datetime
from uuid import UUID, uuid4

import pytest

import operon
from operon.contexts import CommunicatorContext, InitializerContext, TransactionContext, WorkflowContext
from operon.status import Status
from operon.testing import TestRuntime
from tests.acceptance.gates import Gates

calls: Counter[str] = Counter()
gates = Gates()


@operon.initializer
async def tables(ctx: InitializerContext) -> None:
    await ctx.client.execute("create table if not exists entries (entry text not null)")


@operon.communicator
async def charge(ctx: CommunicatorContext, card: str) -> int:
    calls[card] += 1
    return calls[card]


@operon.communicator
async def stop_at(ctx: CommunicatorContext, gate: str) -> None:
    await gates[gate].pass_()


@operon.transaction
async def enter(tx: TransactionContext, entry: str) -> int:
    calls[entry] += 1
    await tx.client.execute("insert into entries (entry) values ($1)", entry)
    entries: int = await tx.client.fetchval("select count(*) from entries where entry = $1", entry)
    return entries


@operon.workflow
async def buy(ctx: WorkflowContext, card: str) -> int:
    calls["body of " + card] += 1
    return await charge(ctx, card)


@operon.workflow
async def square(ctx: WorkflowContext, number: int) -> int:
    calls["square"] += 1
    return number * number


@operon.workflow
async def square_by_a_child(ctx: WorkflowContext, number: int) -> tuple[UUID, int]:
    handle = await square(ctx, number)
    return handle.workflow_uuid, await handle.get_result()


@operon.workflow
async def look_then_stop(ctx: WorkflowContext, other: UUID, gate: str) -> tuple[bool, Status | None]:
    """Looks for a workflow, stops, and tells what it saw before."""
    seen = await ctx.retrieve_workflow(other).get_status()
    await stop_at(ctx, gate)
    return seen is None, None if seen is None else seen.status


@operon.workflow
async def look_at_a_child(ctx: WorkflowContext, child_gate: str, gate: str) -> Status | None:
    child = await stopping(ctx, child_gate)
    seen = await child.get_status()
    await stop_at(ctx, gate)
    return None if seen is None else seen.status


@operon.workflow
async def stopping(ctx: WorkflowContext, gate: str) -> None:
    await stop_at(ctx, gate)


@operon.workflow
async def everything(ctx: WorkflowContext, name: str) -> list[str]:
    """One of each step that has happened before the crash, told afterwards."""
    told: list[object] = [ctx.now(), ctx.uuid4(), ctx.random()]
    told.append(await enter(ctx, name))
    told.append(await charge(ctx, name + " card"))
    told.append(await ctx.fetchval("insert into entries (entry) values ($1) returning entry", name + " by sql"))
    child = await square(ctx, 7)
    told.append(child.workflow_uuid)
    told.append(await child.get_result())
    calls["told " + name] += 1
    await stop_at(ctx, name)
    return [str(one) for one in told]


@pytest.fixture(scope="module")
async def runtime() -> AsyncIterator[TestRuntime]:
    async with TestRuntime(__name__, poll_seconds=0.2) as runtime:
        yield runtime


async def test_a_communicator_of_a_workflow_runs_once_for_each_uuid(runtime: TestRuntime) -> None:
    first, second = uuid4(), uuid4()

    results = [
        await (await buy(runtime.app.context(workflow_uuid=uuid), "visa")).get_result()
        for uuid in (first, first, second, first, second)
    ]

    assert results == [1, 1, 2, 1, 2]
    assert calls["visa"] == 2
    assert calls["body of visa"] == 2


async def test_ten_workflows_started_again_by_the_uuids_of_their_handles_give_the_same_results(
    runtime: TestRuntime,
) -> None:
    first = [await square(runtime.context, number) for number in range(10)]
    results = [await handle.get_result() for handle in first]
    ran = calls["square"]

    again = [
        await square(runtime.app.context(workflow_uuid=handle.workflow_uuid), number)
        for number, handle in enumerate(first)
    ]

    assert [await handle.get_result() for handle in again] == results == [number**2 for number in range(10)]
    assert calls["square"] == ran


async def test_a_child_is_the_same_child_when_its_parent_is_started_again(runtime: TestRuntime) -> None:
    ctx = runtime.app.context(workflow_uuid=uuid4())

    child, result = await (await square_by_a_child(ctx, 12)).get_result()
    again = await (await square_by_a_child(ctx, 12)).get_result()

    assert again == (child, result) == (child, 144)
    assert await runtime.context.retrieve_workflow(child).get_result() == 144


async def test_a_single_transaction_runs_once_for_each_uuid(runtime: TestRuntime) -> None:
    ctx = runtime.app.context(workflow_uuid=uuid4())

    results = [await enter(ctx, "single") for _ in range(3)]

    assert results == [1, 1, 1]
    assert calls["single"] == 1
    assert await runtime.fetchval("select count(*) from entries where entry = 'single'") == 1


async def test_a_replay_answers_as_at_first_that_a_workflow_is_unknown_though_it_exists_by_now(
    runtime: TestRuntime,
) -> None:
    other = uuid4()
    early = await look_then_stop(runtime.context, other, "early")
    await gates["early"].reached.wait()
    done = await square(runtime.app.context(workflow_uuid=other), 3)
    await done.get_result()
    await done.get_status()  # when its end is recorded, too, which the crash would undo

    await runtime.crash()
    gates["early"].open()
    gates["late"].open()
    late = await look_then_stop(runtime.context, other, "late")

    assert await early.get_result() == (True, None)
    assert await late.get_result() == (False, Status.SUCCESS)


async def test_a_replay_sees_its_child_in_the_status_that_it_saw_at_first(runtime: TestRuntime) -> None:
    parent = await look_at_a_child(runtime.context, "child at first", "parent at first")
    await gates["parent at first"].reached.wait()
    gates["child at first"].open()

    await runtime.crash()
    gates["parent at first"].open()

    assert await parent.get_result() is Status.PENDING


async def test_nothing_that_was_recorded_before_a_crash_happens_again_after_it(runtime: TestRuntime) -> None:
    handle = await everything(runtime.context, "all")
    await gates["all"].reached.wait()
    before = calls["square"]

    await runtime.crash()
    gates["all"].open()
    told = await handle.get_result()

    assert told[3:6] == ["1", "1", "all by sql"]
    assert told[7] == "49"
    assert datetime.fromisoformat(told[0]).tzinfo is not None
    assert calls["told all"] == 2  # the body did run twice
    assert (calls["all"], calls["all card"], calls["square"]) == (1, 1, before)
    assert await runtime.fetchval("select count(*) from entries where entry like 'all%'") == 2
    again = await everything(runtime.app.context(workflow_uuid=handle.workflow_uuid), "all")
    assert await again.get_result() == told
