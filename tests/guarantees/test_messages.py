"""Promise: every message is received once, and what one sender sent arrives in the order of sending.

Whoever sends: a statement in SQL, a workflow, a handler, many at once, here or in another process. Whoever receives:
one that is in memory, or that is parked and brought back again and again.
"""

from __future__ import annotations

import asyncio
import logging
import random
from typing import Any

import pytest

from operon import WorkflowFinishedError
from operon.testing import TestRuntime
from tests.guarantees.executors import correspondents
from tests.guarantees.executors.process import executor

MANY = 1_000

PARKING = pytest.mark.parametrize("park_after_seconds", [0.0, 3600.0], ids=["always parked", "never parked"])

SEND_MANY = "select operon.send($1, to_json(n), 'numbers') from generate_series(0, $2::integer - 1) as n"


@pytest.mark.own_parking
@PARKING
async def test_a_thousand_messages_of_one_database_transaction_are_received_once_each_in_order(
    park_after_seconds: float, caplog: pytest.LogCaptureFixture
) -> None:
    async with TestRuntime(correspondents, park_after_seconds=park_after_seconds) as runtime:
        handle = await correspondents.collect(runtime.context, MANY)

        await runtime.execute(SEND_MANY, handle.workflow_uuid, MANY)

        assert await handle.get_result(timeout=60) == list(range(MANY))
        await nothing_is_left(runtime, caplog)


@pytest.mark.own_parking
@PARKING
async def test_a_thousand_messages_of_a_workflow_are_received_once_each_in_order(
    park_after_seconds: float, caplog: pytest.LogCaptureFixture
) -> None:
    async with TestRuntime(correspondents, park_after_seconds=park_after_seconds) as runtime:
        handle = await correspondents.collect(runtime.context, MANY)

        await correspondents.number(runtime.context, handle.workflow_uuid, MANY, "a")

        assert await handle.get_result(timeout=60) == numbers("a", MANY)
        await nothing_is_left(runtime, caplog)


async def test_messages_that_were_all_sent_before_are_received_once_each_in_order(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """More than are read at a time: the rest is looked for while the receipts of the first are on their way."""
    async with TestRuntime(correspondents) as runtime:
        waiting = await correspondents.collect_later(runtime.context, MANY)
        await runtime.execute(SEND_MANY, waiting.workflow_uuid, MANY)

        await runtime.context.send(waiting.workflow_uuid, "now", "begin")

        assert await waiting.get_result(timeout=60) == list(range(MANY))
        await nothing_is_left(runtime, caplog)


async def test_each_sender_of_a_batch_is_told_what_became_of_its_own_message() -> None:
    """The batch is judged as a whole, and the order of its destinations is not that of their UUIDs."""
    async with TestRuntime(correspondents, park_after_seconds=0) as runtime:
        handles = [await correspondents.collect(runtime.context, number % 2) for number in range(60)]
        over, waiting = handles[::2], handles[1::2]
        for handle in over:
            await handle.get_result()
            await handle.get_status()  # when that answers, the end is durable
        random.shuffle(handles)

        sends = [runtime.context.send(handle.workflow_uuid, str(handle.workflow_uuid), "numbers") for handle in handles]
        answers = await asyncio.gather(*sends, return_exceptions=True)

        refused = {h.workflow_uuid for h, answer in zip(handles, answers, strict=True) if answer is not None}
        assert refused == {handle.workflow_uuid for handle in over}
        assert all(answer is None or isinstance(answer, WorkflowFinishedError) for answer in answers)
        for handle in waiting:
            assert await handle.get_result(timeout=60) == [str(handle.workflow_uuid)]


@pytest.mark.long
@PARKING
async def test_of_many_senders_in_two_processes_each_is_heard_in_order(
    park_after_seconds: float, caplog: pytest.LogCaptureFixture
) -> None:
    here, there, handlers, count = ["a", "b", "c"], ["d", "e", "f"], ["g", "h"], MANY // 10
    senders = [*here, *there, *handlers]
    async with TestRuntime(correspondents, park_after_seconds=park_after_seconds) as runtime:
        async with executor(runtime.database_url, 0, "correspondents") as elsewhere:
            handle = await correspondents.collect(runtime.context, len(senders) * count)
            to = handle.workflow_uuid

            await elsewhere.post("/numbering", destination=str(to), count=count, prefixes=there)
            for prefix in here:
                await correspondents.number(runtime.context, to, count, prefix)
            await asyncio.gather(
                *(elsewhere.post("/numbers", destination=str(to), count=count, prefix=each) for each in handlers)
            )

            received: Any = await handle.get_result(timeout=60)
            for prefix in senders:
                assert [each for each in received if each.startswith(prefix)] == numbers(prefix, count)
            assert len(received) == len(senders) * count
        await nothing_is_left(runtime, caplog)


def numbers(prefix: str, count: int) -> list[str]:
    return [f"{prefix} {number}" for number in range(count)]


async def nothing_is_left(runtime: TestRuntime, caplog: pytest.LogCaptureFixture) -> None:
    """The mailboxes are empty, and nobody had to be replayed to get there."""
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []
    assert await runtime.fetchval("select count(*) from operon.notifications") == 0
    assert await runtime.fetchval("select count(*) from operon.dead_letters") == 0
    assert await runtime.fetchval("select max(crash_count) from operon.workflows") == 0
