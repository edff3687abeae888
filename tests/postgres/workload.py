"""A bit of everything that writes: transactions, statements, communicators, messages, events, sleeps, children.

What is asked at the end, whatever happened to the database meanwhile: every workflow has finished with the right
result, every entry is in the ledger once, and no step was recorded as an error. The ledger has no unique key, so a
second commit of one step would be a second row.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any
from uuid import UUID

import asyncpg

import operon

CALLS: Counter[str] = Counter()
RESULT = ["child", "called", "answer", 4, 2]
ENTRIES = 5


@operon.communicator(retry=None)
async def call(ctx: operon.CommunicatorContext) -> str:
    CALLS[ctx.idempotency_key] += 1
    return "called"


@operon.transaction
async def book(tx: operon.TransactionContext, entry: str) -> str:
    await tx.client.execute("insert into ledger values ($1, $2)", tx.workflow_uuid, entry)
    return entry


@operon.transaction(isolation="READ COMMITTED")
async def book_twice(tx: operon.TransactionContext) -> int:
    await tx.client.executemany(
        "insert into ledger values ($1, $2)", [(tx.workflow_uuid, "second-a"), (tx.workflow_uuid, "second-b")]
    )
    return len(
        [row async for row in tx.client.cursor("select entry from ledger where workflow_uuid = $1", tx.workflow_uuid)]
    )


@operon.transaction(read_only=True)
async def count(tx: operon.TransactionContext) -> int:
    found: int = await tx.client.fetchval("select count(*) from ledger where workflow_uuid = $1", tx.workflow_uuid)
    return found


@operon.workflow
async def child(ctx: operon.WorkflowContext, parent: str) -> str:
    question = await ctx.recv("question", timeout=600)
    await ctx.send(UUID(parent), f"answer to {question}", "answer")
    return await book(ctx, "child")


@operon.workflow
async def everything(ctx: operon.WorkflowContext) -> list[Any]:
    """Five entries in the ledger, one of them its child's."""
    await book(ctx, "first")
    helper = await child(ctx, str(ctx.workflow_uuid))
    await ctx.set_event("helper", str(helper.workflow_uuid))
    await ctx.send(helper.workflow_uuid, "what", "question")
    called = await call(ctx)
    await ctx.sleep(0.2)
    await ctx.execute("insert into ledger values ($1, 'statement')", ctx.workflow_uuid)
    answer = await ctx.recv("answer", timeout=600)
    seen = await book_twice(ctx)
    return [await helper.get_result(), called, str(answer).split()[0], await count(ctx), seen // 2]


async def prepare(url: str) -> None:
    """The ledger."""
    connection: Any = await asyncpg.connect(url, statement_cache_size=0)
    await connection.execute("create table if not exists ledger (workflow_uuid uuid not null, entry text not null)")
    await connection.close()


async def begun() -> None:
    """Waits until some of it is under way."""
    async with asyncio.timeout(60):
        while not CALLS:  # noqa: ASYNC110 - a fact elsewhere rings no bell
            await asyncio.sleep(0.01)


async def run(app: operon.Operon, number: int, *, seconds: float = 100) -> None:
    """Runs so many workflows and waits for their results."""
    await finished([await everything(app.context()) for _ in range(number)], seconds=seconds)


async def finished(handles: list[operon.WorkflowHandle[list[Any]]], *, seconds: float = 100) -> None:
    """Waits for these."""
    async with asyncio.timeout(seconds):
        results = await asyncio.gather(*(handle.get_result() for handle in handles))
        await asyncio.gather(*(handle.get_status() for handle in handles))  # an end is told before it is durable
    wrong = [result for result in results if result != RESULT]
    assert not wrong, wrong


async def assert_once(url: str, number: int) -> None:
    """Everything happened once, and nothing failed."""
    connection: Any = await asyncpg.connect(url, statement_cache_size=0)
    try:
        assert (
            await connection.fetch(
                "select workflow_uuid, entry from ledger group by workflow_uuid, entry having count(*) > 1"
            )
            == []
        )
        assert await connection.fetchval("select count(*) from ledger") == number * ENTRIES
        assert await connection.fetchval("select count(*) from operon.workflows where status <> 1") == 0
        assert await connection.fetchval("select count(*) from operon.workflows") == 2 * number
        assert await connection.fetchval("select count(*) from operon.checkpoints where error is not null") == 0
        assert await connection.fetchval("select count(*) from operon.notifications") == 0
    finally:
        await connection.close()


async def value(url: str, question: str) -> Any:
    """The first column of the first row, asked on a connection of its own."""
    connection: Any = await asyncpg.connect(url, statement_cache_size=0)
    try:
        return await connection.fetchval(question)
    finally:
        await connection.close()
