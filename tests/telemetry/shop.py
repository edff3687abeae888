"""A shop with every kind of span, and gates to hold it where a test wants it."""

from __future__ import annotations

from typing import Annotated, Any

from opentelemetry import trace

import operon
from tests.acceptance.gates import Gates

CANARY = "canary-4242-4242"
PAYMENT = operon.Topic("payment", str)

gates = Gates()
current: dict[str, trace.Span] = {}  # what `ctx.span` was, by the operation's name


class Declined(Exception):
    """Quotes what it was given, as applications do."""

    status = 402


@operon.post("/charge")
@operon.communicator
async def charge(ctx: operon.CommunicatorContext, card: Annotated[str, operon.Masked]) -> str:
    current["charge"] = ctx.span
    return "paid"


@operon.communicator(retry=operon.Retry(max_attempts=3, interval_seconds=0.001))
async def flaky(ctx: operon.CommunicatorContext) -> int:
    if ctx.attempt < 3:
        raise ConnectionError(f"attempt {ctx.attempt}")
    return ctx.attempt


@operon.communicator(retry=None)
def decline(ctx: operon.CommunicatorContext, card: Annotated[str, operon.Masked]) -> None:
    current["decline"] = ctx.span
    ctx.logger.warning("declining %s", card)
    raise Declined(f"{card} is declined")


@operon.communicator
async def hold(ctx: operon.CommunicatorContext, gate: str) -> None:
    await gates[gate].pass_()


@operon.transaction
async def reserve(tx: operon.TransactionContext, seat: str) -> str:
    current["reserve"] = tx.span
    await tx.client.execute("select 1")
    return seat


@operon.workflow
async def ship(ctx: operon.WorkflowContext) -> str:
    return "shipped"


@operon.post("/orders/<seat>")
@operon.workflow
async def order(ctx: operon.WorkflowContext, seat: str) -> str:
    current["order"] = ctx.span
    await reserve(ctx, seat)
    await charge(ctx, CANARY)
    await ctx.execute("select 1")
    await ctx.set_event("status", "paid")
    await (await ship(ctx)).get_result()
    return seat


@operon.workflow
async def held(ctx: operon.WorkflowContext, gate: str) -> None:
    await charge(ctx, CANARY)
    await hold(ctx, gate)
    await reserve(ctx, "A1")


@operon.workflow
async def buyer(ctx: operon.WorkflowContext) -> str | None:
    await reserve(ctx, "A1")
    return await ctx.recv(PAYMENT)


@operon.workflow
async def payer(ctx: operon.WorkflowContext, to: str) -> None:
    await ctx.send(to, "coins", PAYMENT)


@operon.post("/declined/<card>")
@operon.workflow
async def declined(ctx: operon.WorkflowContext, card: Annotated[str, operon.Masked]) -> None:
    ctx.logger.info("about to charge %s", card, extra={"note": f"card {card}"})
    await decline(ctx, card)


@operon.workflow
async def careless(ctx: operon.WorkflowContext, card: str) -> None:
    """Does not mask what its step does."""
    try:
        await decline(ctx, card)
    except Declined as error:
        await hold(ctx, "careless")
        raise RuntimeError(f"no luck with {card}") from error


@operon.get("/hello")
async def hello(ctx: operon.HandlerContext) -> str:
    current["hello"] = ctx.span
    ctx.logger.info("hello")
    return "hello"


@operon.get("/broken")
async def broken(ctx: operon.HandlerContext, card: Annotated[str, operon.Masked] = "") -> str:
    raise RuntimeError(f"broken by {card} at postgres://operon:hunter2@db")


@operon.post("/pay/<uuid>")
async def pay(ctx: operon.HandlerContext, uuid: str) -> None:
    await ctx.send(uuid, "coins", PAYMENT, idempotency_key="once")


@operon.get("/status/<uuid>")
async def status(ctx: operon.HandlerContext, uuid: str) -> Any:
    return await ctx.get_event(uuid, "status", timeout=0)
