"""Promise: a message has one receiver and is received by one receipt, whoever else looks into the mailbox.

Two processes that both believe to own a workflow; a receipt that gives up in the moment in which the message comes.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
from collections import Counter
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest

import operon
from operon.handles import WorkflowHandle
from operon.testing import TestRuntime
from tests.guarantees.worker.case import Case, Server, is_stopped, kill, until
from tests.guarantees.worker.life import Start
from tests.guarantees.worker.sites import ANY, Site
from tests.guarantees.worker.sweep import sweep

pytestmark = pytest.mark.long

SEND = "select operon.send($1, to_json(n), 'numbers') from generate_series($2::integer, $3::integer - 1) as n"
# What a workflow has received, in order.
RECEIVED = """
    select convert_from(output, 'UTF8')::int from operon.checkpoints
    where workflow_uuid = $1 and kind = 11 and output <> '' order by step
"""

# ------------------------------------------------------------------ two receivers


@pytest.mark.own_parking
async def test_of_two_processes_that_own_a_workflow_only_one_receives(server: Server) -> None:
    """One sleeps over its lease with messages in its hands, and goes on while the other receives."""
    places = [Site(ANY, "before", nth, "SIGSTOP", since="flush start receive") for nth in range(4, 40, 3)]

    async def sleeps(site: Site) -> None:
        async with server.case(str(site), park_after_seconds=0.05) as case:
            await two_receive(case, site)

    await sweep(places, sleeps, at_once=6)


async def two_receive(case: Case, site: Site) -> None:
    work = Start("receive", uuid4(), (30,))
    sleeper = case.begin([work], site)
    await until(partial(begun, case))  # it may fall asleep before it tells anybody
    await case.connection.execute(SEND, work.uuid, 0, 12)
    await until(lambda: is_stopped(sleeper))
    await case.connection.execute(SEND, work.uuid, 12, 20)
    other = case.begin(case.again([work]), stay=True)
    await until(lambda: received(case, work.uuid, 20))

    os.kill(sleeper.pid or 0, signal.SIGCONT)
    for number in range(20, 30):
        await case.connection.execute(SEND, work.uuid, number, number + 1)

    assert await case.ended(sleeper) == 0
    await case.heard(lambda: any(news.what == "result" for news in case.news(1)))
    kill(other)
    await case.ended(other)
    await case.settled()
    assert [news.value for news in case.news() if news.what != "started"] == [list(range(30))] * 2
    assert [row[0] for row in await case.connection.fetch(RECEIVED, work.uuid)] == list(range(30))
    assert await case.connection.fetchval("select count(*) from operon.notifications") == 0
    # What the world was told of a step is the same whoever told it.
    assert len({(call.key, call.payload) for call in case.calls()}) == 30
    assert len({call.key for call in case.calls()}) == 30


async def begun(case: Case) -> bool:
    """Whether the workflow is in the database."""
    return bool(await case.connection.fetchval("select count(*) from operon.workflows"))


async def received(case: Case, workflow: UUID, count: int) -> bool:
    """Whether so many messages were received."""
    return len(await case.connection.fetch(RECEIVED, workflow)) >= count


# ------------------------------------------------------------------ a message at the deadline

LATE = operon.Topic("late", int)
SPREAD_SECONDS = 0.005
WAIT_SECONDS = 0.8
MOST_RACES = 40


@operon.workflow
async def receive_late(ctx: operon.WorkflowContext) -> list[int | None]:
    """What comes in time, and what is there afterwards."""
    in_time = await ctx.recv(LATE, timeout=WAIT_SECONDS)
    await ctx.recv("sent")
    return [in_time, await ctx.recv(LATE, timeout=0)]


DEADLINES = """
    select workflow_uuid, convert_from(output, 'UTF8')::float8 from operon.checkpoints
    where kind = 15 and name = 'late' and workflow_uuid = any ($1)
"""


async def test_a_message_at_the_deadline_of_its_receipt_comes_then_or_the_next_time() -> None:
    async with TestRuntime(__name__) as runtime:
        await races(runtime, [None] * 5)


async def test_a_message_at_the_deadline_of_its_receipt_is_not_lost_when_the_receiver_crashes_there() -> None:
    """A crash a little before the deadlines, at them, and after, with parked receivers and live ones."""
    crashes: list[float | None] = [-0.01, 0.0, 0.004, 0.02]
    async with (
        TestRuntime(__name__, park_after_seconds=0, poll_seconds=0.1) as parking,
        TestRuntime(__name__, poll_seconds=0.1) as runtime,
    ):
        await races(parking, crashes)
        await races(runtime, crashes)


async def races(runtime: TestRuntime, crashes: list[float | None], least: int = 5) -> None:
    """Races with each of these crashes, and again until so many messages came in time, and so many the next time.

    How long it takes until a message is durable depends on the machine and its load: each race aims by the one before.
    """
    outcomes = Counter[tuple[int | None, ...]]()
    early = 0.004
    for nth, crash_at in enumerate(itertools.islice(itertools.cycle(crashes), MOST_RACES), 1):
        found = await race(runtime, crash_at, early)
        outcomes += Counter(tuple(result) for result in found)
        early += SPREAD_SECONDS * (0.5 - found.count([1, None]) / len(found))
        if nth >= len(crashes) and min(outcomes[1, None], outcomes[None, 1]) >= least:
            break
    assert set(outcomes) == {(1, None), (None, 1)}, outcomes
    assert min(outcomes.values()) >= least, f"{outcomes}: no race"


async def race(runtime: TestRuntime, crash_at: float | None, early: float, racers: int = 50) -> list[list[int | None]]:
    """Sends to many, each so early before its deadline, a little more or less; crashes that long after the first."""
    handles: list[WorkflowHandle[Any]] = [await receive_late(runtime.context) for _ in range(racers)]
    async with asyncio.timeout(60):
        while len(deadlines := dict(await runtime.fetch(DEADLINES, uuids(handles)))) < racers:  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # between two looks at rows
    clock = runtime.executor.incarnation.clock

    async def send(handle: WorkflowHandle[Any]) -> None:
        at = deadlines[handle.workflow_uuid] + random.uniform(-SPREAD_SECONDS, SPREAD_SECONDS) - early
        await asyncio.sleep(at - clock.now())
        # Whoever sends from outside, and may have to send again, says so.
        await runtime.context.send(handle.workflow_uuid, 1, LATE, idempotency_key="once")
        await runtime.context.send(handle.workflow_uuid, None, "sent", idempotency_key="sent")

    async def crash() -> None:
        if crash_at is not None:
            await asyncio.sleep(min(deadlines.values()) + crash_at - clock.now())
            await runtime.crash()

    async with asyncio.timeout(60):
        await asyncio.gather(crash(), *map(send, handles))
        results = await asyncio.gather(*(handle.get_result() for handle in handles))
    await consistent(runtime)
    return results


async def consistent(runtime: TestRuntime) -> None:
    """What is recorded of each is what it returned, and whatever was sent was received."""
    assert await runtime.fetchval("select count(*) from operon.notifications") == 0
    assert await runtime.fetchval("select count(*) from operon.dead_letters") == 0
    assert await runtime.fetch(DISAGREE) == []


# Whose result is not what its two receipts recorded.
DISAGREE = """
    select w.workflow_uuid, convert_from(w.output, 'UTF8'), recorded.answers
    from operon.workflows w
    join lateral (
        -- Nothing in time is recorded as no text at all.
        select '[' || string_agg(
            coalesce(nullif(convert_from(c.output, 'UTF8'), ''), 'null'), ',' order by c.step
        ) || ']' as answers
        from operon.checkpoints c
        where c.workflow_uuid = w.workflow_uuid and c.kind = 11 and c.name = 'late'
    ) as recorded on true
    where w.status = 1 and convert_from(w.output, 'UTF8') <> recorded.answers
"""


def uuids(handles: list[WorkflowHandle[Any]]) -> list[UUID]:
    return [handle.workflow_uuid for handle in handles]


async def test_a_message_at_the_deadline_of_its_receipt_is_not_lost_when_the_process_is_killed_there(
    server: Server,
) -> None:
    """The same with a process that dies at the messages to the database around the deadline."""
    places = [Site(ANY, "after" if nth % 2 else "before", nth, since="flush park recv numbers") for nth in range(1, 26)]

    async def killed_once(site: Site) -> None:
        async with server.case(str(site), park_after_seconds=0.05) as case:
            await killed_at_a_deadline(case, site)

    await sweep(places, killed_once)


async def killed_at_a_deadline(case: Case, site: Site) -> None:
    work = Start("wait_shortly", uuid4(), (0.2,))
    process = case.begin([work], site)
    await case.heard(lambda: bool(case.news(0)))
    await asyncio.sleep(random.uniform(0.18, 0.22))  # where the message falls
    await case.connection.execute(SEND, work.uuid, 1, 2)
    await case.connection.execute("select operon.send($1, 'null', 'sent')", work.uuid)
    await case.ended(process)
    await case.settled()
    assert await case.live(case.again([work])) == 0

    row = await case.connection.fetchrow("select status, output from operon.workflows")
    result = msgspec.json.decode(row["output"])
    assert result in ([1, None], [None, 1]), f"{case}: {result}"
    assert [row[0] for row in await case.connection.fetch(RECEIVED_NUMBERS, work.uuid)] == [1]
    assert await case.connection.fetchval("select count(*) from operon.notifications") == 0


RECEIVED_NUMBERS = f"{RECEIVED.replace('order by step', '')} and name = 'numbers'"
