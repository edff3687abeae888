"""Promise: no wake-up is lost. What parks while that happens which it waits for does not stay parked.

Workflows of this process park whenever they wait; those of another process send to them, set the events they wait for,
and end, all the time. There is no poll that would find what was missed: one lost wake-up, and a workflow never ends.
"""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import pytest

from operon.database.connection import connect
from operon.errors import WorkflowCancelledError
from operon.handles import WorkflowHandle
from operon.testing import TestRuntime
from tests.guarantees.executors import correspondents
from tests.guarantees.executors.process import executor

pytestmark = pytest.mark.long

NEVER = 3600.0
# No safety poll, and no ping that comes late and makes everybody look.
ALWAYS_PARKED: dict[str, Any] = {
    "park_after_seconds": 0,
    "poll_seconds": NEVER,
    "lease_seconds": 300,
    "heartbeat_seconds": 100,
}
NEVER_POLLS: dict[str, Any] = {"poll_seconds": NEVER, "lease_seconds": 300, "heartbeat_seconds": 100}
SPREAD_SECONDS = 0.004  # a flush takes one to three milliseconds, and a park is a flush
ENDS_SPREAD_SECONDS = 0.1  # these begin in step; so some end before their waiter has parked, and some after

PARKS = 2_500  # in each of the two: five thousand in all
FEWER_PARKS = 100  # on a busy machine much has happened before who waits for it can park: then once more

# Where bells are heard, a bell alone may save what is not marked in the database as having woken somebody. Where they
# are not, only what is marked is found, and by a poll; what is not, never.
DEAF_OR_NOT = pytest.mark.parametrize(
    "heard", [{}, {"notify": "off", "poll_seconds": 0.02}], ids=["bells are heard", "bells are not heard"]
)

LEFT = """
    select (select count(*) from operon.notifications) + (select count(*) from operon.waits)
        + (select count(*) from operon.workflows where status <> 1)
"""


@DEAF_OR_NOT
async def test_no_message_to_a_workflow_that_parks_is_overlooked(heard: dict[str, Any]) -> None:
    rounds, catchers = 50, 60
    async with TestRuntime(correspondents, **ALWAYS_PARKED | heard) as runtime:
        parker = runtime.executor.incarnation.parker
        async with executor(runtime.database_url, 0, "correspondents", **NEVER_POLLS) as sender:
            while parker.parked < PARKS:
                handles = [await correspondents.catch(runtime.context, rounds) for _ in range(catchers)]
                await sender.post("/throws", catchers=uuids(handles), rounds=rounds, spread_seconds=SPREAD_SECONDS)

                caught = await all_of(handles)

                assert caught == [list(range(rounds))] * catchers
            await ended(runtime)


@DEAF_OR_NOT
async def test_no_message_out_of_sql_to_a_workflow_that_parks_is_overlooked(heard: dict[str, Any]) -> None:
    rounds, catchers = 60, 16
    async with TestRuntime(correspondents, **ALWAYS_PARKED | heard) as runtime:

        async def throw(catcher: UUID) -> None:
            connection = await connect(runtime.database_url)
            for number in range(rounds):
                await correspondents.some_time(2 * SPREAD_SECONDS)
                await connection.execute("select operon.send($1, to_json($2::integer), 'numbers')", catcher, number)
                assert await runtime.context.get_event(catcher, f"number {number}") == number
            await connection.close()

        async with asyncio.timeout(100):
            while runtime.executor.incarnation.parker.parked < FEWER_PARKS:
                handles = [await correspondents.confirm(runtime.context, rounds) for _ in range(catchers)]

                await asyncio.gather(*(throw(handle.workflow_uuid) for handle in handles))

                assert await all_of(handles) == [None] * catchers
        await ended(runtime)


async def test_no_event_that_a_workflow_waits_for_is_overlooked_while_it_parks() -> None:
    rounds, repliers = 20, 40
    async with (
        TestRuntime(correspondents, **ALWAYS_PARKED) as runtime,
        executor(runtime.database_url, 0, "correspondents", **ALWAYS_PARKED) as asker,
    ):
        while runtime.executor.incarnation.parker.parked < FEWER_PARKS:
            handles = [await correspondents.reply(runtime.context, rounds) for _ in range(repliers)]
            await asker.post("/asks", repliers=uuids(handles), rounds=rounds, spread_seconds=SPREAD_SECONDS)

            replied = await all_of(handles)

            assert replied == [list(range(rounds))] * repliers
        await ended(runtime)


async def test_no_end_that_a_workflow_waits_for_is_overlooked_while_it_parks() -> None:
    rounds, waiters = 20, 30
    async with (
        TestRuntime(correspondents, **ALWAYS_PARKED) as runtime,
        executor(runtime.database_url, 0, "correspondents", **NEVER_POLLS) as elsewhere,
    ):
        while runtime.executor.incarnation.parker.parked < FEWER_PARKS:
            others = await elsewhere.post("/ends", count=rounds * waiters, spread_seconds=ENDS_SPREAD_SECONDS)
            shares = [[UUID(other) for other in others[n::waiters]] for n in range(waiters)]
            handles = [await correspondents.await_ends(runtime.context, share) for share in shares]

            ends = await all_of(handles)

            assert ends == [list(range(n, rounds * waiters, waiters)) for n in range(waiters)]
        await ended(runtime)


async def test_no_end_of_a_child_is_overlooked_while_its_parent_parks() -> None:
    rounds, parents = 20, 30
    async with TestRuntime(correspondents, **ALWAYS_PARKED) as runtime:
        while runtime.executor.incarnation.parker.parked < FEWER_PARKS:
            handles = [
                await correspondents.await_children(runtime.context, rounds, ENDS_SPREAD_SECONDS)
                for _ in range(parents)
            ]

            ends = await all_of(handles)

            assert ends == [list(range(rounds))] * parents
        await ended(runtime)


async def test_who_waits_for_an_event_of_a_cancelled_workflow_is_parked() -> None:
    """It may be resumed, and set the event after all. Nobody may ask the database for it all the time until then."""
    async with TestRuntime(correspondents, **ALWAYS_PARKED) as runtime:
        cancelled = await correspondents.collect(runtime.context.using(timeout=0.1), 1)
        waiting = await correspondents.wait_for_event(runtime.context, cancelled.workflow_uuid, "event")
        with pytest.raises(WorkflowCancelledError):
            await cancelled.get_result()

        async with asyncio.timeout(60):
            while not await runtime.fetchval(PARKED, waiting.workflow_uuid):  # noqa: ASYNC110 - a row rings no bell
                await asyncio.sleep(0.05)


# Whether a workflow is parked, and has been for longer than it takes to wake it up again.
PARKED = """
    select wait_kind is not null and wait_since < clock_timestamp() - interval '0.5 seconds'
    from operon.workflows where workflow_uuid = $1
"""


def uuids(handles: list[WorkflowHandle[Any]]) -> list[str]:
    return [str(handle.workflow_uuid) for handle in handles]


async def all_of(handles: list[WorkflowHandle[Any]]) -> list[Any]:
    """The results of all; who has not ended in time has been forgotten."""
    async with asyncio.timeout(100):
        return list(await asyncio.gather(*(handle.get_result() for handle in handles)))


async def ended(runtime: TestRuntime) -> None:
    """Everybody has ended, and nothing is left of what they waited for."""
    async with asyncio.timeout(60):
        while await runtime.fetchval(LEFT):  # noqa: ASYNC110 - a row rings no bell
            await asyncio.sleep(0.05)
