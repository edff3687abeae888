"""Workflows of a name with a limit, each of which stays until a file is there; it says how many were at a time."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import operon

ROOM = 4


class Most:
    """How many are in it, and were at most."""

    now = 0
    ever = 0


@operon.communicator
async def stays(ctx: operon.CommunicatorContext) -> None:
    Most.now += 1
    Most.ever = max(Most.ever, Most.now)
    while not Path(os.environ["WARD_OPEN"]).exists():  # noqa: ASYNC110, ASYNC240 - a file rings no bell
        await asyncio.sleep(0.01)
    Most.now -= 1


@operon.workflow(max_live=ROOM)
async def visit(ctx: operon.WorkflowContext) -> None:
    await stays(ctx)


@operon.post("/visits/<int:count>")
async def start_visits(ctx: operon.HandlerContext, count: int) -> None:
    await asyncio.gather(*(visit(ctx) for _ in range(count)))


@operon.post("/most")
async def most(ctx: operon.HandlerContext) -> int:
    return Most.ever


app = operon.Operon(__name__)
