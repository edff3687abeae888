"""The operations that the right and the wrong calls are made of. Only type checkers read this folder's calls."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

import operon
from operon import CommunicatorContext, EventKey, HandlerContext, Topic, TransactionContext, WorkflowContext


@dataclass(frozen=True)
class Payment:
    cents: int
    card: str


PAYMENT = Topic("payment", Payment)
CANCEL = Topic("cancel", str)
STATUS = EventKey("status", str)
PLACES = EventKey("places", list[int])


@operon.transaction
async def reserve(tx: TransactionContext, show: str, number: int) -> bool:
    return await tx.client.execute("update seats set sold = true where (show, number) = ($1, $2)", show, number) == "1"


@operon.transaction(isolation="READ COMMITTED", read_only=True, name="price")
async def price(tx: TransactionContext, show: str) -> Decimal:
    return Decimal(await tx.client.fetchval("select price from shows where show = $1", show))


@operon.communicator
async def charge(ctx: CommunicatorContext, card: str, *, cents: int = 50_00) -> str:
    return f"{ctx.idempotency_key}: {card} {cents}"


@operon.communicator(retry=operon.Retry(max_attempts=5), timeout_seconds=1.5)
def print_ticket(ctx: CommunicatorContext, number: int) -> bytes:
    return f"{ctx.attempt} of {ctx.max_attempts}: {number}".encode()


@operon.post("/shows/<show>/seats/<int:number>")
@operon.workflow
async def checkout(ctx: WorkflowContext, show: str, number: int) -> str | None:
    return await charge(ctx, "4242") if await reserve(ctx, show, number) else None


@operon.get("/shows/<show>")
async def page(ctx: HandlerContext, show: str) -> dict[str, Decimal]:
    return {show: await price(ctx, show)}


class Ticket:
    @operon.transaction
    @staticmethod
    async def reserve(tx: TransactionContext, show: str, number: int) -> bool:
        return await tx.client.fetchval("select true") is True

    @operon.communicator(retry=None)
    @staticmethod
    def print_ticket(ctx: CommunicatorContext, number: int) -> bytes:
        return str(number).encode()

    @operon.workflow
    @staticmethod
    async def checkout(ctx: WorkflowContext, show: str, number: int) -> int:
        return number if await ctx.invoke(Ticket).reserve(show, number) else 0
