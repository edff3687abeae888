"""Monitors and ends meet at row locks: of two that come at the same moment one is first, and the other one sees it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import asyncpg

from operon.database import monitors

START = "insert into operon.workflows (workflow_uuid, name, version, inputs) values ($1, 'w', '', '{}')"
PARK = "update operon.workflows set wait_kind = 0, wait_topics = '{operon.down}' where workflow_uuid = $1"
CANCEL = 'select operon.cancel($1, \'{"type":"E","module":"m","message":"no"}\')'
WAITS = "select wait_event_type = 'Lock' from pg_stat_activity where pid = $1"


@asynccontextmanager
async def connections(database: str) -> AsyncGenerator[tuple[Any, Any, Any]]:
    """Two that meet, and one that looks on."""
    opened = [await asyncpg.connect(database) for _ in range(3)]
    try:
        yield opened[0], opened[1], opened[2]
    finally:
        for connection in opened:
            await connection.close()


async def workflows(connection: Any) -> tuple[UUID, UUID]:
    target, watcher = uuid4(), uuid4()
    await connection.executemany(START, [(target,), (watcher,)])
    return target, watcher


async def waits_or_is_done(onlooker: Any, connection: Any, task: asyncio.Task[Any]) -> None:
    pid = connection.get_server_pid()
    async with asyncio.timeout(60):
        while not task.done() and not await onlooker.fetchval(WAITS, pid):  # noqa: ASYNC110 - a lock rings no bell
            await asyncio.sleep(0.005)


async def test_a_workflow_that_is_just_ending_is_not_missed_by_who_monitors_it(database: str) -> None:
    async with connections(database) as (first, second, onlooker):
        target, watcher = await workflows(onlooker)
        transaction = first.transaction()
        await transaction.start()
        await first.execute(CANCEL, target)
        said = asyncio.ensure_future(monitors.monitor(second, uuid4(), target, watcher, None))
        await waits_or_is_done(onlooker, second, said)

        await transaction.commit()

        assert await said == "down"
        assert await onlooker.fetchval("select destination from operon.notifications") == watcher
        assert await onlooker.fetchval("select count(*) from operon.monitors") == 0


async def test_a_watcher_that_is_just_parking_is_woken_by_an_end(database: str) -> None:
    async with connections(database) as (first, second, onlooker):
        target, watcher = await workflows(onlooker)
        assert await monitors.monitor(onlooker, uuid4(), target, watcher, None) == "monitoring"
        transaction = first.transaction()
        await transaction.start()
        await first.execute("select from operon.workflows where workflow_uuid = $1 for update", watcher)
        await first.execute(PARK, watcher)
        cancelled = asyncio.ensure_future(second.fetchval(CANCEL, target))
        await waits_or_is_done(onlooker, second, cancelled)

        await transaction.commit()

        assert await cancelled == [target]
        assert await onlooker.fetchval("select woke from operon.notifications") is True


async def test_the_two_ends_of_a_monitor_end_at_once(database: str) -> None:
    """Both take the same row away; neither waits for the other for ever, and nothing is left."""
    async with connections(database) as (first, second, onlooker):
        target, watcher = await workflows(onlooker)
        for ref, ends in ((uuid4(), (target, watcher)), (uuid4(), (watcher, target))):
            assert await monitors.monitor(onlooker, ref, *ends, None) == "monitoring"
        transaction = first.transaction()
        await transaction.start()
        await first.execute("update operon.workflows set status = 1, output = '1' where workflow_uuid = $1", target)
        await first.fetchval("select operon.wake(0, array[$1::uuid], null)", target)
        cancelled = asyncio.ensure_future(second.fetchval(CANCEL, watcher))
        await waits_or_is_done(onlooker, second, cancelled)

        await transaction.commit()

        assert await cancelled == [watcher]
        assert await onlooker.fetchval("select count(*) from operon.monitors") == 0
