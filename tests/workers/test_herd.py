"""Promise: eight executors that start at once on 20,000 ready workflows finish them, on as few connections as said."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from operon.cli.diagnosis import RUNTIME_CONNECTIONS
from operon.config import Settings
from operon.database import embedded, testbed
from tests.guarantees.executors.process import private_database, private_folder
from tests.workers.test_workers import started

WORKERS = 8
READY = "select count(operon.start('work', '{}')) from generate_series(1, 20000)"
CONNECTIONS = """
    select count(*), current_setting('max_connections')::int
    from pg_stat_activity where datname = current_database() and application_name = 'operon' and pid <> pg_backend_pid()
"""
LEFT = "select count(*) from operon.workflows where status = 0"


@pytest.mark.long
async def test_eight_executors_that_start_on_20000_ready_workflows_do_not_exhaust_the_connections() -> None:
    most = 0
    async with (
        private_folder() as folder,
        private_database(await embedded.start(folder, production=False)) as url,
    ):
        await testbed.fetch(url, READY)
        done = asyncio.Event()

        async def count() -> None:
            nonlocal most
            while not done.is_set():
                [(now, limit)] = await testbed.fetch(url, CONNECTIONS)
                most = max(most, now)
                assert now <= limit
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(done.wait(), 0.1)  # from one look to the next

        counting = asyncio.create_task(count())
        async with started(url, workers=WORKERS), asyncio.timeout(300):
            while (await testbed.fetch(url, LEFT))[0][0]:  # noqa: ASYNC110 - a row rings no bell
                await asyncio.sleep(0.2)  # between two looks at the rows
            [(finished, crashed)] = await testbed.fetch(
                url, "select count(*) filter (where status = 1), max(crash_count) from operon.workflows"
            )
            done.set()
            await counting

        print(f"{most} connections at most")
        assert (finished, crashed) == (20_000, 0)
        assert most <= WORKERS * (Settings().pool_size + RUNTIME_CONNECTIONS)
