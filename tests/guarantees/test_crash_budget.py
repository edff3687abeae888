"""A workflow that crashes without getting any further stops at its budget, and takes nobody with it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import asyncpg
import pytest

import operon
from operon import Status
from operon.testing import TestRuntime
from tests.guarantees.worker.case import Server
from tests.guarantees.worker.life import Start

BUDGET = 5
CRASHES = "select crash_count, crash_step, wait_kind, status from operon.workflows where workflow_uuid = $1"


class Cause:
    """What makes workflows crash, and until when."""

    def __init__(self) -> None:
        self.mended = False
        self.lives = 0


cause = Cause()


@operon.workflow
async def crashes(ctx: operon.WorkflowContext) -> str:
    """Crashes after its second step: there is no memory left."""
    ctx.now()
    await ctx.execute("select 1")
    cause.lives += 1
    if not cause.mended:
        raise MemoryError("no more")
    return "mended"


@operon.workflow
async def struggles(ctx: operon.WorkflowContext, steps: int) -> int:
    """Crashes after each step, and gets one further each time."""
    for step in range(steps):
        await ctx.execute("select 1")
        if cause.lives == step:
            cause.lives += 1
            raise MemoryError("no more")
    return steps


@operon.communicator(retry=operon.Retry(max_attempts=3, interval_seconds=0.01))
async def starves(ctx: operon.CommunicatorContext) -> str:
    cause.lives += 1
    if cause.lives <= 3:
        raise MemoryError("no more")
    return "fed"


@operon.workflow
async def eats(ctx: operon.WorkflowContext) -> str:
    try:
        return await starves(ctx)
    except MemoryError:
        return "swallowed"


@operon.workflow
async def spins(ctx: operon.WorkflowContext) -> None:
    cause.lives += 1
    while True:
        with contextlib.suppress(Exception):
            sum(range(1_000))


@operon.workflow
async def idles(ctx: operon.WorkflowContext) -> str:
    return str(await ctx.recv("topic"))


@pytest.fixture
async def runtime(anyio_backend: str) -> AsyncIterator[TestRuntime]:
    cause.mended, cause.lives = False, 0
    async with TestRuntime(__name__, poll_seconds=0.2) as runtime:
        at_once(runtime)
        yield runtime


def at_once(runtime: TestRuntime) -> None:
    """Pauses between lives cost no time here; their length is drawn by lot, and this is a lot like any other."""
    runtime.executor.incarnation.jitter = lambda: 0.0


async def test_the_budget_is_counted_in_the_database_and_ends_in_dead(runtime: TestRuntime) -> None:
    handle = await crashes(runtime.context)

    with pytest.raises(
        operon.WorkflowDeadError, match=r"crashed 6 times in a row before step 2 .*MemoryError: no more"
    ):
        await handle.get_result(timeout=60)

    assert cause.lives == BUDGET + 1
    assert [tuple(row) for row in await runtime.fetch(CRASHES, handle.workflow_uuid)] == [
        (BUDGET + 1, 2, None, Status.DEAD.code)
    ]


async def test_what_is_dead_can_be_resumed_with_a_whole_budget(runtime: TestRuntime) -> None:
    handle = await crashes(runtime.context)
    with pytest.raises(operon.WorkflowDeadError):
        await handle.get_result(timeout=60)

    cause.mended = True
    resumed = await handle.resume()

    assert resumed
    assert await handle.get_result(timeout=60) == "mended"


async def test_a_recorded_step_makes_the_next_crash_the_first(runtime: TestRuntime) -> None:
    steps = 3 * BUDGET

    handle = await struggles(runtime.context, steps)

    assert await handle.get_result(timeout=60) == steps
    assert cause.lives == steps
    assert await runtime.fetchval("select crash_count from operon.workflows") == 1


async def test_a_step_without_memory_is_a_crash_and_no_answer(runtime: TestRuntime) -> None:
    handle = await eats(runtime.context)

    assert await handle.get_result(timeout=60) == "fed"
    assert await runtime.fetchval("select count(*) from operon.checkpoints where error is not null") == 0


async def test_an_endless_loop_is_interrupted_and_the_others_go_on() -> None:
    cause.mended, cause.lives = False, 0
    async with TestRuntime(__name__, lease_seconds=2, heartbeat_seconds=0.2, crash_budget=1) as runtime:
        at_once(runtime)
        number = runtime.executor.incarnation.number
        other = await idles(runtime.context)
        handle = await spins(runtime.context)

        with pytest.raises(operon.WorkflowDeadError, match="LoopBlocked"):
            await handle.get_result(timeout=60)

        await runtime.context.send(other.workflow_uuid, "go on", "topic")
        assert await other.get_result(timeout=60) == "go on"
        assert cause.lives == 2
        assert runtime.executor.incarnation.number == number


async def test_between_two_lives_it_is_parked_and_its_crashes_outlive_the_process(runtime: TestRuntime) -> None:
    runtime.executor.incarnation.jitter = lambda: 1.0
    handle = await crashes(runtime.context)
    async with asyncio.timeout(60):
        while (await runtime.fetchval("select crash_count from operon.workflows")) < 2:
            pass

    live = handle.workflow_uuid in runtime.executor.incarnation.live
    await runtime.restart()
    cause.mended = True

    assert not live
    assert await runtime.context.retrieve_workflow(handle.workflow_uuid).get_result(timeout=60) == "mended"
    assert await runtime.fetchval("select crash_count from operon.workflows") == 2


async def test_the_next_life_begins_when_the_end_of_the_last_one_is_recorded(runtime: TestRuntime) -> None:
    incarnation = runtime.executor.incarnation
    incarnation.jitter = lambda: 1.0
    handle = await crashes(runtime.context)
    uuid = handle.workflow_uuid
    async with asyncio.timeout(60):
        while (await runtime.fetchval("select crash_count from operon.workflows")) < 1:
            pass
        connection = await asyncpg.connect(runtime.database_url)
        async with connection.transaction():
            await connection.execute("select from operon.workflows for update")  # whoever writes a crash waits
            while cause.lives < 2 or uuid in incarnation.live:
                incarnation.activator.wake(uuid)
                await asyncio.sleep(0)

            incarnation.activator.wake(uuid)
            while incarnation.activator.busy:  # noqa: ASYNC110 - no bell rings when it has looked
                await asyncio.sleep(0)

            assert cause.lives == 2
            cause.mended = True
        await connection.close()
    assert await handle.get_result(timeout=60) == "mended"
    assert await runtime.fetchval("select crash_count from operon.workflows") == 2


async def test_it_is_not_run_once_more_between_its_last_crash_and_the_record_that_it_is_dead(
    runtime: TestRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    incarnation = runtime.executor.incarnation
    counted = incarnation.suspensions.crashed

    async def counted_and_looked(name: str, workflow_uuid: UUID) -> None:
        await counted(name, workflow_uuid)
        incarnation.activator.ring()
        while incarnation.activator.busy:  # noqa: ASYNC110 - no bell rings when it has looked
            await asyncio.sleep(0)

    monkeypatch.setattr(incarnation.suspensions, "crashed", counted_and_looked)
    handle = await crashes(runtime.context)

    with pytest.raises(operon.WorkflowDeadError, match=f"crashed {BUDGET + 1} times"):
        await handle.get_result(timeout=60)

    assert cause.lives == BUDGET + 1


@pytest.mark.long
async def test_who_takes_the_process_down_is_found_and_stopped_while_the_others_go_on(server: Server) -> None:
    async with server.case("deadly", crash_budget=BUDGET) as case:
        culprit = Start("deadly", uuid4(), ("t",))
        others = [Start("patient", uuid4(), (2.5,)) for _ in range(2)]
        codes: list[int] = []

        while not codes or codes[-1] != 0:
            starts = [*others, culprit]
            codes.append(await case.live(case.again(starts) if codes else starts))

        rows = {row[0]: tuple(row)[1:] for row in await case.connection.fetch(STATES)}
        # Three times it had company; from then on suspects are run one at a time, and it dies alone.
        assert codes == [66] * (BUDGET + 1) + [0]
        assert rows[culprit.uuid] == (Status.DEAD.code, BUDGET + 1)
        assert [rows[other.uuid][0] for other in others] == [Status.SUCCESS.code] * 2
        assert all(rows[other.uuid][1] <= 3 for other in others)
        assert case.results() == {other.uuid for other in others}


@pytest.mark.long
async def test_who_waits_for_one_that_takes_the_process_down_is_not_to_blame(server: Server) -> None:
    async with server.case("trusting", crash_budget=BUDGET) as case:
        starts = [Start("trusting", uuid4(), ("t",))]
        codes: list[int] = []

        while not codes or codes[-1] != 0:
            codes.append(await case.live(case.again(starts) if codes else starts))

        rows = {row[0]: tuple(row)[1:] for row in await case.connection.fetch(STATES)}
        parent = rows.pop(starts[0].uuid)
        # Three times it looked like one of those who may have done it; then it leaves memory before the other is tried.
        assert codes == [66] * (BUDGET + 1) + [0]
        assert parent[0] == Status.SUCCESS.code
        assert parent[1] <= 3
        assert list(rows.values()) == [(Status.DEAD.code, BUDGET + 1)]


STATES = "select workflow_uuid, status, crash_count from operon.workflows"
