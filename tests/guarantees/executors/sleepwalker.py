"""A workflow whose process stops itself before it calls the outside world, if it is told to.

CALLS         a file: who called, a line each
STOPS_ITSELF  set: with SIGSTOP, like any process that the machine has no time for
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import operon


def write_down(pid: int) -> int:
    with Path(os.environ["CALLS"]).open("a") as calls:
        calls.write(f"{pid}\n")
    return pid


@operon.communicator(retry=None)
async def call(ctx: operon.CommunicatorContext) -> int:
    return write_down(os.getpid())


@operon.workflow
async def walks(ctx: operon.WorkflowContext) -> int:
    await ctx.execute("select 1")  # with its start, it is durable now
    if os.environ.get("STOPS_ITSELF"):
        os.kill(os.getpid(), signal.SIGSTOP)
    return await call(ctx)


@operon.post("/walks")
async def start_walking(ctx: operon.HandlerContext) -> str:
    return str((await walks(ctx)).workflow_uuid)


app = operon.Operon(__name__)
