"""A workflow that stands still before it calls the outside world, in a process that says how."""

from __future__ import annotations

import os
from collections.abc import Callable

import operon

CALLS: list[str] = []  # of this process
stand_still: Callable[[str], None] | None = None


@operon.communicator(retry=None)
async def call(ctx: operon.CommunicatorContext) -> int:
    CALLS.append(ctx.idempotency_key)
    return os.getpid()


@operon.workflow
async def walks(ctx: operon.WorkflowContext) -> int:
    await ctx.execute("select 1")  # with its start, it is durable now
    if stand_still is not None:
        stand_still(str(ctx.workflow_uuid))
    return await call(ctx)


app = operon.Operon(__name__)
