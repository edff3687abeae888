"""Promise: what each operation may cost on the wire, in round trips and commits, counted there and not estimated.

Statements are prepared once on each connection, so every case runs once before it is counted. Heartbeats and polls are
put off, and the listener's pings with them, but where they are what is counted.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any

import pytest

import operon
from operon.database import testbed
from operon.database.lease import GRACE_SECONDS, LOOKS
from operon.testing import FOLDER, SERVER, TestRuntime
from tests.guarantees.executors.proxy import CuttingProxy, cutting_proxy
from tests.guarantees.executors.wire import Wire, tapped

NEVER = 100_000.0
QUIET: dict[str, Any] = {"poll_seconds": NEVER, "lease_seconds": NEVER, "heartbeat_seconds": NEVER / 4}


# The listener has heard its first ping and holds the session lock, and the heartbeat that says so is over; so is the
# record that the executor has started.
SETTLED = """
select session_locked_at is not null and exists (select from operon.supervision_events) from operon.executors
"""


class Marks:
    """What the communicators of a test tell it."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.holding = 0
        self.held = asyncio.Event()
        self.hold_count = 0
        self.release = asyncio.Event()
        self.on_call: Callable[[int], None] = lambda _number: None


MARKS = Marks()


@operon.communicator(retry=None)
async def call(ctx: operon.CommunicatorContext, number: int = 0) -> int:
    MARKS.on_call(number)
    return number


@operon.communicator(retry=None)
async def hold(ctx: operon.CommunicatorContext) -> None:
    MARKS.holding += 1
    if MARKS.holding == MARKS.hold_count:
        MARKS.held.set()
    await MARKS.release.wait()


@operon.transaction
async def ask(tx: operon.TransactionContext, statements: int) -> int:
    for number in range(statements):
        await tx.client.fetchval("select $1::integer", number)
    return statements


@operon.transaction(read_only=True)
async def look(tx: operon.TransactionContext) -> int:
    answer: int = await tx.client.fetchval("select 1")
    return answer


@operon.workflow
async def nothing(ctx: operon.WorkflowContext) -> str:
    return "done"


@operon.workflow
async def calls(ctx: operon.WorkflowContext, count: int) -> int:
    for number in range(count):
        await call(ctx, number)
    return count


@operon.workflow
async def helpers(ctx: operon.WorkflowContext, count: int) -> int:
    for _ in range(count):
        ctx.now()
        ctx.random()
        ctx.uuid4()
    return count


@operon.workflow
async def asks(ctx: operon.WorkflowContext, statements: int) -> int:
    return await ask(ctx, statements)


@operon.workflow
async def looks(ctx: operon.WorkflowContext) -> int:
    return await look(ctx)


@operon.workflow
async def executes(ctx: operon.WorkflowContext, count: int) -> int:
    for number in range(count):
        await ctx.fetchval("select $1::integer", number)
    return count


@operon.workflow
async def receives(ctx: operon.WorkflowContext, count: int) -> list[int]:
    return [await ctx.recv("topic") for _ in range(count)]


@operon.workflow
async def calls_and_holds(ctx: operon.WorkflowContext, count: int) -> int:
    for number in range(count):
        await call(ctx, number)
    await hold(ctx)
    return count


@pytest.fixture
async def tap(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[TestRuntime, Wire]]:
    MARKS.reset()
    with tapped(monkeypatch) as wire:
        async with TestRuntime(__name__, **QUIET) as runtime:
            while not await runtime.fetchval(SETTLED):  # noqa: ASYNC110 - a fact elsewhere rings no bell
                await asyncio.sleep(0.01)
            yield runtime, wire


async def run(started: Coroutine[Any, Any, operon.WorkflowHandle[Any]]) -> Any:
    return await (await started).get_result()


async def cost(runtime: TestRuntime, wire: Wire, work: Callable[[], Coroutine[Any, Any, Any]]) -> tuple[int, int]:
    """Round trips and commits of the second or third time, whichever is more, up to the record of the end."""
    committer = runtime.executor.incarnation.committer
    await work()
    await committer.drained()
    counted: list[tuple[int, int]] = []
    for _ in range(2):
        before = len(wire)
        await work()
        await committer.drained()
        counted.append((len(wire) - before, wire.commits(since=before)))
    return max(counted)


async def test_a_workflow_without_steps_is_one_round_trip_and_one_commit(tap: tuple[TestRuntime, Wire]) -> None:
    runtime, wire = tap

    assert await cost(runtime, wire, lambda: run(nothing(runtime.context))) == (1, 1)


@pytest.mark.parametrize("count", [1, 2, 3, 10])
async def test_a_communicator_step_is_one_round_trip_and_one_commit(tap: tuple[TestRuntime, Wire], count: int) -> None:
    runtime, wire = tap

    # The start is durable before the first is called; the outcome goes with the last checkpoint.
    assert await cost(runtime, wire, lambda: run(calls(runtime.context, count))) == (count + 1, count + 1)


async def test_the_time_random_numbers_and_uuids_cost_nothing(tap: tuple[TestRuntime, Wire]) -> None:
    runtime, wire = tap

    assert await cost(runtime, wire, lambda: run(helpers(runtime.context, 20))) == (1, 1)


@pytest.mark.parametrize("statements", [0, 1, 2, 5])
async def test_a_transaction_is_its_statements_and_two_round_trips_and_one_commit(
    tap: tuple[TestRuntime, Wire], statements: int
) -> None:
    runtime, wire = tap
    around = 2  # the start before it, the outcome after it

    round_trips, commits = await cost(runtime, wire, lambda: run(asks(runtime.context, statements)))

    assert round_trips - around == statements + 2
    assert commits - around == 1
    assert wire.count("select token, output, error") == 0  # no look whether it had run


async def test_a_read_only_transaction_is_its_statements_and_two_round_trips(tap: tuple[TestRuntime, Wire]) -> None:
    runtime, wire = tap

    round_trips, commits = await cost(runtime, wire, lambda: run(looks(runtime.context)))

    assert round_trips == 1 + 3 + 1  # start; begin, statement, commit; checkpoint and outcome
    assert commits == 2


async def test_a_single_transaction_of_a_client_costs_no_more_than_a_workflow_of_one(
    tap: tuple[TestRuntime, Wire],
) -> None:
    runtime, wire = tap

    assert await cost(runtime, wire, lambda: ask(runtime.context, 1)) == await cost(
        runtime, wire, lambda: run(asks(runtime.context, 1))
    )


async def test_a_one_statement_transaction_shares_the_commit_of_its_batch(tap: tuple[TestRuntime, Wire]) -> None:
    runtime, wire = tap

    async def fifty() -> None:
        await asyncio.gather(*(run(executes(runtime.context, 1)) for _ in range(50)))

    round_trips, commits = await cost(runtime, wire, fifty)

    assert round_trips <= 30  # begin, one statement for all of a batch, flush, commit; alone it would be 200
    assert commits <= 10


async def test_workflows_that_come_together_share_their_commits(tap: tuple[TestRuntime, Wire]) -> None:
    runtime, wire = tap

    async def hundred() -> None:
        await asyncio.gather(*(run(calls(runtime.context, 1)) for _ in range(100)))

    round_trips, commits = await cost(runtime, wire, hundred)

    assert round_trips == commits <= 10  # alone it would be 200


async def test_to_be_certain_costs_a_question_now_and_then_however_many_are_called(
    tap: tuple[TestRuntime, Wire],
) -> None:
    runtime, wire = tap
    began = time.monotonic()

    await asyncio.gather(*(run(calls(runtime.context, 50)) for _ in range(20)))

    assert 1 <= wire.looks_at_the_lock <= 3 + (time.monotonic() - began) * LOOKS / GRACE_SECONDS


@pytest.mark.parametrize("messages", [1, 2])
async def test_a_parked_workflow_that_a_message_from_here_wakes_needs_no_look_into_its_mailbox_unless_there_is_more(
    monkeypatch: pytest.MonkeyPatch, messages: int
) -> None:
    parked = "select count(*) from operon.workflows where wait_kind is not null"
    with tapped(monkeypatch) as wire:
        async with TestRuntime(__name__, park_after_seconds=0, **QUIET) as runtime:
            handle = await receives(runtime.context, messages)
            while not await runtime.fetchval(parked):  # noqa: ASYNC110 - a fact elsewhere rings no bell
                await asyncio.sleep(0.01)
            before = len(wire)

            await asyncio.gather(
                *(runtime.context.send(handle.workflow_uuid, number, "topic") for number in range(messages))
            )

            assert await handle.get_result(timeout=60) == list(range(messages))
            assert (wire.count("from operon.notifications", since=before) == 0) == (messages == 1)


@pytest.mark.parametrize("steps", [1, 40])
async def test_a_replay_of_any_number_of_steps_is_one_round_trip_for_a_batch_of_workflows(
    tap: tuple[TestRuntime, Wire], steps: int
) -> None:
    runtime, wire = tap
    MARKS.hold_count = 30
    handles = [await calls_and_holds(runtime.context, steps) for _ in range(30)]
    await MARKS.held.wait()
    called: list[int] = []
    MARKS.on_call, MARKS.holding, MARKS.held = called.append, 0, asyncio.Event()
    before = len(wire)

    await runtime.crash()
    await MARKS.held.wait()
    wire = Wire(list(wire.texts))  # as it is now
    MARKS.release.set()

    assert called == []
    assert history_reads(wire, before) == 1
    assert wire.count("set owner = $1, epoch = epoch + 1", since=before) <= 2  # the claim, and its preparation
    assert wire.commits(since=before) == 0
    assert await asyncio.gather(*(handle.get_result() for handle in handles)) == [steps] * 30


def history_reads(wire: Wire, since: int) -> int:
    return sum("from operon.checkpoints" in text and not text.startswith("prepare") for text in wire.texts[since:])


async def test_no_batch_makes_a_version_of_a_row_that_is_there_for_all_of_them(tap: tuple[TestRuntime, Wire]) -> None:
    """A transaction that stays open somewhere keeps each version of a row, and whoever reads the row reads them all."""
    runtime, _ = tap
    before = await runtime.fetchval("select xmin::text from operon.executors")

    for _ in range(100):
        await (await run_to_its_end(runtime)).get_status()

    assert await runtime.fetchval("select xmin::text from operon.executors") == before
    assert await runtime.fetchval("select count(*) from operon.batches") < 150  # not all that ever were


async def run_to_its_end(runtime: TestRuntime) -> operon.WorkflowHandle[int]:
    handle = await calls(runtime.context, 1)
    await handle.get_result()
    return handle


@pytest.mark.long
async def test_an_idle_executor_asks_less_than_three_times_a_second_and_commits_less_than_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks_counted, heartbeats_counted = 15, 3
    once = ("prepare ", "supervision_events")  # what a start has to say, and the first use of a connection
    with tapped(monkeypatch) as wire:
        async with TestRuntime(__name__):  # the default configuration
            while wire.count("w.owner is null") < 3:  # noqa: ASYNC110 - a fact elsewhere rings no bell
                await asyncio.sleep(0.01)
            before, began, looks = len(wire), time.monotonic(), wire.looks_at_the_lock
            while (  # noqa: ASYNC110 - a fact elsewhere rings no bell
                wire.count("w.owner is null", since=before) < looks_counted
                or wire.count("set lease_until", since=before) < heartbeats_counted
            ):
                await asyncio.sleep(0.01)
            seconds = time.monotonic() - began
            exchanges = len(wire) - before - wire.count(*once, since=before)
            writes = wire.count("set lease_until", "operon.flush(", "commit", "set owner", since=before)

    assert (exchanges + wire.looks_at_the_lock - looks) / seconds < 3
    assert writes / seconds < 1


@pytest.mark.long
async def test_a_step_costs_the_same_after_a_thousand_others(monkeypatch: pytest.MonkeyPatch) -> None:
    MARKS.reset()
    server = os.environ.get(SERVER) or await testbed.embedded_server(FOLDER)
    seen: dict[int, tuple[int, int]] = {}
    async with AsyncExitStack() as stack:
        wire = stack.enter_context(tapped(monkeypatch))
        url, proxy = await stack.enter_async_context(cutting_proxy(server, 0))
        runtime = await stack.enter_async_context(TestRuntime(__name__, database_url=url, **QUIET))
        MARKS.on_call = lambda number: mark(seen, number, wire, proxy)
        while not await runtime.fetchval(SETTLED):  # noqa: ASYNC110 - a fact elsewhere rings no bell
            await asyncio.sleep(0.01)

        await run(calls(runtime.context, 1_201))

    early = tuple(late - soon for soon, late in zip(seen[100], seen[300], strict=True))
    late = tuple(late - soon for soon, late in zip(seen[1_000], seen[1_200], strict=True))
    assert early[0] == late[0] == 200
    assert late[1] == pytest.approx(early[1], rel=0.1)


def mark(seen: dict[int, tuple[int, int]], number: int, wire: Wire, proxy: CuttingProxy) -> None:
    seen[number] = (len(wire), proxy.bytes_sent)
