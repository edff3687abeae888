"""Promise: behind PgBouncer in transaction mode everything works, or is refused at the start with what to do.

PgBouncer 1.18, Debian's, passes on no prepared statements and refuses settings in the start-up message. Five server
sessions are shared by all that goes through it.
"""

from __future__ import annotations

import asyncpg
import pytest

import operon
from tests.postgres import workload
from tests.postgres.servers import Server, execute, pgbouncer, postgres


@pytest.fixture(scope="module")
async def server():
    async with postgres() as server:
        yield server


@pytest.fixture
async def database(server: Server):
    await server.execute("drop database if exists shop with (force)")
    await server.execute("create database shop")
    url = server.url.replace("/postgres?", "/shop?")
    await workload.prepare(url)
    yield url


async def test_with_a_direct_url_everything_happens_once(server: Server, database: str) -> None:
    async with pgbouncer(server) as pooled:
        url = pooled.replace("/postgres?", "/shop?")
        app = operon.Operon(workload, database_url=url, direct_url=database)

        async with app:
            await workload.run(app, 20)

            assert app.executor.incarnation.lease.session_lock
    await workload.assert_once(database, 20)
