"""Promise: a client that goes away at any moment takes nothing with it: no connection, no transaction, no workflow."""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import pytest

import operon
from operon.database.pool import Pool
from operon.testing import TestRuntime


@operon.initializer
async def tables(ctx: operon.InitializerContext) -> None:
    await ctx.client.execute("create table if not exists ledger (workflow_uuid uuid not null)")


@operon.communicator(retry=None)
async def call(ctx: operon.CommunicatorContext) -> str:
    await asyncio.sleep(0)
    return "called"


@operon.transaction
async def book(tx: operon.TransactionContext) -> int:
    await tx.client.execute("insert into ledger values ($1)", tx.workflow_uuid)
    count: int = await tx.client.fetchval("select count(*) from ledger where workflow_uuid = $1", tx.workflow_uuid)
    return count


@operon.workflow
async def errand(ctx: operon.WorkflowContext) -> int:
    await call(ctx)
    booked = await book(ctx)
    await ctx.execute("select 1")
    return booked


@pytest.fixture
async def runtime() -> AsyncIterator[TestRuntime]:
    async with TestRuntime(__name__, poll_seconds=0.2, pool_size=4) as runtime:
        yield runtime


async def client(runtime: TestRuntime, rng: random.Random) -> None:
    """A request of one kind or another, as a handler makes them."""
    ctx = runtime.context
    match rng.randint(0, 4):
        case 0:
            await (await errand(ctx)).get_result()
        case 1:
            await book(ctx)
        case 2:
            await call(ctx)
        case 3:
            named = ctx.using(workflow_uuid=runtime.executor.incarnation.new_uuid())
            await (await errand(named)).get_result(timeout=60)
        case _:
            handle = await errand(ctx)
            await handle.get_status()
            await ctx.retrieve_workflow(handle.workflow_uuid).get_result()


@pytest.mark.long
async def test_five_hundred_clients_that_go_away_take_nothing_with_them(runtime: TestRuntime) -> None:
    rng = random.Random(20_231)
    gone = 0
    while gone < 500:
        clients = [asyncio.create_task(client(runtime, rng)) for _ in range(rng.randint(1, 8))]
        for _ in range(rng.randint(0, 60)):
            await asyncio.sleep(0)
        for one in clients:
            gone += one.cancel()
        await asyncio.gather(*clients, return_exceptions=True)

    await runtime.settled(60)  # before, a start may be under way that the database knows nothing of
    async with asyncio.timeout(60):
        while await runtime.fetchval("select count(*) from operon.workflows where status = 0"):  # noqa: ASYNC110 - a fact elsewhere rings no bell
            await asyncio.sleep(0.05)

    incarnation = runtime.executor.incarnation
    assert await runtime.fetchval("select count(*) from operon.workflows where status <> 1") == 0
    assert await runtime.fetchval("select count(*) from operon.workflows") > 100
    assert await runtime.fetch("select 1 from ledger group by workflow_uuid having count(*) > 1") == []
    assert await runtime.fetchval(WITHOUT_LEDGER) == 0
    assert await runtime.fetchval(IN_TRANSACTION) == 0
    assert incarnation.live == {}
    for pool in (pool_of(runtime, "_transactions"), pool_of(runtime, "_look_ups")):
        assert " 0 used" in repr(pool)
        assert " 0 waiting" in repr(pool)
    assert await book(runtime.context) == 1


async def test_a_start_that_nobody_waits_for_any_more_and_is_fenced_leaves_no_complaint(
    runtime: TestRuntime, caplog: pytest.LogCaptureFixture
) -> None:
    incarnation = runtime.executor.incarnation
    await runtime.execute("update operon.executors set state = 2")
    one = asyncio.create_task(client_of(runtime, uuid4()))
    # Unless it has heard that it is dead before: then the client is helped by the next one at once.
    while not incarnation.spawner.starting and runtime.executor.incarnation is incarnation:  # noqa: ASYNC110
        await asyncio.sleep(0)

    one.cancel()
    del one
    async with asyncio.timeout(60):
        while runtime.executor.incarnation is incarnation or incarnation.spawner.starting:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    gc.collect()

    assert "never retrieved" not in caplog.text
    assert await book(runtime.context) == 1


async def client_of(runtime: TestRuntime, workflow_uuid: UUID) -> None:
    await errand(runtime.context.using(workflow_uuid=workflow_uuid))


def pool_of(runtime: TestRuntime, name: str) -> Pool:
    pool: Pool = getattr(runtime.executor, name)
    return pool


# Every transaction that is recorded is in the ledger.
WITHOUT_LEDGER = """
    select count(*) from operon.checkpoints c
    where c.name = 'book' and not exists (select from ledger l where l.workflow_uuid = c.workflow_uuid)
"""

IN_TRANSACTION = """
    select count(*) from pg_stat_activity
    where datname = current_database() and state like 'idle in transaction%'
"""
