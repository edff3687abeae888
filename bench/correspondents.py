"""Operon's part of W4 and W7: workflows that write to each other, that wait for a letter, and that publish."""

from __future__ import annotations

import asyncio
import time
from uuid import UUID

import operon
from bench import harness, letters
from bench.letters import FinishLine, Part
from operon.contexts import InvokingContext
from operon.runtime.loop import settle_garbage

EVENTS_APART_SECONDS = 0.003  # so that whoever waits for the event has looked, and waits

gates: dict[int, asyncio.Event] = {}


@operon.workflow
async def pong(ctx: operon.WorkflowContext, rounds: int) -> None:
    for _ in range(rounds):
        await ctx.send(UUID(await ctx.recv("ping")), "pong", "pong")


@operon.workflow
async def ping(ctx: operon.WorkflowContext, partner: str, rounds: int) -> None:
    for _ in range(rounds):
        await ctx.send(partner, str(ctx.workflow_uuid), "ping")
        await ctx.recv("pong")


@operon.workflow
async def addressee(ctx: operon.WorkflowContext) -> str:
    message: str = await ctx.recv(letters.TOPIC)
    return message


@operon.communicator
async def pass_gate(ctx: operon.CommunicatorContext, number: int) -> None:
    await gates.setdefault(number, asyncio.Event()).wait()


@operon.workflow
async def publisher(ctx: operon.WorkflowContext, events: int) -> None:
    for number in range(events):
        await pass_gate(ctx, number)
        await ctx.set_event(str(number), time.perf_counter())


async def exchange(ctx: InvokingContext, messages: int) -> float:
    """Seconds that two workflows need for so many messages."""
    rounds = max(1, messages // 2)
    begun = time.perf_counter()
    answering = await pong(ctx, rounds)
    asking = await ping(ctx, str(answering.workflow_uuid), rounds)
    await asking.get_result()
    await answering.get_result()
    return time.perf_counter() - begun


async def receive(ctx: InvokingContext, part: Part) -> None:
    """Starts those who wait, and tells the sender who of them is finished."""
    line = FinishLine()
    handles = [await addressee(ctx) for _ in range(part.warm_up + part.count)]

    async def finish(handle: operon.WorkflowHandle[str]) -> None:
        await handle.get_result()
        line.finished(str(handle.workflow_uuid))

    async with line.open(str(handle.workflow_uuid) for handle in handles) as port:
        finishing = [asyncio.create_task(finish(handle)) for handle in handles]
        await harness.parent_says_go({"bench": "waiting", "port": port})
        await asyncio.gather(*finishing)


async def publish(ctx: InvokingContext, events: int) -> list[float]:
    """Seconds from set_event to whoever waits for it in this process, of each event."""
    gates.clear()
    handle = await publisher(ctx, events)
    latencies: list[float] = []
    for number in range(events):
        waiting = asyncio.create_task(ctx.get_event(handle.workflow_uuid, str(number)))
        await asyncio.sleep(EVENTS_APART_SECONDS)
        gates.setdefault(number, asyncio.Event()).set()
        set_at = await waiting
        latencies.append(time.perf_counter() - set_at)
    await handle.get_result()
    return latencies


async def main(part: Part) -> None:
    # Whoever waits leaves memory at once, or not at all.
    parking = {"receive": letters.FOREVER_SECONDS, "receive parked": 0.0}.get(part.role)
    async with operon.Operon(__name__, database_url=part.database_url, park_after_seconds=parking) as app:
        settle_garbage()
        ctx = app.context()
        match part.role:
            case "exchange":
                await exchange(ctx, part.warm_up)
                seconds = await exchange(ctx, part.count)
                await harness.parent_says_go({"bench": "done", "p50_ms": seconds / part.count * 1000, "p99_ms": None})
            case "send":
                latencies = await letters.send_and_wait(
                    part, lambda workflow: ctx.send(workflow, letters.MESSAGE, letters.TOPIC)
                )
                await harness.parent_says_go({"bench": "done", **letters.figures(latencies)})
            case "publish":
                await publish(ctx, part.warm_up)
                latencies = await publish(ctx, part.count)
                await harness.parent_says_go({"bench": "done", **letters.figures(latencies)})
            case _:
                await receive(ctx, part)


if __name__ == "__main__":
    harness.run(main(letters.part_from_arguments()))
