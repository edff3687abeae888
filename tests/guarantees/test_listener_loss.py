"""Promise: notifications only make it fast. Where they are lost, or not heard at all, everything still arrives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import pytest

from operon.database.connection import connect
from operon.testing import TestRuntime
from tests.guarantees.executors import correspondents
from tests.guarantees.executors.process import executor

pytestmark = pytest.mark.long

POLL_SECONDS = 0.5
# Ends the listening sessions of all executors of a database, known by what they last said.
TERMINATE_LISTENERS = r"""
    select pg_terminate_backend(pid) from pg_stat_activity
    where datname = current_database() and application_name = 'operon'
        and query ~* '^(listen|notify) |pg_try_advisory_lock\('
"""


async def test_listening_sessions_that_are_terminated_all_the_time_cost_no_message_and_little_time() -> None:
    """For twenty seconds, every 200 ms, in both processes, while sixteen workflows send to eight."""
    receivers, count, pause_seconds = 8, 200, 0.1
    async with (
        TestRuntime(correspondents, poll_seconds=POLL_SECONDS, park_after_seconds=0.3) as runtime,
        executor(runtime.database_url, 0, "correspondents", poll_seconds=POLL_SECONDS) as sender,
    ):
        handles = [await correspondents.measure(runtime.context, 2 * count) for _ in range(receivers)]
        destinations = [str(handle.workflow_uuid) for handle in handles]

        async with terminating(runtime) as terminated:
            await sender.post("/dispatches", destinations=destinations * 2, count=count, pause_seconds=pause_seconds)
            async with asyncio.timeout(120):
                results = await asyncio.gather(*(handle.get_result() for handle in handles))

        took = sorted(seconds for result in results for seconds in result)
        assert len(took) == 2 * count * receivers
        print(f"{terminated[0]} terminated, 99 of 100 came in {took[len(took) * 99 // 100]:.2f} s")
        assert terminated[0] >= 100  # of 200: two listeners, five times a second, but now and then one was just away
        assert took[len(took) * 99 // 100] < POLL_SECONDS + 0.5
        assert await runtime.fetchval("select count(*) from operon.notifications") == 0
        assert await runtime.fetchval("select max(epoch) from operon.workflows") == 1  # nobody was taken for dead


@asynccontextmanager
async def terminating(runtime: TestRuntime) -> AsyncGenerator[list[int]]:
    """Ends listening sessions, every 200 ms; gives how many so far."""
    count = [0]
    connection = await connect(runtime.database_url, {"application_name": "the fault"})

    async def run() -> None:
        while True:
            count[0] += len(await connection.fetch(TERMINATE_LISTENERS))
            await asyncio.sleep(0.2)  # the interval of the fault

    task = asyncio.create_task(run())
    try:
        yield count
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await connection.close()


async def test_without_notifications_messages_events_and_ends_arrive_in_another_process() -> None:
    off: dict[str, Any] = {"notify": "off"}
    async with (
        TestRuntime(correspondents, park_after_seconds=0, **off) as runtime,
        executor(runtime.database_url, 0, "correspondents", **off) as elsewhere,
    ):
        context = runtime.context
        catchers = [await correspondents.catch(context, 10) for _ in range(5)]
        repliers = [await correspondents.reply(context, 5) for _ in range(5)]
        ends = [UUID(uuid) for uuid in await elsewhere.post("/ends", count=5, spread_seconds=0.1)]
        await elsewhere.post("/throws", catchers=uuids(catchers), rounds=10, spread_seconds=0.01)
        await elsewhere.post("/asks", repliers=uuids(repliers), rounds=5, spread_seconds=0.01)
        awaiting = await correspondents.await_ends(context, ends)

        async with asyncio.timeout(60):
            caught = await asyncio.gather(*(handle.get_result() for handle in catchers))
            replied = await asyncio.gather(*(handle.get_result() for handle in repliers))
            ended = await awaiting.get_result()

        assert caught == [list(range(10))] * 5
        assert replied == [list(range(5))] * 5
        assert ended == list(range(5))


def uuids(handles: list[Any]) -> list[str]:
    return [str(handle.workflow_uuid) for handle in handles]
