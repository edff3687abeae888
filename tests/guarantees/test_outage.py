"""Promise: an outage of the database that is longer than every lease costs nothing but the time.

Four executors run 200 workflows; the server is away for three leases. Everybody's lease runs out, and nobody may draw a
conclusion from that: no executor is declared dead, no workflow spends of its budget, and everything finishes. Whoever
asked from outside of any workflow is not kept waiting for all of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

import operon
from operon.database import embedded
from operon.runtime import executor, patience
from operon.testing import TestRuntime
from tests.guarantees.executors.process import until as until_true

EXECUTORS = 4
WORKFLOWS = 200
LEASE_SECONDS = 2.0
QUICK: dict[str, Any] = {"lease_seconds": LEASE_SECONDS, "heartbeat_seconds": 0.5, "poll_seconds": 0.5, "pool_size": 4}

MAY_GO_ON = asyncio.Event()


@operon.initializer
async def tables(ctx: operon.InitializerContext) -> None:
    await ctx.client.execute("create table if not exists ledger (workflow_uuid uuid not null, entry text not null)")


@operon.communicator(retry=None)
async def hold(ctx: operon.CommunicatorContext) -> str:
    await MAY_GO_ON.wait()
    return "held"


@operon.transaction
async def book(tx: operon.TransactionContext, entry: str) -> str:
    await tx.client.execute("insert into ledger values ($1, $2)", tx.workflow_uuid, entry)
    return entry


@operon.workflow
async def trade(ctx: operon.WorkflowContext) -> list[str]:
    """Books until the outage, waits in the middle of it, and books again."""
    first = [await book(ctx, f"before-{number}") for number in range(3)]
    await hold(ctx)
    return first + [await book(ctx, f"after-{number}") for number in range(3)]


@pytest.mark.long
async def test_an_outage_of_three_leases_costs_four_executors_and_200_workflows_nothing(own_server: Path) -> None:
    MAY_GO_ON.clear()
    url = await embedded.start(own_server, production=False)
    async with TestRuntime(__name__, database_url=url, **QUICK) as runtime, AsyncExitStack() as stack:
        others = [operon.Operon(__name__, database_url=runtime.database_url, **QUICK) for _ in range(EXECUTORS - 1)]
        for other in others:
            await stack.enter_async_context(other)
        apps = [runtime.app, *others]
        numbers = [app.executor.incarnation.number for app in apps]
        handles = [await trade(apps[number % EXECUTORS].context()) for number in range(WORKFLOWS)]

        await embedded.stop(own_server)
        MAY_GO_ON.set()
        await asyncio.sleep(3 * LEASE_SECONDS)  # the outage
        assert await embedded.start(own_server, production=False) == url
        async with asyncio.timeout(60):
            results = await asyncio.gather(*(handle.get_result() for handle in handles))
            await asyncio.gather(*(handle.get_status() for handle in handles))

        assert all(len(result) == 6 for result in results)
        assert [app.executor.incarnation.number for app in apps] == numbers
        assert await runtime.fetch(
            "select status, max(crash_count), max(epoch) from operon.workflows group by status"
        ) == [(1, 0, 1)]
        assert await runtime.fetchval("select count(*) from ledger") == WORKFLOWS * 6
        assert await runtime.fetchval("select count(distinct (workflow_uuid, entry)) from ledger") == WORKFLOWS * 6
        assert await runtime.fetchval("select count(*) from operon.executors where state = 2") == 0


@operon.workflow
async def hears(ctx: operon.WorkflowContext) -> list[str]:
    return [await ctx.recv("words", required=True) for _ in range(2)]


@operon.workflow
async def greets(ctx: operon.WorkflowContext, name: str) -> str:
    return f"hello {name}"


async def test_a_caller_from_outside_is_told_of_a_long_outage_and_what_was_asked_for_happens_once(
    own_server: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "PATIENCE_SECONDS", 0.3)
    url = await embedded.start(own_server, production=False)
    async with TestRuntime(__name__, database_url=url, **QUICK) as runtime:
        ctx, chosen = runtime.context, uuid4()
        hearing = await hears(ctx)
        await embedded.stop(own_server)

        asked: list[Callable[[], Coroutine[Any, Any, object]]] = [
            lambda: greets(ctx.using(workflow_uuid=chosen), "ada"),
            lambda: ctx.send(hearing.workflow_uuid, "once", "words", idempotency_key="first"),
            lambda: greets(ctx, "bob"),
        ]
        async with asyncio.timeout(20):
            told = await asyncio.gather(*(ask() for ask in asked), return_exceptions=True)
        await embedded.start(own_server, production=False)
        async with asyncio.timeout(60):
            for ask in asked[:2]:
                await ask()
            await ctx.send(hearing.workflow_uuid, "twice", "words")

            assert [type(answer) for answer in told] == [operon.DatabaseUnavailable] * 3
            assert str(chosen) in str(told[0])
            assert await hearing.get_result() == ["once", "twice"]
            assert await ctx.retrieve_workflow(chosen).get_result() == "hello ada"
            until = "select count(*) = 2 and bool_and(status = 1) from operon.workflows where name = 'greets'"
            await until_true(runtime.database_url, until)


async def test_a_caller_is_told_when_an_executor_that_was_declared_dead_cannot_register_anew(
    own_server: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor, "PATIENCE_SECONDS", 0.3)
    url = await embedded.start(own_server, production=False)
    async with TestRuntime(__name__, database_url=url, **QUICK) as runtime:
        await embedded.stop(own_server)
        runtime.executor.incarnation.fence()

        async with asyncio.timeout(20):
            with pytest.raises(operon.DatabaseUnavailable, match="could not register anew"):
                await greets(runtime.context, "ada")

        await embedded.start(own_server, production=False)
        async with asyncio.timeout(60):
            assert await (await greets(runtime.context, "ada")).get_result() == "hello ada"
