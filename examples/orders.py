"""An order that waits for its payment: a message to a workflow, and an event that says how far it is.

    operon start examples.orders
    curl localhost:8000/orders -H 'Content-Type: application/json' -d '{"item": "teapot"}'
    order=...    # what it answered
    curl localhost:8000/orders/$order
    curl localhost:8000/orders/$order/payment -H 'Content-Type: application/json' -d '{"card": "4242", "cents": 1999}'
    curl localhost:8000/orders/$order

A day without a payment, and it expires; restarts in between do not make the day longer.
"""

from uuid import UUID

from msgspec import Struct

import operon
from operon import HandlerContext, WorkflowContext


class Payment(Struct, frozen=True):
    card: str
    cents: int


PAYMENT = operon.Topic("payment", Payment)
STATUS = operon.EventKey("status", str)

PAYMENT_SECONDS = 24 * 3600


@operon.workflow
async def order(ctx: WorkflowContext, item: str) -> bool:
    await ctx.set_event(STATUS, f"{item}: awaiting payment")
    payment = await ctx.recv(PAYMENT, timeout=PAYMENT_SECONDS)  # out of memory while it waits
    await ctx.set_event(STATUS, f"{item}: {'paid' if payment else 'expired'}", replace=True)
    return payment is not None


@operon.post("/orders")
async def place(ctx: HandlerContext, item: str) -> str:
    handle = await order(ctx, item)  # starts it, and does not wait for its end
    return str(handle.workflow_uuid)


@operon.post("/orders/<uuid:order_id>/payment")
async def pay(ctx: HandlerContext, order_id: UUID, payment: Payment) -> None:
    await ctx.send(order_id, payment, PAYMENT, idempotency_key=ctx.idempotency_key)


@operon.get("/orders/<uuid:order_id>")
async def show(ctx: HandlerContext, order_id: UUID) -> str:
    return await ctx.get_event(order_id, STATUS, timeout=0) or "just placed"


app = operon.Operon(__name__)
