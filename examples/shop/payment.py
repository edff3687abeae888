"""A payment provider. It asks a customer to pay, and calls the shop's webhook once that is decided.

    operon start examples.shop.payment --port 8001      # `pip install httpx` first
    curl localhost:8001/sessions -H 'Content-Type: application/json' -H 'Idempotency-Key: order-1' \
         -d '{"cents": 499, "webhook": "http://localhost:8000/settled", "back": "http://localhost:8000"}'
    curl localhost:8001/pay/... -d decision=pay

A session is a workflow. It waits for its customer, however often the process is killed meanwhile; and whether it was
paid is decided once, by whoever speaks first: the customer, the shop that closes it, or the clock.
"""

import os
from typing import Annotated
from uuid import UUID

import httpx
from msgspec import Meta, Struct
from quart import Quart, Response, abort, render_template

import operon
from operon import CommunicatorContext, HandlerContext, InitializerContext, TransactionContext, WorkflowContext

URL = os.environ.get("PAYMENT_URL", "http://localhost:8001")
OPEN_SECONDS = 3600

Address = Annotated[str, Meta(pattern="^https?://")]


class Invoice(Struct, frozen=True):
    cents: Annotated[int, Meta(gt=0)]
    webhook: Address  # is called when the session is over
    back: Address  # where its customer goes then


class Session(Struct, frozen=True):
    session: UUID
    url: str  # the page for the customer


INVOICE = operon.EventKey("invoice", Invoice)
DECISION = operon.Topic("decision", bool)  # to pay, or not
PAID = operon.EventKey("paid", bool)


@operon.initializer
async def setup(ctx: InitializerContext) -> None:
    await ctx.client.execute("create table if not exists charges (session uuid primary key, cents bigint not null)")


@operon.transaction
async def charge(tx: TransactionContext, cents: int) -> None:
    await tx.client.execute("insert into charges values ($1, $2)", tx.workflow_uuid, cents)


@operon.communicator(retry=operon.Retry(max_attempts=100, max_interval_seconds=600))
def call_webhook(ctx: CommunicatorContext, url: str) -> None:
    headers = {"Idempotency-Key": ctx.idempotency_key}
    httpx.post(url, json={"session": str(ctx.workflow_uuid)}, headers=headers).raise_for_status()


@operon.workflow
async def session(ctx: WorkflowContext, invoice: Invoice) -> bool:
    await ctx.set_event(INVOICE, invoice)
    pays = await ctx.recv(DECISION, timeout=OPEN_SECONDS) or False
    if pays:
        await charge(ctx, invoice.cents)
    await ctx.set_event(PAID, pays)
    await call_webhook(ctx, invoice.webhook)
    return pays


@operon.post("/sessions")  # the same Idempotency-Key, the same session
@operon.workflow
async def open_session(ctx: WorkflowContext, invoice: Invoice) -> Session:
    handle = await session(ctx, invoice)  # goes on by itself
    return Session(handle.workflow_uuid, f"{URL}/pay/{handle.workflow_uuid}")


@operon.post("/sessions/<uuid:session_id>/close")
async def close(ctx: HandlerContext, session_id: UUID) -> bool | None:
    """Whether it was paid. One that is still open is closed unpaid."""
    return await decide(ctx, session_id, pay=False)


@operon.get("/pay/<uuid:session_id>")
async def show(ctx: HandlerContext, session_id: UUID) -> Response:
    invoice = await ctx.get_event(session_id, INVOICE) or abort(404)
    paid = await ctx.get_event(session_id, PAID, timeout=0)
    return Response(await render_template("pay.html", invoice=invoice, paid=paid))


@operon.post("/pay/<uuid:session_id>")
async def answer(ctx: HandlerContext, session_id: UUID) -> Response:
    form = await ctx.request.form
    await decide(ctx, session_id, pay=form["decision"] == "pay")
    return await show(ctx, session_id)


async def decide(ctx: HandlerContext, session_id: UUID, pay: bool) -> bool | None:
    """Sends a decision, of which the first counts, and waits for what came of it."""
    await ctx.send(session_id, pay, DECISION, idempotency_key=ctx.idempotency_key, ignore_finished=True)
    return await ctx.get_event(session_id, PAID)


app = operon.Operon(__name__, quart=Quart(__name__), data_dir=".operon/payment")
