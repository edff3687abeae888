"""An application with one more workflow than its neighbours: a version that only some executors have."""

from __future__ import annotations

import operon
from tests.guarantees.executors import errands


@operon.workflow
async def novelty(ctx: operon.WorkflowContext, name: str) -> str:
    return await errands.call(ctx, name)


@operon.post("/novelties/<name>")
async def start_novelty(ctx: operon.HandlerContext, name: str) -> str:
    handle = await novelty(ctx, name)
    return str(handle.workflow_uuid)


app = operon.Operon(errands, __name__)
