"""Promise: a killed process' work moves within seconds, and a living process' work never moves at all.

Executors are `operon start` in processes of their own, in the default configuration. What they do to the world is
counted by a witness outside, so that nothing which a database rolls back or repeats can hide a second call.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from contextlib import AsyncExitStack

import pytest

from operon.database import testbed
from operon.database.executors import SESSION_LOCK
from operon.status import CODES, Status
from tests.guarantees.executors.process import executor, private_database, until
from tests.guarantees.executors.witness import witness

pytestmark = pytest.mark.long

SUCCESS = CODES[Status.SUCCESS]
PENDING = CODES[Status.PENDING]
ERRANDS = 20

FINISHED = "select count(*) = $1 from operon.workflows where status = 1"
# Each of them has renewed its lease: its first look for work is behind it, and others since.
RENEWED = """
    select count(*) = $1 from operon.executors where state = 0 and lease_until > started_at + interval '14 seconds'
"""


async def test_processes_that_start_beside_a_living_one_take_nothing_from_it() -> None:
    async with private_database() as url, witness() as seen, AsyncExitStack() as stack:
        owner = await stack.enter_async_context(executor(url, seen.port))
        await owner.post(f"/errands/{ERRANDS}")
        await seen.seen(ERRANDS)

        began = time.monotonic()
        await asyncio.gather(*(stack.enter_async_context(executor(url, seen.port)) for _ in range(2)))
        await until(url, RENEWED, 3)
        await asyncio.sleep(max(0.0, began + 5 - time.monotonic()))  # the five seconds that the call takes
        seen.release.set()
        await until(url, FINISHED, ERRANDS)

        assert len(seen.calls) == ERRANDS
        assert {call.pid for call in seen.calls} == {owner.pid}
        assert await testbed.fetch(url, "select distinct epoch, crash_count from operon.workflows") == [(1, 0)]


async def test_the_work_of_a_killed_process_moves_within_three_seconds() -> None:
    async with private_database() as url, witness() as seen, AsyncExitStack() as stack:
        owner = await stack.enter_async_context(executor(url, seen.port))
        await asyncio.gather(*(stack.enter_async_context(executor(url, seen.port)) for _ in range(2)))
        await owner.post(f"/errands/{ERRANDS}")
        await seen.seen(ERRANDS)
        await until(url, LOCK_SEEN, SESSION_LOCK, owner.pid)

        killed = time.monotonic()
        owner.kill()
        taken_over = [call.at - killed for call in (await seen.seen(2 * ERRANDS))[ERRANDS:]]
        seen.release.set()
        await until(url, FINISHED, ERRANDS)

        print(f"moved in {statistics.median(taken_over):.2f} s")
        assert statistics.median(taken_over) <= 3.0
        assert set(seen.times.values()) == {2}  # once by the one that died, once by the one that took over
        assert await testbed.fetch(url, "select distinct epoch from operon.workflows") == [(2,)]


# The owner's session lock is held and its peers know that it counts.
LOCK_SEEN = """
    select e.session_locked_at is not null and exists (
        select from pg_locks l
        where l.locktype = 'advisory' and l.classid = $1 and l.objid = e.incarnation and l.granted
    )
    from operon.executors e where e.pid = $2
"""


async def test_a_workflow_that_an_executor_does_not_know_waits_for_one_that_does() -> None:
    async with private_database() as url, witness() as seen, AsyncExitStack() as stack:
        owner = await stack.enter_async_context(executor(url, seen.port, "unheard_of"))
        await owner.post("/novelties/news")
        await owner.post("/errands/5")
        await seen.seen(6)
        await until(url, LOCK_SEEN, SESSION_LOCK, owner.pid)
        await stack.enter_async_context(executor(url, seen.port, "errands"))

        owner.kill()
        seen.release.set()
        await until(url, FINISHED, 5)
        left = await testbed.fetch(
            url, "select name, status, epoch, crash_count from operon.workflows where status = 0"
        )

        assert left == [("novelty", PENDING, 1, 0)]
        assert seen.times["news"] == 1

        await stack.enter_async_context(executor(url, seen.port, "unheard_of"))
        await until(url, FINISHED, 6)

        assert seen.times["news"] == 2
        assert await testbed.fetch(url, "select distinct status, epoch from operon.workflows") == [(SUCCESS, 2)]


async def test_several_executors_that_claim_at_once_claim_each_workflow_once() -> None:
    async with private_database() as url, witness() as seen, AsyncExitStack() as stack:
        await testbed.execute(url, MANY_READY, 400)
        seen.release.set()

        await asyncio.gather(*(stack.enter_async_context(executor(url, seen.port)) for _ in range(3)))
        await until(url, FINISHED, 400)

        assert set(seen.times.values()) == {1}
        assert len(seen.times) == 400
        assert await testbed.fetch(url, "select distinct epoch from operon.workflows") == [(2,)]


# Workflows that an executor released when it was shut down.
MANY_READY = """
    insert into operon.workflows (workflow_uuid, name, version, inputs)
    select gen_random_uuid(), 'errand', '0', convert_to(format('{"name":"ready-%s"}', n), 'UTF8')
    from generate_series(1, $1::integer) as n
"""
