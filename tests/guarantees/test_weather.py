"""Promise: a database that goes away is weather. No step fails of it, nothing runs twice, no process has to restart.

The ledger has no unique key, so a second commit of one step would be a second row. What is asked at the end: every
workflow finished, every step is in the ledger once, and no step was recorded as an error.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import asyncpg
import pytest

import operon
from operon.database import embedded, testbed
from operon.testing import FOLDER, SERVER, TestRuntime
from tests.guarantees.executors.proxy import FATES, cutting_proxy

CALLS: Counter[str] = Counter()


@operon.initializer
async def tables(ctx: operon.InitializerContext) -> None:
    await ctx.client.execute("create table if not exists ledger (workflow_uuid uuid not null, entry text not null)")


@operon.communicator(retry=None)
async def call(ctx: operon.CommunicatorContext) -> str:
    CALLS[ctx.idempotency_key] += 1
    return "called"


@operon.transaction
async def book(tx: operon.TransactionContext, entry: str) -> str:
    await tx.client.execute("insert into ledger values ($1, $2)", tx.workflow_uuid, entry)
    return entry


@operon.transaction(isolation="READ COMMITTED")
async def book_twice(tx: operon.TransactionContext, entry: str) -> int:
    await tx.client.execute("insert into ledger values ($1, $2)", tx.workflow_uuid, f"{entry}-a")
    await tx.client.execute("insert into ledger values ($1, $2)", tx.workflow_uuid, f"{entry}-b")
    return 2


@operon.transaction
async def book_behind_the_gate(tx: operon.TransactionContext) -> str:
    await tx.client.execute("select pg_advisory_xact_lock_shared(1)")
    await tx.client.execute("insert into ledger values ($1, 'passed')", tx.workflow_uuid)
    return "passed"


@operon.transaction(read_only=True)
async def look(tx: operon.TransactionContext) -> int:
    count: int = await tx.client.fetchval("select count(*) from ledger where workflow_uuid = $1", tx.workflow_uuid)
    return count


@operon.workflow
async def calls(ctx: operon.WorkflowContext) -> list[str]:
    return [await call(ctx), await call(ctx), await call(ctx)]


@operon.workflow
async def books(ctx: operon.WorkflowContext) -> int:
    await book(ctx, "first")
    await call(ctx)
    await book_twice(ctx, "second")
    return await look(ctx)


@operon.workflow
async def passes(ctx: operon.WorkflowContext) -> str:
    return await book_behind_the_gate(ctx)


@operon.workflow
async def statements(ctx: operon.WorkflowContext) -> str:
    await ctx.execute("insert into ledger values ($1, $2)", ctx.workflow_uuid, "one")
    return await ctx.execute("insert into ledger values ($1, $2)", ctx.workflow_uuid, "two")


@operon.workflow
async def collects(ctx: operon.WorkflowContext) -> list[int]:
    """Everything it is sent until it is sent nothing."""
    found: list[int] = []
    while (number := await ctx.recv("numbers")) is not None:
        found.append(number)
    return found


RESULTS: dict[str, Any] = {"calls": ["called"] * 3, "books": 3, "statements": "INSERT 0 1"}
ENTRIES = {"calls": 0, "books": 3, "statements": 2}


class Workers:
    """Tasks that start one workflow after another until they are told to stop."""

    def __init__(self, runtime: TestRuntime) -> None:
        self._runtime = runtime
        self._stop = False
        self.results: list[tuple[str, Any]] = []

    async def __aenter__(self) -> Workers:
        self._tasks = [asyncio.create_task(self._work(n)) for n in range(9)]
        return self

    async def __aexit__(self, *_exc: object) -> None:
        self._stop = True
        async with asyncio.timeout(60):
            await asyncio.gather(*self._tasks)

    async def _work(self, number: int) -> None:
        workflow: Any = (calls, books, statements)[number % 3]
        while not self._stop:
            handle = await workflow(self._runtime.context)
            self.results.append((workflow.name, await handle.get_result()))
            await handle.get_status()  # an end is told a moment before it is durable
            await asyncio.sleep(0)


async def assert_nothing_happened(runtime: TestRuntime, workers: Workers, caplog: pytest.LogCaptureFixture) -> None:
    """The weather is over: everything is as if there had been none, and no actor had to be restarted for it."""
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []
    assert [found for name, found in workers.results if found != RESULTS[name]] == []
    assert await runtime.fetchval("select count(*) from operon.workflows where status <> 1") == 0
    assert await runtime.fetchval("select count(*) from operon.checkpoints where error is not null") == 0
    assert (
        await runtime.fetch("select entry, count(*) from ledger group by workflow_uuid, entry having count(*) > 1")
        == []
    )
    finished = Counter(name for name, _ in workers.results)
    assert await runtime.fetchval("select count(*) from ledger") == sum(
        ENTRIES[name] * finished[name] for name in finished
    )
    assert min(finished.values()) >= 3  # of each kind some: the weather was not all there was


@pytest.mark.long
async def test_sessions_that_are_terminated_again_and_again_cost_nothing(caplog: pytest.LogCaptureFixture) -> None:
    CALLS.clear()
    async with TestRuntime(__name__, poll_seconds=0.2) as runtime:
        number = runtime.executor.incarnation.number
        server = os.environ.get(SERVER) or await testbed.embedded_server(FOLDER)
        admin = await asyncpg.connect(server)
        database = await runtime.fetchval("select current_database()")
        terminated = 0

        async with Workers(runtime) as workers:
            async with asyncio.timeout(240):
                while terminated < 150:
                    terminated += len(await admin.fetch(TERMINATE_ONE, database))
                    await asyncio.sleep(0.05)  # the interval of the fault

        await assert_nothing_happened(runtime, workers, caplog)
        assert runtime.executor.incarnation.number == number  # not even a new incarnation
        assert max(CALLS.values()) == 1
        await admin.close()


TERMINATE_ONE = """
    select pg_terminate_backend(pid) from (
        select pid from pg_stat_activity where datname = $1 and application_name = 'operon'
        order by random() limit 1
    ) as victim
"""


async def crash_server(url: str) -> None:
    """`pg_ctl stop -m immediate`: what the server does on a power failure, all but the power."""
    connection = await asyncpg.connect(url)
    pid = int((await connection.fetchval("select pg_read_file('postmaster.pid')")).split()[0])
    os.kill(pid, signal.SIGQUIT)
    with suppress(Exception):
        await connection.close()
    async with asyncio.timeout(60):
        while True:
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                return
            await asyncio.sleep(0.01)


@pytest.mark.long
async def test_a_server_that_crashes_and_comes_back_costs_nothing(
    own_server: Path, caplog: pytest.LogCaptureFixture
) -> None:
    CALLS.clear()
    url = await embedded.start(own_server, production=False)
    async with TestRuntime(__name__, database_url=url, poll_seconds=0.2) as runtime:
        number = runtime.executor.incarnation.number

        async with Workers(runtime) as workers:
            for _ in range(3):
                done = len(workers.results)
                async with asyncio.timeout(60):
                    while len(workers.results) < done + 30:  # noqa: ASYNC110 - a fact elsewhere rings no bell
                        await asyncio.sleep(0.01)
                await crash_server(url)
                assert await embedded.start(own_server, production=False) == url

        await assert_nothing_happened(runtime, workers, caplog)
        assert runtime.executor.incarnation.number == number
        assert max(CALLS.values()) == 1


@pytest.mark.long
@pytest.mark.parametrize("seed", range(3))
async def test_a_connection_cut_at_its_commit_has_committed_once_or_not_at_all(
    seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    CALLS.clear()
    server = os.environ.get(SERVER) or await testbed.embedded_server(FOLDER)
    async with (
        cutting_proxy(server, seed) as (url, proxy),
        TestRuntime(__name__, database_url=url, poll_seconds=0.2, pool_size=4) as runtime,
    ):
        number = runtime.executor.incarnation.number
        proxy.share = 0.2

        async with Workers(runtime) as workers, asyncio.timeout(240):
            while not all(proxy.cuts[cut] >= 3 for cut in ALL_CUTS):  # noqa: ASYNC110 - a fact elsewhere rings no bell
                await asyncio.sleep(0.01)
        proxy.share = 0.0

        await assert_nothing_happened(runtime, workers, caplog)
        assert runtime.executor.incarnation.number == number
        assert max(CALLS.values()) == 1


async def test_when_all_connections_are_cut_at_their_commits_each_finds_out_what_became_of_it() -> None:
    async with TestRuntime(__name__, pool_size=2) as runtime:
        gate = await asyncpg.connect(runtime.database_url)
        await gate.execute("select pg_advisory_lock(1)")
        handles = [await passes(runtime.context) for _ in range(2)]
        await both_wait(runtime, "select pg_advisory_xact_lock_shared%")
        async with gate.transaction():
            await gate.execute("select from operon.workflows for update; select pg_advisory_unlock(1)")
            for row in await both_wait(runtime, "%; commit"):
                await gate.execute("select pg_terminate_backend($1)", row["pid"])
        await gate.close()

        assert [await handle.get_result(timeout=20) for handle in handles] == ["passed", "passed"]
        assert await runtime.fetchval("select count(*) from ledger") == 2


async def both_wait(runtime: TestRuntime, what: str) -> list[asyncpg.Record]:
    """The two sessions that wait for a lock in such a statement."""
    async with asyncio.timeout(60):
        while True:
            if len(found := await runtime.fetch(WAITING, what)) == 2:
                return found


WAITING = """
    select pid from pg_stat_activity
    where datname = current_database() and wait_event_type = 'Lock' and query like $1
"""


@pytest.mark.parametrize("seed", range(3))
async def test_a_message_from_outside_arrives_once_although_connections_are_cut_at_its_commit(seed: int) -> None:
    server = os.environ.get(SERVER) or await testbed.embedded_server(FOLDER)
    async with (
        cutting_proxy(server, seed) as (url, proxy),
        TestRuntime(__name__, database_url=url) as runtime,
    ):
        handle = await collects(runtime.context)
        proxy.share = 0.4
        sent = 0
        async with asyncio.timeout(120):
            while proxy.cuts["flush late"] < 3 or sent < 20:
                await runtime.context.send(handle.workflow_uuid, sent, "numbers")
                sent += 1
        proxy.share = 0.0
        await runtime.context.send(handle.workflow_uuid, None, "numbers")

        assert await handle.get_result() == list(range(sent))
        assert await runtime.fetchval("select count(*) from operon.notifications") == 0
        assert await runtime.fetchval("select count(*) from operon.dead_letters") == 0


ALL_CUTS = [f"{what} {fate}" for what in ("commit", "flush") for fate in FATES]
