"""Workflows in two processes that wait for one another: for messages, for events, for ends.

Those of one process wait, are parked, and are woken; those of the other one wake them, each time a little earlier or
later, so that it happens before they park, while they do, and after.
"""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any
from uuid import UUID

import operon


async def some_time(spread_seconds: float) -> None:
    """Puts off what comes next, differently each time. No step, so nothing is recorded of it."""
    await asyncio.sleep(random.uniform(0, spread_seconds))


@operon.workflow
async def catch(ctx: operon.WorkflowContext, rounds: int) -> list[int]:
    """Gives each ball back to whoever threw it."""
    caught: list[int] = []
    for _ in range(rounds):
        thrower, number = await ctx.recv("ball")
        caught.append(number)
        await ctx.send(thrower, number, "ball")
    return caught


@operon.workflow
async def throw(ctx: operon.WorkflowContext, catcher: UUID, rounds: int, spread_seconds: float) -> list[int]:
    back: list[int] = []
    for number in range(rounds):
        await some_time(spread_seconds)
        await ctx.send(catcher, [str(ctx.workflow_uuid), number], "ball")
        back.append(await ctx.recv("ball"))
    return back


@operon.workflow
async def reply(ctx: operon.WorkflowContext, rounds: int) -> list[int]:
    """Answers the events of another workflow with events of its own."""
    asker = UUID(await ctx.recv("asker"))
    questions: list[int] = []
    for number in range(rounds):
        questions.append(await ctx.get_event(asker, f"question {number}"))
        await ctx.set_event(f"reply {number}", number)
    return questions


@operon.workflow
async def ask(ctx: operon.WorkflowContext, replier: UUID, rounds: int, spread_seconds: float) -> list[int]:
    await ctx.send(replier, str(ctx.workflow_uuid), "asker")
    replies: list[int] = []
    for number in range(rounds):
        await some_time(spread_seconds)
        await ctx.set_event(f"question {number}", number)
        replies.append(await ctx.get_event(replier, f"reply {number}"))
    return replies


@operon.workflow
async def wait_for_event(ctx: operon.WorkflowContext, target: UUID, key: str) -> Any:
    return await ctx.get_event(target, key)


@operon.workflow
async def end(ctx: operon.WorkflowContext, number: int, spread_seconds: float) -> int:
    """Ends some time after it was told to."""
    await ctx.recv("end")
    await some_time(spread_seconds)
    return number


@operon.workflow
async def await_ends(ctx: operon.WorkflowContext, others: list[UUID]) -> list[int]:
    ends: list[int] = []
    for other in others:
        await ctx.send(other, "now", "end")
        ends.append(await ctx.retrieve_workflow(other).get_result())
    return ends


@operon.workflow
async def child(ctx: operon.WorkflowContext, number: int, spread_seconds: float) -> int:
    await some_time(spread_seconds)
    return number


@operon.workflow
async def await_children(ctx: operon.WorkflowContext, rounds: int, spread_seconds: float) -> list[int]:
    ends: list[int] = []
    for number in range(rounds):
        handle = await child(ctx, number, spread_seconds)
        ends.append(await handle.get_result())
    return ends


@operon.workflow
async def dispatch(ctx: operon.WorkflowContext, destination: UUID, count: int, pause_seconds: float) -> None:
    """Sends the time, again and again."""
    for _ in range(count):
        await asyncio.sleep(pause_seconds)
        await ctx.send(destination, time.time(), "time")


@operon.workflow
async def measure(ctx: operon.WorkflowContext, count: int) -> list[float]:
    """How many seconds each of those was under way. Of use only where nothing is replayed."""
    return [time.time() - await ctx.recv("time") for _ in range(count)]


@operon.workflow
async def confirm(ctx: operon.WorkflowContext, count: int) -> None:
    """Receives so many numbers, and publishes each."""
    for _ in range(count):
        received = await ctx.recv("numbers")
        await ctx.set_event(f"number {received}", received)


@operon.workflow
async def collect(ctx: operon.WorkflowContext, count: int) -> list[int | str]:
    """Receives so many messages; in the order in which they came."""
    return [await ctx.recv("numbers") for _ in range(count)]


@operon.workflow
async def collect_later(ctx: operon.WorkflowContext, count: int) -> list[int | str]:
    """The same, from when it is told to begin."""
    await ctx.recv("begin")
    return [await ctx.recv("numbers") for _ in range(count)]


@operon.workflow
async def number(ctx: operon.WorkflowContext, destination: UUID, count: int, prefix: str) -> None:
    """Sends so many numbers, one after another."""
    for each in range(count):
        await ctx.send(destination, f"{prefix} {each}", "numbers")


@operon.post("/throws")
async def start_throws(
    ctx: operon.HandlerContext, catchers: list[UUID], rounds: int, spread_seconds: float
) -> list[str]:
    return [str((await throw(ctx, catcher, rounds, spread_seconds)).workflow_uuid) for catcher in catchers]


@operon.post("/asks")
async def start_asks(ctx: operon.HandlerContext, repliers: list[UUID], rounds: int, spread_seconds: float) -> list[str]:
    return [str((await ask(ctx, replier, rounds, spread_seconds)).workflow_uuid) for replier in repliers]


@operon.post("/ends")
async def start_ends(ctx: operon.HandlerContext, count: int, spread_seconds: float) -> list[str]:
    return [str((await end(ctx, number, spread_seconds)).workflow_uuid) for number in range(count)]


@operon.post("/dispatches")
async def start_dispatches(
    ctx: operon.HandlerContext, destinations: list[UUID], count: int, pause_seconds: float
) -> list[str]:
    return [str((await dispatch(ctx, destination, count, pause_seconds)).workflow_uuid) for destination in destinations]


@operon.post("/numbers")
async def send_numbers(ctx: operon.HandlerContext, destination: UUID, count: int, prefix: str) -> str:
    """Sends so many numbers out of a handler, one after another."""
    for each in range(count):
        await ctx.send(destination, f"{prefix} {each}", "numbers")
    return "sent"


@operon.post("/numbering")
async def start_numbering(ctx: operon.HandlerContext, destination: UUID, count: int, prefixes: list[str]) -> str:
    for prefix in prefixes:
        await number(ctx, destination, count, prefix)
    return "started"


app = operon.Operon(__name__)
