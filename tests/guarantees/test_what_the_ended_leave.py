"""Promise: who has ended costs nothing more. Whatever was to wake it is not read again by each look for work."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import UUID

import pytest

import operon
from operon.database import supervision
from operon.database.connection import connect
from operon.testing import TestRuntime
from tests.acceptance.facts import parked
from tests.guarantees.executors.process import until as until_true

WAKES = "select (select count(*) from operon.notifications where woke) + (select count(*) from operon.waits)"
PARKED = "select count(*) from operon.workflows where wait_kind is not null and status <> 0"


@operon.workflow
async def takes_one(ctx: operon.WorkflowContext) -> str:
    message: str = await ctx.recv("topic", required=True)
    return message


@operon.workflow
async def waits_for(ctx: operon.WorkflowContext, other: UUID) -> None:
    await ctx.retrieve_workflow(other).get_result()


@pytest.fixture
async def runtime() -> AsyncIterator[TestRuntime]:
    async with TestRuntime(__name__, evict_always=True, check_replay=False) as runtime:
        yield runtime


async def two_messages(runtime: TestRuntime, to: UUID) -> None:
    """Both in one transaction, so each of them finds it parked."""
    connection = await connect(runtime.database_url)
    try:
        async with connection.transaction():
            for number in range(2):
                await connection.execute("select operon.send($1, to_json($2::text), 'topic')", to, str(number))
    finally:
        await connection.close()


async def test_a_message_that_was_never_received_wakes_nobody_once_its_workflow_has_ended(runtime: TestRuntime) -> None:
    handle = await takes_one(runtime.context)
    await parked(runtime, handle.workflow_uuid)

    await two_messages(runtime, handle.workflow_uuid)

    assert await handle.get_result() == "0"
    assert await runtime.fetchval("select count(*) from operon.notifications") == 1
    assert await runtime.fetchval(WAKES) == 0
    assert await runtime.fetchval(PARKED) == 0


async def test_who_removes_a_workflow_removes_what_was_sent_to_it(runtime: TestRuntime) -> None:
    gone, stays = [(await takes_one(runtime.context)).workflow_uuid for _ in range(2)]
    for uuid in (gone, stays):
        await runtime.context.send(uuid, "hello", "other", idempotency_key="once")

    await runtime.execute("delete from operon.workflows where workflow_uuid = $1", gone)

    for left in ("notifications", "notification_keys"):
        assert await runtime.fetch(f"select destination from operon.{left}") == [(stays,)]


async def test_who_is_cancelled_while_it_is_parked_waits_for_nothing_until_it_is_resumed(runtime: TestRuntime) -> None:
    other = await takes_one(runtime.context)
    handle = await waits_for(runtime.context, other.workflow_uuid)
    await parked(runtime, other.workflow_uuid)
    await parked(runtime, handle.workflow_uuid)

    await handle.cancel()
    assert await runtime.fetchval(WAKES) == 0
    assert await runtime.fetchval(PARKED) == 0

    await handle.resume()
    await until_true(runtime.database_url, "select count(*) = 1 from operon.waits")
    await runtime.context.send(other.workflow_uuid, "go on", "topic")
    await handle.get_result()

    assert await runtime.fetchval(WAKES) == 0


async def test_what_comes_in_the_moment_of_an_end_is_swept_away(runtime: TestRuntime) -> None:
    """The sender had looked before the end, and its message lands after it."""
    handle = await takes_one(runtime.context)
    await runtime.context.send(handle.workflow_uuid, "0", "topic")
    await handle.get_result()
    await runtime.execute(
        "insert into operon.notifications (destination, topic, body, woke) values ($1, 'topic', '1', true)",
        handle.workflow_uuid,
    )
    await runtime.execute(
        "insert into operon.waits (target, waiter, due, key) values ($1, $1, true, '')", handle.workflow_uuid
    )

    await runtime.executor.look_ups.ask(supervision.sweep)

    assert await runtime.fetchval(WAKES) == 0
