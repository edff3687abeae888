"""Promise: a lock that somebody holds on the runtime's tables delays what needs it, and takes nothing away."""

from __future__ import annotations

import asyncio
import logging

import asyncpg
import pytest

import operon
from operon.testing import TestRuntime

# Whether the statement waits for the lock as a transaction of its own.
WAITS_ALONE = """
    select exists (
        select from pg_stat_activity
        where datname = current_database() and wait_event_type = 'Lock' and query like '%operon_checkpoint%'
    )
"""


@operon.initializer
async def tables(ctx: operon.InitializerContext) -> None:
    await ctx.client.execute("create table if not exists ledger (workflow_uuid uuid not null, entry text not null)")


@operon.workflow
async def one_statement(ctx: operon.WorkflowContext) -> str:
    return await ctx.execute("insert into ledger values ($1, 'only')", ctx.workflow_uuid)


async def test_a_statement_whose_flush_met_a_lock_happens_once(caplog: pytest.LogCaptureFixture) -> None:
    async with TestRuntime(__name__) as runtime:
        locking = await asyncpg.connect(runtime.database_url)
        async with locking.transaction():
            await locking.execute("lock table operon.checkpoints in exclusive mode")
            handle = await one_statement(runtime.context)
            # The statement has run, and the flush that it is part of has given up waiting: its transaction is gone.
            async with asyncio.timeout(60):
                while not await runtime.fetchval(WAITS_ALONE):  # noqa: ASYNC110 - a row rings no bell
                    await asyncio.sleep(0.01)
        result = await asyncio.wait_for(handle.get_result(), 60)
        await locking.close()

        assert result == "INSERT 0 1"
        assert await runtime.fetch("select entry from ledger") == [("only",)]
        assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
