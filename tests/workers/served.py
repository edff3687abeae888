"""What the workers of these tests serve: who answers, how busy it can be, and the errands of others' tests."""

from __future__ import annotations

import os
import time

import operon
from tests.guarantees.executors import errands


@operon.get("/pid")
async def pid(ctx: operon.HandlerContext) -> int:
    return os.getpid()


@operon.transaction
async def one(tx: operon.TransactionContext) -> int:
    found: int = await tx.client.fetchval("select 1")
    return found


@operon.post("/work")
@operon.workflow
async def work(ctx: operon.WorkflowContext) -> int:
    return await one(ctx)


@operon.workflow
async def many_calls(ctx: operon.WorkflowContext, count: int) -> int:
    return len([await errands.call(ctx, f"call-{number}") for number in range(count)])


@operon.post("/many_calls/<int:count>")
async def start_many_calls(ctx: operon.HandlerContext, count: int) -> str:
    return str((await many_calls(ctx, count)).workflow_uuid)


@operon.post("/stuck")
async def stuck(ctx: operon.HandlerContext) -> None:
    time.sleep(300)  # noqa: ASYNC251 - on the event loop, on purpose


app = operon.Operon(errands, __name__)
