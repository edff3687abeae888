"""What parked workflows wait for: two executors whose workflows wait for each other's never wait in a circle.

Each flush wants rows that the other one changes: those it sets due, and those of who waits no more. The former it waits
for, and comes to first; of the latter it leaves what somebody holds.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from operon.database import supervision, workflows
from operon.database.batch import Batch
from operon.database.mail import Park
from operon.database.writer import Writer
from operon.runtime.waits import WaitKind

EXECUTOR = """
insert into operon.executors (lease_until, pid, host, version)
values (clock_timestamp() + interval '1 hour', 1, 'here', '') returning incarnation
"""
WORKFLOW = """
insert into operon.workflows (workflow_uuid, owner, name, version, inputs, wait_kind)
values ($1, $2, 'waits', '', '{}', 1)
"""
WAIT = "insert into operon.waits (target, waiter, key) values ($1, $2, 'done')"
SET_DUE = "update operon.waits set due = true where waiter = $1"
DUE = "select count(*) from operon.waits where due"


@dataclass
class Stage:
    """An executor's writer, a workflow of it that waits for an event, and the one who is just setting that."""

    onlooker: Any
    other: Any
    writer: Writer
    executor: int
    waiter: UUID

    async def flush(self, number: int, batch: Batch) -> None:
        # Its session gives up a lock after a second, and then this raises.
        await asyncio.wait_for(self.writer.flush(self.executor, number, batch), 60)

    async def candidates(self) -> list[UUID]:
        found = await workflows.candidates(self.onlooker, self.executor, ["waits"], 10, 0.0, suspects=True)
        return [candidate.workflow_uuid for candidate in found.candidates]


@pytest.fixture
async def stage(database: str) -> AsyncIterator[Stage]:
    onlooker, other = [await asyncpg.connect(database) for _ in range(2)]
    executor = await onlooker.fetchval(EXECUTOR)
    waiter = uuid4()
    await onlooker.execute(WORKFLOW, waiter, executor)
    await onlooker.execute(WAIT, uuid4(), waiter)
    writer = Writer(database, "", 100)
    transaction = other.transaction()
    await transaction.start()
    await other.execute(SET_DUE, waiter)
    try:
        yield Stage(onlooker, other, writer, executor, waiter)
    finally:
        for connection in (onlooker, other):
            await connection.close()
        await writer.close()


async def test_who_ends_does_not_wait_for_somebody_who_just_rings_for_it(stage: Stage) -> None:
    batch = Batch()
    batch.f_uuid, batch.f_output = [stage.waiter], [b"1"]

    await stage.flush(1, batch)
    await stage.other.execute("commit")

    assert await stage.onlooker.fetchval("select status from operon.workflows") == 1
    assert await stage.candidates() == []
    await supervision.sweep(stage.onlooker)
    assert await stage.onlooker.fetchval("select count(*) from operon.waits") == 0


async def test_who_goes_on_does_not_wait_for_somebody_who_just_rings_for_it(stage: Stage) -> None:
    batch = Batch()
    batch.letters().unparked[stage.waiter] = None

    await stage.flush(1, batch)
    await stage.other.execute("commit")

    assert await stage.onlooker.fetchval("select wait_kind from operon.workflows") is None
    assert await stage.onlooker.fetchval(DUE) == 1
    assert stage.waiter not in await stage.candidates()


async def test_who_parks_again_is_not_woken_by_what_it_waited_for_before(stage: Stage) -> None:
    gone_on, parked = Batch(), Batch()
    gone_on.letters().unparked[stage.waiter] = None
    parked.letters().parks[stage.waiter] = Park(stage.waiter, WaitKind.MESSAGE, "recv", ["topic"], None, [])
    await stage.flush(1, gone_on)
    await stage.other.execute("commit")

    await stage.flush(2, parked)

    assert await stage.onlooker.fetchval("select wait_topics from operon.workflows") == ["topic"]
    assert await stage.onlooker.fetchval(DUE) == 0
    assert await stage.candidates() == []
