"""Workflows that crash, all of them, until a file is there; each says that it ran in another file."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from uuid import UUID

import operon


@operon.workflow
async def breaks(ctx: operon.WorkflowContext, message: bool = False) -> None:
    if message:
        await ctx.recv("topic")
    folder = Path(os.environ["CROWD_FOLDER"])
    with (folder / "ran").open("a") as log:
        log.write(f"{ctx.workflow_uuid}\n")
    if not (folder / "mended").exists():
        raise MemoryError("no more")


async def start(ctx: operon.HandlerContext, count: int, *, message: bool) -> list[str]:
    handles = await asyncio.gather(*(breaks(ctx, message) for _ in range(count)))
    return [str(handle.workflow_uuid) for handle in handles]


@operon.post("/breaks/<int:count>")
async def start_breaks(ctx: operon.HandlerContext, count: int) -> list[str]:
    return await start(ctx, count, message=False)


@operon.post("/waits/<int:count>")
async def start_waits(ctx: operon.HandlerContext, count: int) -> list[str]:
    return await start(ctx, count, message=True)


@operon.post("/messages/<uuid:workflow_uuid>")
async def send_message(ctx: operon.HandlerContext, workflow_uuid: UUID) -> None:
    await ctx.send(workflow_uuid, "m", "topic")


app = operon.Operon(__name__)
