"""Operon's part of W6: workflows of three steps and a gate, and the two processes that `bench.recovery` starts."""

from __future__ import annotations

import asyncio
from typing import Any

import operon
from bench import harness
from bench.gate import Gate, Part, part_from_arguments

gate = Gate()


@operon.communicator
async def charge(ctx: operon.CommunicatorContext, item: str, number: int) -> dict[str, Any]:
    return {"step": number, "done": f"charged {item}", "cents": 5000}


@operon.communicator
async def pass_gate(ctx: operon.CommunicatorContext) -> None:
    await gate.passed()


@operon.workflow
async def interrupted(ctx: operon.WorkflowContext, item: str) -> None:
    for number in (1, 2, 3):
        await charge(ctx, item, number)
    await pass_gate(ctx)


async def main(part: Part) -> None:
    gate.shut, gate.awaited = part.role == "crash", part.workflows
    app = operon.Operon(__name__, database_url=part.database_url)
    async with app:
        if part.role == "crash":
            ctx = app.context()
            await asyncio.gather(*(interrupted(ctx, f"seat {number}") for number in range(part.workflows)))
            await gate.all_arrived.wait()
        # In both roles the parent kills this process instead of answering.
        await harness.parent_says_go({"bench": "ready"})


if __name__ == "__main__":
    harness.run(main(part_from_arguments()))
