"""Promise: whatever a parked workflow waits for, a message to it is taken, and received once it gets there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import pytest

import operon
from operon.testing import TestRuntime
from tests.acceptance.facts import parked

FOREVER = 3600.0
MESSAGES = [0, 1, 2]


async def receive(ctx: operon.WorkflowContext) -> list[int]:
    return [await ctx.recv("numbers") for _ in MESSAGES]


@operon.workflow
async def sleeps(ctx: operon.WorkflowContext) -> list[int]:
    await ctx.sleep(FOREVER)
    return await receive(ctx)


@operon.workflow
async def waits_for_another_topic(ctx: operon.WorkflowContext) -> list[int]:
    await ctx.recv("go on")
    return await receive(ctx)


@operon.workflow
async def waits_for_a_message_without_a_topic(ctx: operon.WorkflowContext) -> list[int]:
    await ctx.recv()
    return await receive(ctx)


@operon.workflow
async def waits_for_an_event(ctx: operon.WorkflowContext) -> list[int]:
    await ctx.get_event(ctx.workflow_uuid, "never set", timeout=FOREVER)
    return await receive(ctx)


@operon.workflow
async def waits_for_a_child(ctx: operon.WorkflowContext) -> list[int]:
    await (await forever(ctx)).get_result()
    return await receive(ctx)


@operon.workflow
async def forever(ctx: operon.WorkflowContext) -> None:
    await ctx.sleep(FOREVER)


@operon.workflow
async def sends(ctx: operon.WorkflowContext, to: UUID, numbers: list[int]) -> None:
    for number in numbers:
        await ctx.send(to, number, "numbers")


async def from_a_workflow_one_at_a_time(runtime: TestRuntime, to: UUID) -> None:
    for number in MESSAGES:
        await (await sends(runtime.context, to, [number])).get_result()


async def from_a_workflow(runtime: TestRuntime, to: UUID) -> None:
    await (await sends(runtime.context, to, MESSAGES)).get_result()


async def from_outside(runtime: TestRuntime, to: UUID) -> None:
    for number in MESSAGES:
        await runtime.context.send(to, number, "numbers")


async def from_outside_once(runtime: TestRuntime, to: UUID) -> None:
    for number in MESSAGES * 2:
        await runtime.context.send(to, number, "numbers", idempotency_key=str(number))


async def from_sql(runtime: TestRuntime, to: UUID) -> None:
    for number in MESSAGES:
        assert await runtime.fetchval("select operon.send($1, to_json($2::integer), 'numbers')", to, number)


SENDERS = [from_a_workflow_one_at_a_time, from_a_workflow, from_outside, from_outside_once, from_sql]
WAITS = [
    sleeps,
    waits_for_another_topic,
    waits_for_a_message_without_a_topic,
    waits_for_an_event,
    waits_for_a_child,
]


@pytest.mark.parametrize("send", SENDERS)
@pytest.mark.parametrize("waits", WAITS, ids=lambda operation: operation.name)
async def test_a_message_to_a_parked_workflow_that_waits_for_something_else_is_kept_for_it(
    waits: Any, send: Callable[[TestRuntime, UUID], Awaitable[None]]
) -> None:
    async with TestRuntime(__name__, park_after_seconds=0) as runtime:
        handle = await waits(runtime.context)
        await parked(runtime, handle.workflow_uuid)

        await send(runtime, handle.workflow_uuid)

        assert await runtime.fetchval("select count(*) from operon.notifications where not woke") == len(MESSAGES)
        assert await runtime.fetchval(PARKED, handle.workflow_uuid)
        await runtime.fetchval("select operon.send($1, 'null', 'go on')", handle.workflow_uuid)
        await runtime.fetchval("select operon.send($1, 'null')", handle.workflow_uuid)
        await runtime.advance(seconds=2 * FOREVER)
        assert await handle.get_result(timeout=60) == MESSAGES


PARKED = "select wait_kind is not null from operon.workflows where workflow_uuid = $1"
