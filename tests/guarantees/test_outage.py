"""Promise: an outage of the database that is longer than every lease costs nothing but the time.

Four executors run 200 workflows; the server is away for three leases. Everybody's lease runs out, and nobody may draw a
conclusion from that: no executor is declared dead, no workflow spends of its budget, and everything finishes.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

import operon
from operon.database import embedded
from operon.testing import TestRuntime

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


@pytest.fixture
async def own_server() -> AsyncIterator[Path]:
    """A folder for a server of this test's own, which it may stop."""
    folder = Path(tempfile.mkdtemp(prefix="operon-outage-", dir="/tmp"))
    yield folder
    await asyncio.to_thread(embedded.EmbeddedPostgres(folder).remove)


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
