"""A small application of each kind of step, for tests that need something to run."""

from __future__ import annotations

import operon


@operon.communicator(retry=None)
async def salute(ctx: operon.CommunicatorContext, name: str) -> str:
    return f"Hello, {name}"


@operon.transaction
async def measure(tx: operon.TransactionContext, name: str) -> int:
    length: int = await tx.client.fetchval("select length($1)", name)
    return length


@operon.workflow
async def greet(ctx: operon.WorkflowContext, name: str) -> str:
    assert await ctx.fetchval("select 1") == 1
    return f"{await salute(ctx, name)}: {await measure(ctx, name)}"


def application(database_url: str) -> operon.Operon:
    """These operations on a database."""
    return operon.Operon(__name__, database_url=database_url)
