"""Promise: behind PgBouncer in transaction mode everything works, or is refused at the start with what to do.

PgBouncer 1.18, Debian's, passes on no prepared statements and refuses settings in the start-up message. Five server
sessions are shared by all that goes through it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import asyncpg
import pytest

import operon
from operon.errors import DatabaseUnusable
from tests.postgres import workload
from tests.postgres.servers import Server, pgbouncer, postgres

HELD = """
    select a.application_name, l.* from pg_locks l join pg_stat_activity a using (pid)
    where l.locktype = 'advisory' and a.datname = current_database()
"""
TERMINATE = """
    select pg_terminate_backend(pid) from pg_stat_activity where datname = 'shop' order by random() limit 3
"""


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[Server]:
    async with postgres() as server:
        yield server


@pytest.fixture
async def database(server: Server) -> str:
    """An empty database with a ledger, as one gets there without a pooler."""
    await server.execute("drop database if exists shop with (force)")
    await server.execute("create database shop")
    url = server.url.replace("/postgres?", "/shop?")
    await workload.prepare(url)
    return url


@asynccontextmanager
async def pooled(server: Server, **settings: Any) -> AsyncGenerator[str]:
    """The same database through a pooler."""
    async with pgbouncer(server, **settings) as url:
        yield url.replace("/postgres?", "/shop?")


async def holds_its_lock(app: operon.Operon) -> None:
    """Waits until the executor has its session lock."""
    async with asyncio.timeout(60):
        while not app.executor.incarnation.lease.session_lock:  # noqa: ASYNC110 - a fact elsewhere rings no bell
            await asyncio.sleep(0.01)


async def assert_sessions_are_clean(url: str) -> None:
    """What the pooler's sessions have in them, asked in five transactions at a time, is what the server gave them."""
    async with AsyncExitStack() as stack:
        for _ in range(5):
            connection: Any = await asyncpg.connect(url, statement_cache_size=0)
            stack.push_async_callback(connection.close)
            await stack.enter_async_context(connection.transaction())
            for name in ("lock_timeout", "idle_in_transaction_session_timeout", "statement_timeout"):
                assert await connection.fetchval(f"select current_setting('{name}')") == "0"
            assert await connection.fetch("select * from pg_listening_channels()") == []
            prepared = await connection.fetch("select name from pg_prepared_statements where name <> ''")
            assert [row["name"] for row in prepared if not row["name"].startswith("__operon_")] == []
    connection = await asyncpg.connect(url, statement_cache_size=0)
    assert await connection.fetch(HELD) == []
    await connection.close()


async def test_with_a_direct_url_everything_happens_once(server: Server, database: str) -> None:
    async with pooled(server) as url:
        app = operon.Operon(workload, database_url=url, direct_url=database)

        async with app:
            await workload.run(app, 20)

            await holds_its_lock(app)
        await assert_sessions_are_clean(url)
    await workload.assert_once(database, 20)


async def test_without_notifications_nothing_needs_a_session_of_its_own(server: Server, database: str) -> None:
    async with pooled(server) as url:
        apps = [operon.Operon(workload, database_url=url, notify="off") for _ in range(3)]

        async with AsyncExitStack() as stack:
            # All at once: they migrate through the pooler, too.
            await asyncio.gather(*(stack.enter_async_context(app) for app in apps))
            await asyncio.gather(*(workload.run(app, 10) for app in apps))

            assert not any(app.executor.incarnation.lease.session_lock for app in apps)
        await assert_sessions_are_clean(url)
    await workload.assert_once(database, 30)


async def test_a_pooler_that_nobody_hears_through_is_refused_with_what_to_do(server: Server, database: str) -> None:
    async with pooled(server) as url:
        with pytest.raises(DatabaseUnusable, match="transaction mode") as refused:
            async with operon.Operon(workload, database_url=url):
                pass
        with pytest.raises(DatabaseUnusable, match="transaction mode"):
            async with operon.Operon(workload, database_url=url, direct_url=url):
                pass

    assert "direct_url" in str(refused.value.hint)
    assert "notify=off" in str(refused.value.hint)


async def test_a_pooler_of_whole_sessions_needs_no_other_way(server: Server, database: str) -> None:
    async with pooled(server, mode="session", default_pool_size=40) as url:
        app = operon.Operon(workload, database_url=url)

        async with app:
            await workload.run(app, 10)

            await holds_its_lock(app)
    await workload.assert_once(database, 10)


@pytest.mark.parametrize("direct", [True, False])
async def test_sessions_that_the_pooler_loses_are_weather(server: Server, database: str, direct: bool) -> None:
    ways: dict[str, Any] = {"direct_url": database} if direct else {"notify": "off"}
    async with pooled(server, server_login_retry=1) as url:
        app = operon.Operon(workload, database_url=url, **ways)
        async with app:
            number = app.executor.incarnation.number
            running = asyncio.create_task(workload.run(app, 30))

            for _ in range(10):
                await server.execute(TERMINATE)
                await asyncio.sleep(0.1)  # the interval of the fault
            await running

            assert app.executor.incarnation.number == number
    await workload.assert_once(database, 30)


@pytest.mark.parametrize("direct", [True, False])
async def test_what_a_killed_executor_ran_goes_on_elsewhere(server: Server, database: str, direct: bool) -> None:
    ways: dict[str, Any] = (
        {"direct_url": database} if direct else {"notify": "off", "lease_seconds": 2, "heartbeat_seconds": 0.5}
    )
    async with pooled(server) as url:
        app = operon.Operon(workload, database_url=url, **ways)
        async with app:
            handles = [await workload.everything(app.context()) for _ in range(20)]

            await app.executor.crash()
            await workload.finished(handles)
    await workload.assert_once(database, 20)
