"""Operon's part of W5: a crowd of workflows that wait for a message, in memory or parked, and then get it."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import operon
from bench import harness, letters
from bench.letters import Part
from operon.contexts import InvokingContext
from operon.runtime.loop import settle_garbage


@operon.workflow
async def one_of_many(ctx: operon.WorkflowContext) -> str:
    message: str = await ctx.recv(letters.TOPIC)
    return message


async def wait_and_wake(ctx: InvokingContext, count: int, concurrency: int) -> None:
    """A small crowd first, so that what a process allocates once is not charged to those who wait."""
    handles = [await one_of_many(ctx) for _ in range(count)]
    await letters.in_turns(count, concurrency, lambda n: ctx.send(handles[n].workflow_uuid, letters.MESSAGE, "seat"))
    for handle in handles:
        await handle.get_result()


async def main(part: Part) -> None:
    # In memory: for good, however many they are. Parked: at once, each of them, with everything else as by default.
    settings: dict[str, Any] = {"park_after_seconds": 0.0}
    if part.role == "live":
        settings = {"park_after_seconds": letters.FOREVER_SECONDS, "max_live": 4 * part.count + 1_000}
    async with operon.Operon(__name__, database_url=part.database_url, **settings) as app:
        settle_garbage()
        ctx = app.context()
        await wait_and_wake(ctx, part.warm_up, part.concurrency)
        # Not a list of UUIDs: objects that stay between others that go would keep the memory of those from the system.
        uuids = bytearray(16 * part.count)

        async def start(number: int) -> None:
            handle = await one_of_many(ctx)
            uuids[16 * number : 16 * number + 16] = handle.workflow_uuid.bytes

        async def wake(number: int) -> None:
            await ctx.send(UUID(bytes=bytes(uuids[16 * number : 16 * number + 16])), letters.MESSAGE, letters.TOPIC)

        await harness.parent_says_go({"bench": "launched", "resident": harness.resident_bytes()})
        await letters.in_turns(part.count, part.concurrency, start)
        await harness.parent_says_go({"bench": "started", "resident": harness.resident_bytes()})
        await harness.parent_says_go({"bench": "waiting", "resident": harness.resident_bytes()})
        await letters.in_turns(part.count, part.concurrency, wake)
        await harness.parent_says_go({"bench": "woken"})


if __name__ == "__main__":
    harness.run(main(letters.part_from_arguments()))
