"""Operon's part of W8: an application that is served as by `operon start`, and a route of Quart beside it.

`/bare` does what the others do without a workflow, in the same Quart and behind the same Hypercorn: what it answers per
second is what the two others can be measured by.
"""

from __future__ import annotations

import asyncio
import os

from quart import Quart, request

import operon
from bench import harness
from operon.runtime.loop import settle_garbage

quart = Quart(__name__)


@quart.post("/bare")
async def bare() -> str:
    item: str = (await request.get_json())["item"]
    return item


@operon.post("/result")
@operon.workflow
async def order(ctx: operon.WorkflowContext, item: str) -> str:
    return item


@operon.post("/spawn")
async def spawn(ctx: operon.HandlerContext, item: str) -> str:
    handle = await order(ctx, item)
    return str(handle.workflow_uuid)


async def main() -> None:
    app = operon.Operon(__name__, quart=quart, database_url=os.environ[harness.DATABASE_URL], port=0)
    stop = asyncio.Event()

    async def told(url: str) -> None:
        await harness.parent_says_go({"bench": "serving", "port": int(url.rpartition(":")[2])})
        stop.set()

    async with app, asyncio.TaskGroup() as group:
        settle_garbage()
        await app.serve(lambda url: group.create_task(told(url)), stop)


if __name__ == "__main__":
    harness.run(main())
