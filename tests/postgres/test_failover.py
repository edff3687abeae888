"""Promise: when a standby is promoted under load, executors with both servers in their URL go on there alone."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

import operon
from tests.postgres import workload
from tests.postgres.servers import Server, as_somebody, execute, own_folder, postgres, programs

SYNCHRONOUS = "select count(*) from pg_stat_replication where sync_state = 'sync'"


async def standby_of(primary: Server, folder: Path) -> Server:
    """A running standby, whose commits the primary waits for from now on."""
    standby = Server(folder / "standby")
    source = f"host=127.0.0.1 port={primary.port} user=boss application_name=standby"
    await asyncio.to_thread(
        as_somebody, programs() / "pg_basebackup", "-D", standby.data, "-d", source, "-R", "-X", "stream", "-c", "fast"
    )
    await standby.start()
    await primary.execute("alter system set synchronous_standby_names = 'standby'")
    await primary.execute("select pg_reload_conf()")
    async with asyncio.timeout(60):
        while not await workload.value(primary.url, SYNCHRONOUS):  # noqa: ASYNC110 - a row rings no bell
            await asyncio.sleep(0.05)
    return standby


@pytest.mark.long
async def test_a_standby_that_is_promoted_under_load_takes_over_alone() -> None:
    async with postgres() as primary, own_folder() as folder:
        await workload.prepare(primary.url)
        standby = await standby_of(primary, folder)
        url = (
            f"postgresql://boss@127.0.0.1:{primary.port},127.0.0.1:{standby.port}/postgres"
            "?sslmode=disable&target_session_attrs=read-write"
        )
        app = operon.Operon(workload, database_url=url)
        try:
            async with app:
                handles = [await workload.everything(app.context()) for _ in range(100)]

                await primary.stop(signal.SIGQUIT)
                await execute(standby.url, "select pg_promote()")
                handles += [await workload.everything(app.context()) for _ in range(20)]
                await workload.finished(handles)
            await workload.assert_once(standby.url, 120)
        finally:
            await standby.stop()
