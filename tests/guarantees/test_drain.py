"""Promise: a shutdown interrupts nothing that has begun, and what is unfinished goes on elsewhere at once.

At once means: without waiting for a lease or a lock, because the executor that goes says so. The executors that take
over have a poll of an hour and a lease of two, so a second is not luck.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

import operon
from operon.database import testbed
from operon.testing import TestRuntime
from tests.guarantees.executors.process import executor, private_database, until
from tests.guarantees.executors.witness import witness

PATIENT: dict[str, Any] = {"poll_seconds": 3_600, "lease_seconds": 7_200, "heartbeat_seconds": 1_800}


class Work:
    """What goes on inside the communicator of a test."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.calls: list[str] = []
        self.inside = asyncio.Event()
        self.may_return = asyncio.Event()


WORK = Work()


@operon.communicator(retry=None)
async def slow(ctx: operon.CommunicatorContext, name: str) -> str:
    WORK.calls.append(name)
    WORK.inside.set()
    await WORK.may_return.wait()
    return f"{name} done"


@operon.transaction
async def book(tx: operon.TransactionContext) -> int:
    WORK.inside.set()
    await WORK.may_return.wait()
    answer: int = await tx.client.fetchval("select 1")
    return answer


@operon.workflow
async def two_calls(ctx: operon.WorkflowContext) -> list[str]:
    return [await slow(ctx, "first"), await slow(ctx, "second")]


@operon.workflow
async def books(ctx: operon.WorkflowContext) -> list[Any]:
    return [await book(ctx), await slow(ctx, "after")]


@pytest.fixture
async def runtime() -> AsyncIterator[TestRuntime]:
    WORK.reset()
    async with TestRuntime(__name__, poll_seconds=0.2) as runtime:
        yield runtime


async def leave(runtime: TestRuntime) -> asyncio.Task[None]:
    """Begins to leave the application, as the end of `async with app` does."""
    leaving = asyncio.create_task(runtime.app.__aexit__(None, None, None))
    while not runtime.executor.incarnation.draining:  # noqa: ASYNC110 - a fact elsewhere rings no bell
        await asyncio.sleep(0)
    return leaving


async def steps(runtime: TestRuntime) -> list[tuple[int, str]]:
    return [tuple(row) for row in await runtime.fetch("select step, name from operon.checkpoints order by step")]


async def test_a_call_in_flight_ends_and_is_recorded_and_the_next_is_made_elsewhere(runtime: TestRuntime) -> None:
    handle = await two_calls(runtime.context)
    await WORK.inside.wait()

    leaving = await leave(runtime)
    assert not leaving.done()
    WORK.may_return.set()
    await leaving

    assert WORK.calls == ["first"]
    assert await steps(runtime) == [(0, "slow")]
    assert await runtime.fetch("select status, owner from operon.workflows") == [(0, None)]

    await runtime.app.__aenter__()

    later = runtime.context.retrieve_workflow(handle.workflow_uuid)
    assert await later.get_result(timeout=60) == ["first done", "second done"]
    assert WORK.calls == ["first", "second"]


async def test_a_transaction_in_flight_commits(runtime: TestRuntime) -> None:
    handle = await books(runtime.context)
    await WORK.inside.wait()

    leaving = await leave(runtime)
    WORK.may_return.set()
    await leaving

    assert await steps(runtime) == [(0, "book")]
    await runtime.app.__aenter__()
    later = runtime.context.retrieve_workflow(handle.workflow_uuid)
    assert await later.get_result(timeout=60) == [1, "after done"]


async def test_a_workflow_that_is_asked_for_while_it_drains_is_refused_with_words(runtime: TestRuntime) -> None:
    await two_calls(runtime.context)
    await WORK.inside.wait()

    leaving = await leave(runtime)
    with pytest.raises(operon.ExecutorStopped) as caught:
        await two_calls(runtime.context)
    WORK.may_return.set()
    await leaving

    assert caught.value.hint is not None
    assert await runtime.fetchval("select count(*) from operon.workflows") == 1
    await runtime.app.__aenter__()


async def test_who_waits_for_a_result_is_told_that_this_process_stops(runtime: TestRuntime) -> None:
    handle = await two_calls(runtime.context)
    waiting = asyncio.create_task(handle.get_result())
    await WORK.inside.wait()

    leaving = await leave(runtime)
    WORK.may_return.set()
    await leaving

    with pytest.raises(operon.ExecutorStopped):
        await asyncio.wait_for(waiting, 60)
    await runtime.app.__aenter__()


async def test_another_executor_takes_over_at_once(runtime: TestRuntime) -> None:
    other = operon.Operon(__name__, database_url=runtime.database_url, **PATIENT)
    handle = await two_calls(runtime.context)
    await WORK.inside.wait()

    async with other:
        leaving = await leave(runtime)
        WORK.may_return.set()
        await leaving
        result = await other.context().retrieve_workflow(handle.workflow_uuid).get_result(timeout=60)
        status = await other.context().retrieve_workflow(handle.workflow_uuid).get_status()

    assert result == ["first done", "second done"]
    assert WORK.calls == ["first", "second"]
    assert status is not None
    assert status.attempts == 2
    assert await runtime.fetchval("select max(crash_count) from operon.workflows") == 0
    await runtime.app.__aenter__()


async def test_a_process_that_is_told_to_go_ends_its_calls_and_hands_over_the_rest() -> None:
    async with private_database() as url, witness() as seen, AsyncExitStack() as stack:
        going = await stack.enter_async_context(executor(url, seen.port))
        staying = await stack.enter_async_context(executor(url, seen.port, **PATIENT))
        await going.post("/round_trips/10")
        await seen.seen(10)

        going.terminate()
        seen.release.set()
        code = await asyncio.wait_for(going.ended(), 60)
        await until(url, "select count(*) = 10 from operon.workflows where status = 1")

        assert code == 0
        assert set(seen.times.values()) == {1}  # ten ways there, ten ways back, none of them twice
        assert len(seen.times) == 20
        assert {call.pid for call in seen.calls[:10]} == {going.pid}
        left = await testbed.fetch(url, "select count(*) from operon.workflows where crash_count > 0")
        assert left == [(0,)]
        assert {call.pid for call in seen.calls} <= {going.pid, staying.pid}
