"""Greet people, count the greetings, and take one back when the postman cannot deliver it.

operon start examples.hello
curl localhost:8000/greeting/Ada
curl localhost:8000/greeting/Nobody     # not delivered, not counted
"""

import operon
from operon import CommunicatorContext, InitializerContext, TransactionContext, WorkflowContext


@operon.initializer
async def setup(ctx: InitializerContext) -> None:
    await ctx.client.execute("create table if not exists greetings (name text primary key, greeted bigint not null)")


@operon.transaction
async def count(tx: TransactionContext, name: str) -> int:
    add = "insert into greetings as g values ($1, 1) on conflict (name) do update set greeted = g.greeted + 1"
    greeted: int = await tx.client.fetchval(f"{add} returning greeted", name)
    return greeted


@operon.transaction
async def uncount(tx: TransactionContext, name: str) -> None:
    await tx.client.execute("update greetings set greeted = greeted - 1 where name = $1", name)


@operon.communicator(retry=operon.Retry(max_attempts=2, interval_seconds=0.1))
async def deliver(ctx: CommunicatorContext, name: str, greeting: str) -> None:
    if name == "Nobody":
        raise LookupError("Nobody lives here")
    ctx.logger.info("Delivered to %s: %s", name, greeting)


@operon.get("/greeting/<name>")
@operon.workflow
async def greet(ctx: WorkflowContext, name: str) -> str:
    greeted = await count(ctx, name)
    greeting = f"Hello, {name}! You have been greeted {greeted} times."
    try:
        await deliver(ctx, name, greeting)
    except operon.MaxRetriesExceeded:
        await uncount(ctx, name)  # what was committed is undone by another transaction
        return f"The greeting for {name} came back."
    return greeting


app = operon.Operon(__name__)
