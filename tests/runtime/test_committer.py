"""The committer: a record that the database refuses costs its own workflow and nobody else, and every order is kept."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID, uuid4

import pytest

import operon
from operon.database import executors, testbed
from operon.database.batch import RECORDS_MAX, Batch
from operon.database.writer import Revoked
from operon.errors import Fenced
from operon.runtime.statements import Statement
from operon.testing import TestRuntime
from tests.database import one_step
from tests.runtime.committing import COMMUNICATOR, POISON, Bench, fate


async def test_what_came_up_meanwhile_is_one_batch(bench: Bench) -> None:
    workflows = RECORDS_MAX // 2  # two records of each
    started = [bench.start()[0] for _ in range(workflows)]
    recorded = {uuid: bench.checkpoint(uuid, 0) for uuid in started}

    bench.run()
    fates = await asyncio.gather(*(fate(batch, uuid) for uuid, batch in recorded.items()))

    assert fates == [None] * workflows
    assert bench.committer.flushes == 1
    assert len(await bench.workflows()) == workflows


@pytest.mark.parametrize("place", range(7))
async def test_a_poisoned_record_fails_its_own_workflow_and_no_other(bench: Bench, place: int) -> None:
    started = [bench.start() for _ in range(7)]
    batches = {
        uuid: bench.checkpoint(uuid, 0, POISON if n == place else "salute") for n, (uuid, _) in enumerate(started)
    }
    poisoned = started[place][0]

    bench.run()
    fates = {uuid: await fate(batch, uuid) for uuid, batch in batches.items()}

    assert isinstance(fates.pop(poisoned), Exception)
    assert set(fates.values()) == {None}
    found = await bench.workflows()
    assert set(found) == set(fates)  # not even its start: what it recorded together, it lost together
    assert [await bench.steps(uuid) for uuid in fates] == [[0]] * 6


async def test_two_poisoned_workflows_are_both_found(bench: Bench) -> None:
    started = [bench.start() for _ in range(9)]
    batches = {
        uuid: bench.checkpoint(uuid, 0, POISON if n in (2, 3) else "salute") for n, (uuid, _) in enumerate(started)
    }

    bench.run()
    fates = [await fate(batch, uuid) for uuid, batch in batches.items()]

    assert [error is None for error in fates] == [n not in (2, 3) for n in range(9)]
    assert len(await bench.workflows()) == 7


async def test_what_a_poisoned_workflow_appended_later_is_dropped_with_it(bench: Bench) -> None:
    good, bad = bench.start()[0], bench.start(POISON)[0]
    first = bench.checkpoint(bad, 0)
    bench.run()
    await asyncio.sleep(0)  # the batch is in flight now
    later, other = bench.checkpoint(bad, 1), bench.checkpoint(good, 0)

    assert await fate(first, bad) is not None
    assert await fate(other, good) is None
    assert await fate(later, good) is None
    assert await bench.steps(bad) == []
    assert set(await bench.workflows()) == {good}


async def test_a_refused_workflow_does_not_stop_the_committer(bench: Bench) -> None:
    bad, batch = bench.start(POISON)
    bench.run()
    assert await fate(batch, bad) is not None

    good, batch = bench.start()

    assert await fate(batch, good) is None
    assert not bench.fenced.is_set()


async def test_the_records_of_a_workflow_are_durable_in_their_order(bench: Bench) -> None:
    uuid, batch = bench.start()
    bench.run()
    for step in range(50):
        batch = bench.checkpoint(uuid, step)
        if step % 7 == 0:
            await batch.durable(uuid)
            assert await bench.steps(uuid) == list(range(step + 1))

    assert await fate(bench.committer.finish(uuid, 1, b'"x"', None, None), uuid) is None
    assert await bench.workflows() == {uuid: 1}


async def test_drop_forgets_what_one_workflow_appended_and_nothing_else(bench: Bench) -> None:
    gone, (kept, _) = bench.start()[0], bench.start()
    for step in range(3):
        bench.checkpoint(gone, step)
        bench.checkpoint(kept, step)
    bench.committer.finish(gone, 1, b'"x"', None, None)

    bench.committer.drop(gone)
    bench.run()

    assert await fate(bench.start()[1], kept) is None
    assert await bench.steps(kept) == [0, 1, 2]
    assert await bench.steps(gone) == []
    assert (await bench.workflows())[gone] == 0


async def test_what_is_dropped_of_one_workflow_moves_no_start_of_another(bench: Bench) -> None:
    """Whoever ends in the batch in which it began is written into the row of its start."""
    gone, (kept, batch) = bench.start()[0], bench.start()
    begun = (batch, 1)

    bench.committer.drop(gone)
    bench.committer.finish(kept, 1, b'"x"', None, begun)
    bench.run()

    assert await fate(batch, kept) is None
    assert await bench.workflows() == {gone: 0, kept: 1}


async def test_what_is_taken_out_of_a_cancelled_workflow_takes_nothing_of_others_along(bench: Bench) -> None:
    """Statements add their records to a batch when they run, and take them back when they have to run again."""
    (cancelled, _), (kept, batch) = bench.start(), bench.start()
    bench.run()
    assert await fate(batch, kept) is None
    await bench.connection.execute("select operon.cancel($1, 'null')", cancelled)

    for step in range(3):
        bench.checkpoint(kept, step)
    bench.committer.statement(Statement(cancelled, 0, None, "fetchval", "select 1", (), 0.0))
    batch = bench.committer.statement(Statement(kept, 3, None, "fetchval", "select 2", (), 0.0))

    assert await fate(batch, kept) is None
    assert isinstance(await fate(batch, cancelled), Revoked)
    assert await bench.steps(kept) == [0, 1, 2, 3]
    assert await bench.steps(cancelled) == []


async def test_nothing_of_a_dead_executor_is_written(bench: Bench) -> None:
    await executors.kill(bench.connection, bench.number)
    uuid, batch = bench.start()

    bench.run()

    assert await outcome(batch, uuid) is Fenced
    assert bench.fenced.is_set()
    assert await bench.workflows() == {}
    with pytest.raises(Fenced):
        bench.start()


async def outcome(batch: Batch, uuid: UUID) -> type[BaseException] | None:
    try:
        await batch.durable(uuid)
    except Fenced:
        return Fenced
    return None


async def test_finishing_what_another_owns_fences(bench: Bench) -> None:
    uuid, batch = bench.start()
    bench.run()
    await batch.durable(uuid)
    await bench.connection.execute("update operon.workflows set owner = owner + 1")

    batch = bench.committer.finish(uuid, 1, b'"x"', None, None)

    assert await outcome(batch, uuid) is Fenced
    assert await bench.workflows() == {uuid: 0}


def test_a_part_of_a_batch_has_its_records_in_the_same_order() -> None:
    batch = Batch()
    uuids = [uuid4() for _ in range(3)]
    for n in range(9):
        batch.checkpoint(
            uuids[n % 3], n // 3, COMMUNICATOR, f"step-{n}", b"1", 0.0,
            error=b"e" if n == 4 else None, seen="0" if n == 7 else None, attempts=n + 1,
        )  # fmt: skip

    part = batch.only([uuids[1]])

    assert part.c_name == ["step-1", "step-4", "step-7"]
    assert part.c_step == [0, 1, 2]
    assert part.c_error == {1: b"e"}
    assert part.c_seen == {2: "0"}
    assert part.c_attempts == {0: 2, 1: 5, 2: 8}
    assert part.workflows() == [uuids[1]]


async def test_a_poisoned_record_of_a_live_workflow_does_not_reach_its_neighbours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same through the whole runtime: the name of a step is a text column, and holds what no text can."""
    async with TestRuntime(one_step, crash_budget=1) as runtime:
        committer = runtime.executor.incarnation.committer
        checkpoint = committer.checkpoint
        poisoned: list[UUID] = []

        def poisoning(workflow_uuid: UUID, step: int, kind: int, name: str, *rest: Any, **named: Any) -> Batch:
            if name == "salute" and not poisoned:
                poisoned.append(workflow_uuid)
            bad = workflow_uuid in poisoned and name == "salute"
            return checkpoint(workflow_uuid, step, kind, POISON if bad else name, *rest, **named)

        monkeypatch.setattr(committer, "checkpoint", poisoning)

        handles = [await one_step.greet(runtime.context, f"guest {n}") for n in range(20)]
        results = await asyncio.gather(*(handle.get_result(timeout=60) for handle in handles), return_exceptions=True)

        failed = [
            handle.workflow_uuid
            for handle, result in zip(handles, results, strict=True)
            if isinstance(result, Exception)
        ]
        assert failed == poisoned
        assert [type(result) for result in results if isinstance(result, Exception)] == [operon.WorkflowDeadError]
        rows = await testbed.fetch(runtime.database_url, "select workflow_uuid from operon.workflows where status <> 1")
        assert [row[0] for row in rows] == poisoned


async def test_who_waits_when_the_committer_is_stopped_is_told(bench: Bench) -> None:
    async with bench.connection.transaction():
        await bench.connection.execute("select from operon.executors where incarnation = $1 for update", bench.number)
        bench.run()
        _, in_flight = bench.start()
        while not in_flight.sent:  # noqa: ASYNC110 - a batch that is taken rings no bell
            await asyncio.sleep(0)
        uuid, behind = bench.start()
        waiting = asyncio.create_task(behind.durable(uuid))
        await asyncio.sleep(0)

        assert bench.running is not None
        bench.running.cancel()
        await asyncio.gather(bench.running, return_exceptions=True)

        with pytest.raises(Fenced):
            await asyncio.wait_for(waiting, 60)
        with pytest.raises(Fenced):
            bench.start()
