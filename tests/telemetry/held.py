"""An application whose first process never gets beyond its second step."""

from __future__ import annotations

import asyncio
import os

import operon


@operon.communicator
async def first(ctx: operon.CommunicatorContext) -> str:
    return "done"


@operon.communicator
async def second(ctx: operon.CommunicatorContext) -> str:
    if os.environ["LIFE"] == "1":
        await asyncio.Event().wait()
    return "done"


@operon.post("/work")
@operon.workflow
async def work(ctx: operon.WorkflowContext) -> str:
    await first(ctx)
    return await second(ctx)


app = operon.Operon(__name__, poll_seconds=0.1, lease_seconds=2.0, heartbeat_seconds=0.4)
