"""Two callers with one UUID at one moment, in one process or in two: both get the answer, and it happened once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

import operon
from operon.app import Operon
from operon.contexts import CommunicatorContext, InitializerContext, TransactionContext, WorkflowContext
from operon.testing import TestRuntime
from tests.acceptance.gates import gates

calls: Counter[str] = Counter()


@operon.initializer
async def tables(ctx: InitializerContext) -> None:
    await ctx.client.execute("create table if not exists marks (mark text not null)")


@operon.transaction
async def mark(tx: TransactionContext, name: str) -> str:
    calls[name] += 1
    await tx.client.execute("insert into marks (mark) values ($1)", name)
    await gates[name].pass_()
    return f"marked {name}"


@operon.transaction(read_only=True)
async def marks(tx: TransactionContext, name: str) -> int:
    calls[name] += 1
    await gates[name].pass_()
    found: int = await tx.client.fetchval("select count(*) from marks")
    return found


@operon.communicator
async def ring(ctx: CommunicatorContext, name: str) -> str:
    calls[name] += 1
    await gates[name].pass_()
    return f"rang {name}"


@operon.transaction
async def mark_at_once(tx: TransactionContext, name: str) -> int:
    calls[name] += 1
    await tx.client.execute("insert into marks (mark) values ($1)", name)
    return calls[name]


@operon.workflow
async def mark_and_ring(ctx: WorkflowContext, name: str) -> int:
    calls["body of " + name] += 1
    marked = await mark_at_once(ctx, name)
    await ring(ctx, "bell of " + name)
    return marked


@operon.workflow
async def ring_all(ctx: WorkflowContext, names: list[str]) -> list[str]:
    return list(await asyncio.gather(*(ring(ctx, name) for name in names)))


@pytest.fixture(scope="module")
async def runtime() -> AsyncIterator[TestRuntime]:
    async with TestRuntime(__name__, poll_seconds=0.2) as runtime:
        yield runtime


@pytest.fixture(scope="module")
async def neighbour(runtime: TestRuntime) -> AsyncIterator[Operon]:
    """A second executor on the same database."""
    async with Operon(__name__, database_url=runtime.database_url, poll_seconds=0.2) as neighbour:
        yield neighbour


async def test_two_transactions_of_one_uuid_at_once_are_one_and_both_callers_get_its_value(
    runtime: TestRuntime,
) -> None:
    ctx = runtime.app.context(workflow_uuid=uuid4())

    async with asyncio.TaskGroup() as group:
        first = group.create_task(mark(ctx, "once"))
        await gates["once"].reached.wait()
        second = group.create_task(mark(ctx, "once"))
        gates["once"].open()

    assert first.result() == second.result() == "marked once"
    assert calls["once"] == 1
    assert await runtime.fetchval("select count(*) from marks where mark = 'once'") == 1


async def test_two_read_only_transactions_of_one_uuid_at_once_both_succeed(runtime: TestRuntime) -> None:
    ctx = runtime.app.context(workflow_uuid=uuid4())

    async with asyncio.TaskGroup() as group:
        first = group.create_task(marks(ctx, "looked"))
        await gates["looked"].reached.wait()
        second = group.create_task(marks(ctx, "looked"))
        gates["looked"].open()

    assert first.result() == second.result()
    assert calls["looked"] == 1


async def test_two_communicators_of_one_uuid_at_once_are_one_and_both_callers_get_its_value(
    runtime: TestRuntime,
) -> None:
    ctx = runtime.app.context(workflow_uuid=uuid4())

    async with asyncio.TaskGroup() as group:
        first = group.create_task(ring(ctx, "bell"))
        await gates["bell"].reached.wait()
        second = group.create_task(ring(ctx, "bell"))
        gates["bell"].open()

    assert first.result() == second.result() == "rang bell"
    assert calls["bell"] == 1


async def test_a_second_start_in_the_middle_of_the_first_attaches_to_it_and_runs_no_step_again(
    runtime: TestRuntime,
) -> None:
    ctx = runtime.app.context(workflow_uuid=uuid4())
    first = await mark_and_ring(ctx, "middle")
    await gates["bell of middle"].reached.wait()

    second = await mark_and_ring(ctx, "middle")
    gates["bell of middle"].open()

    assert await first.get_result() == await second.get_result() == 1
    assert calls["body of middle"] == 1
    assert calls["middle"] == 1


async def test_a_start_in_another_executor_attaches_to_the_one_that_runs_here(
    runtime: TestRuntime, neighbour: Operon
) -> None:
    uuid = uuid4()
    first = await mark_and_ring(runtime.app.context(workflow_uuid=uuid), "here")
    await gates["bell of here"].reached.wait()

    second = await mark_and_ring(neighbour.context(workflow_uuid=uuid), "here")
    gates["bell of here"].open()

    assert await first.get_result() == await second.get_result() == 1
    assert calls["body of here"] == 1


async def test_twenty_starts_of_one_uuid_in_two_executors_at_once_are_one_workflow(
    runtime: TestRuntime, neighbour: Operon
) -> None:
    uuid = uuid4()
    gates["bell of crowd"].open()
    contexts = [app.context(workflow_uuid=uuid) for app in (runtime.app, neighbour)] * 10

    async def start(ctx: operon.ApplicationContext) -> int:
        return await (await mark_and_ring(ctx, "crowd")).get_result()

    results = await asyncio.gather(*(start(ctx) for ctx in contexts))

    assert results == [1] * 20
    assert (calls["body of crowd"], calls["crowd"], calls["bell of crowd"]) == (1, 1, 1)


async def test_steps_gathered_in_a_workflow_run_at_once_and_replay_in_their_places(runtime: TestRuntime) -> None:
    names = ["gathered a", "gathered b", "gathered c"]
    handle = await ring_all(runtime.context, names)
    for name in names:
        await gates[name].reached.wait()
    gates["gathered b"].open()
    steps = "select count(*) from operon.checkpoints where workflow_uuid = $1"
    while await runtime.fetchval(steps, handle.workflow_uuid) < 1:
        await asyncio.sleep(0)

    await runtime.crash()
    gates["gathered a"].open()
    gates["gathered c"].open()

    assert await handle.get_result() == [f"rang {name}" for name in names]
    assert calls["gathered b"] == 1
    assert calls["gathered a"] == calls["gathered c"] == 2
