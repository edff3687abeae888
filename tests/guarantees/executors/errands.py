"""What the executors of these tests run: errands whose every call is seen by an outside witness.

`operon start tests.guarantees.executors.errands:app` is a process in its default configuration; only the database and
the witness's port come from the environment.
"""

from __future__ import annotations

import asyncio
import os

import operon


@operon.communicator(retry=None)
async def call(ctx: operon.CommunicatorContext, name: str) -> str:
    """Tells the witness that it is being called, and returns when the witness lets it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(os.environ["WITNESS_PORT"]))
    try:
        writer.write(f"{name} {os.getpid()}\n".encode())
        answer = await reader.readline()
    finally:
        writer.close()
    if not answer:
        raise ConnectionError("the witness is gone")
    return f"{name} was seen"


@operon.workflow
async def errand(ctx: operon.WorkflowContext, name: str) -> str:
    return await call(ctx, name)


@operon.workflow
async def round_trip(ctx: operon.WorkflowContext, name: str) -> list[str]:
    return [await call(ctx, f"{name}-there"), await call(ctx, f"{name}-back")]


@operon.post("/errands/<int:count>")
async def start_errands(ctx: operon.HandlerContext, count: int) -> list[str]:
    """Starts so many errands at once; their UUIDs."""
    handles = await asyncio.gather(*(errand(ctx, f"errand-{n}") for n in range(count)))
    return [str(handle.workflow_uuid) for handle in handles]


@operon.post("/round_trips/<int:count>")
async def start_round_trips(ctx: operon.HandlerContext, count: int) -> list[str]:
    handles = await asyncio.gather(*(round_trip(ctx, f"trip-{n}") for n in range(count)))
    return [str(handle.workflow_uuid) for handle in handles]


app = operon.Operon(__name__)
