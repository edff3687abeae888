"""W3 and W3sql: three user transactions of one INSERT each, exactly once. What a durable write costs.

W3 writes them as functions with a transaction in hand, at READ COMMITTED as for every system here; W3sql as
statements of the workflow, which commit in a group with those of other workflows.
"""

from __future__ import annotations

from typing import Any

import asyncpg

import operon
from bench import application, harness, orders

INSERT = "insert into orders (workflow_id, item) values ($1, $2)"


@operon.transaction(isolation="READ COMMITTED")
async def order(tx: operon.TransactionContext, item: str) -> dict[str, Any]:
    await tx.client.execute(INSERT, tx.workflow_uuid, item)
    return {"done": f"ordered {item}"}


@operon.workflow
async def three_transactions(ctx: operon.WorkflowContext, item: str) -> dict[str, Any]:
    await order(ctx, item)
    await order(ctx, item)
    return await order(ctx, item)


@operon.workflow
async def three_statements(ctx: operon.WorkflowContext, item: str) -> str:
    await ctx.execute(INSERT, ctx.workflow_uuid, item)
    await ctx.execute(INSERT, ctx.workflow_uuid, item)
    return await ctx.execute(INSERT, ctx.workflow_uuid, item)


async def main(task: harness.Task) -> None:
    connection = await asyncpg.connect(task.database_url)
    await connection.execute(orders.SCHEMA)
    await connection.close()
    workflow = three_transactions if task.workload == "W3" else three_statements
    await application.measure(task, __name__, workflow)


if __name__ == "__main__":
    harness.run(main(harness.task_from_arguments()))
