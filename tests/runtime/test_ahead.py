"""A full batch is sent while the one before it is in flight, and all is as if it had been sent after it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from operon.database.batch import RECORDS_MAX, Batch
from operon.database.writer import OutOfOrder, Writer
from operon.errors import Fenced
from tests.runtime.committing import POISON, Bench, fate

# The sessions of flushes that wait for a lock, those first that have waited longest.
WAITING = """
select pid from pg_stat_activity
where datname = current_database() and query like '%operon.flush%' and wait_event_type = 'Lock'
    and pid <> pg_backend_pid()
order by query_start
"""
FLYING = WAITING.replace("wait_event_type = 'Lock'", "state = 'active'")
IN_THE_WAY = "select from operon.executors where incarnation = $1 for update"
DECLARE_DEAD = "update operon.executors set state = 2 where incarnation = $1"


def fill(bench: Bench) -> dict[UUID, Batch]:
    """Starts as many as one batch takes."""
    return dict(bench.start() for _ in range(RECORDS_MAX + 1))  # what makes it heavier than that is still in it


async def fates(*filled: dict[UUID, Batch]) -> set[type[BaseException] | None]:
    waiting = [fate(batch, uuid) for batches in filled for uuid, batch in batches.items()]
    return {None if error is None else type(error) for error in await asyncio.gather(*waiting, return_exceptions=True)}


@asynccontextmanager
async def held_up(bench: Bench) -> AsyncGenerator[Any]:
    """Somebody has the executor's row: a connection in whose transaction he has it."""
    connection = await asyncpg.connect(bench.url)
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute(IN_THE_WAY, bench.number)
    try:
        yield connection
    finally:
        await connection.close()


async def both_wait(bench: Bench) -> list[int]:
    """The sessions of two flushes that are in flight at once, when they are."""
    async with asyncio.timeout(60):
        while len(found := await bench.connection.fetch(WAITING)) < 2:  # noqa: ASYNC110 - a lock rings no bell
            await asyncio.sleep(0.005)
    return [row["pid"] for row in found]


async def test_two_are_in_flight_at_once_and_both_land(bench: Bench) -> None:
    first, second = fill(bench), fill(bench)

    async with held_up(bench):
        bench.run()
        await both_wait(bench)

    assert await fates(first, second) == {None}
    assert await bench.workflows() == dict.fromkeys([*first, *second], 0)


async def test_who_has_not_filled_a_batch_is_not_sent_ahead(bench: Bench) -> None:
    """Whatever comes up meanwhile goes into one batch, and not into a second flight half as large."""
    first = fill(bench)

    async with held_up(bench):
        bench.run()
        async with asyncio.timeout(60):
            while not await bench.connection.fetch(WAITING):  # noqa: ASYNC110 - a lock rings no bell
                await asyncio.sleep(0.005)
        second = dict(bench.start() for _ in range(RECORDS_MAX // 2))
        assert len(await bench.connection.fetch(WAITING)) <= 1

    assert await fates(first, second) == {None}


@pytest.mark.parametrize("before", ["has not come", "was given up", "has landed"])
async def test_a_batch_lands_only_after_the_one_before_it(bench: Bench, before: str) -> None:
    writer = Writer(bench.url, "0", 10_000)
    uuid, batch = bench.start()
    if before == "has landed":
        await writer.flush(bench.number, 7, Batch())
    if before == "was given up":
        assert not await writer.landed(bench.number, 7, Batch())

    try:
        await writer.flush(bench.number, 8, batch, after=7)
    except OutOfOrder:
        assert before != "has landed"
        assert await bench.workflows() == {}
    else:
        assert before == "has landed"
        assert await bench.workflows() == {uuid: 0}
    finally:
        await writer.close()


async def test_a_batch_that_overtook_the_one_before_it_is_sent_anew_and_those_that_follow_are_not(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    flush, calls, refused = Writer.flush, 0, 0
    answered = asyncio.Event()

    async def overtaken(writer: Writer, incarnation: int, number: int, batch: Batch, after: int | None = None) -> None:
        nonlocal calls, refused
        calls += 1
        if calls == 1:
            await answered.wait()
        try:
            await flush(writer, incarnation, number, batch, after)
        except OutOfOrder:
            refused += 1
            raise
        finally:
            answered.set()

    monkeypatch.setattr(Writer, "flush", overtaken)
    filled = [fill(bench) for _ in range(24)]

    bench.run()

    assert await fates(*filled) == {None}
    assert await bench.workflows() == {uuid: 0 for batches in filled for uuid in batches}
    assert 1 <= refused < len(filled) / 2  # all that followed, if each were sent after one that cannot land


async def test_whose_record_is_refused_has_nothing_in_the_batch_that_was_sent_after_it(bench: Bench) -> None:
    poisoned, poisoned_batch = bench.start()
    bench.checkpoint(poisoned, 0, POISON)
    first = fill(bench)
    later = bench.checkpoint(poisoned, 1)
    second = fill(bench)
    assert later is not poisoned_batch

    bench.run()

    assert await fates(first, second) == {None}
    assert await fate(poisoned_batch, poisoned) is not None
    assert await bench.workflows() == dict.fromkeys([*first, *second], 0)
    assert await bench.steps(poisoned) == []


async def test_nothing_is_sent_ahead_while_a_batch_that_was_refused_is_split(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its second half would come after what follows on it."""
    first = dict(bench.start() for _ in range(RECORDS_MAX // 2))
    poisoned, poisoned_batch = bench.start()
    bench.checkpoint(poisoned, 0, POISON)
    second: dict[UUID, Batch] = {}
    flush, flushes = Writer.flush, 0

    async def meanwhile(writer: Writer, incarnation: int, number: int, batch: Batch, after: int | None = None) -> None:
        nonlocal flushes
        flushes += 1
        if flushes == 2:  # the first half
            bench.checkpoint(poisoned, 1)
            second.update(fill(bench))
        await flush(writer, incarnation, number, batch, after)

    monkeypatch.setattr(Writer, "flush", meanwhile)

    bench.run()

    assert await fates(first) == {None}
    assert await fate(poisoned_batch, poisoned) is not None
    assert await fates(second) == {None}
    assert await bench.steps(poisoned) == []


@pytest.mark.parametrize("which", [0, 1])
async def test_a_connection_that_is_lost_while_two_are_in_flight_loses_and_doubles_nothing(
    bench: Bench, which: int
) -> None:
    first, second = fill(bench), fill(bench)

    async with held_up(bench):
        bench.run()
        pids = await both_wait(bench)
        await bench.connection.execute("select pg_terminate_backend($1)", pids[which])

    assert await fates(first, second) == {None}
    assert await bench.workflows() == dict.fromkeys([*first, *second], 0)


async def test_nothing_of_either_lands_when_their_executor_is_declared_dead(bench: Bench) -> None:
    first, second = fill(bench), fill(bench)

    async with held_up(bench) as connection:
        bench.run()
        await both_wait(bench)
        await connection.execute(DECLARE_DEAD, bench.number)
        await connection.execute("commit")

    assert await fates(first, second) == {Fenced}
    assert bench.fenced.is_set()
    assert await bench.workflows() == {}


async def test_who_waits_for_either_is_told_when_the_committer_is_stopped(bench: Bench) -> None:
    first, second = fill(bench), fill(bench)

    async with held_up(bench):
        bench.run()
        await both_wait(bench)
        assert bench.running is not None
        bench.running.cancel()
        assert await fates(first, second) == {Fenced}


@pytest.mark.long
async def test_every_workflow_keeps_its_order_through_many_lost_connections(bench: Bench) -> None:
    rng, lost, steps = random.Random(7), 0, 30
    last = dict(bench.start() for _ in range(1_000))
    for step in range(steps):
        last = {uuid: bench.checkpoint(uuid, step) for uuid in last}
    bench.run()

    while not all(batch.done for batch in last.values()):
        flying = await bench.connection.fetch(FLYING)
        if len(flying) == 2 and lost < 20:
            await bench.connection.execute("select pg_terminate_backend($1)", rng.choice(flying)["pid"])
            lost += 1

    assert lost
    assert await fates(last) == {None}
    assert {tuple(await bench.steps(uuid)) for uuid in last} == {tuple(range(steps))}
