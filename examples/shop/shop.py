"""A shop. It reserves what a customer wants, has the provider ask for the money, and hands it out or puts it back.

    operon start examples.shop.payment --port 8001      # in another terminal; both need `pip install httpx`
    operon start examples.shop.shop
    curl localhost:8000/checkout -d product=teapot

and open what it answers in a browser; or click through it all from http://localhost:8000. Kill either process at any
moment and start it again: the stock is right, and the customer has paid once, or not at all.
"""

import os
from typing import Any
from uuid import UUID, uuid4

import httpx
from msgspec import Struct, convert
from quart import Quart, Response, render_template

import operon
from operon import CommunicatorContext, HandlerContext, InitializerContext, TransactionContext, WorkflowContext

URL = os.environ.get("SHOP_URL", "http://localhost:8000")
PROVIDER = os.environ.get("PAYMENT_URL", "http://localhost:8001")
PAYMENT_SECONDS = float(os.environ.get("PAYMENT_SECONDS", 15 * 60))


class Product(Struct, frozen=True):
    product: str
    cents: int
    stock: int


class Order(Struct, frozen=True):
    order_id: UUID
    product: str
    state: str


class Session(Struct, frozen=True):
    """What the provider calls the customer's payment."""

    session: UUID
    url: str


PAYMENT_URL = operon.EventKey("payment_url", str)
SETTLED = operon.Topic("settled", UUID)


@operon.initializer
async def setup(ctx: InitializerContext) -> None:
    await ctx.client.execute(
        """
        create table if not exists products (
            product text primary key, cents bigint not null, stock bigint not null check (stock >= 0)
        );
        create table if not exists orders (
            order_id uuid primary key, product text not null references products, state text not null,
            placed timestamptz not null default now()
        );
        insert into products values ('teapot', 1999, 5), ('cup', 499, 12), ('samovar', 24900, 1) on conflict do nothing
        """
    )


@operon.transaction
async def reserve(tx: TransactionContext, product: str) -> int | None:
    """Takes one out of the stock for this order; its price, or None if there is none left."""
    take = "update products set stock = stock - 1 where product = $1 and stock > 0 returning cents"
    cents: int | None = await tx.client.fetchval(take, product)
    if cents is not None:
        await tx.client.execute("insert into orders values ($1, $2, 'reserved')", tx.workflow_uuid, product)
    return cents


@operon.transaction
async def hand_out(tx: TransactionContext) -> None:
    await tx.client.execute("update orders set state = 'paid' where order_id = $1", tx.workflow_uuid)


@operon.transaction
async def put_back(tx: TransactionContext) -> None:
    undo = "update orders set state = 'cancelled' where order_id = $1 returning product"
    product: str = await tx.client.fetchval(undo, tx.workflow_uuid)
    await tx.client.execute("update products set stock = stock + 1 where product = $1", product)


@operon.communicator(retry=operon.Retry(max_attempts=5))
def open_session(ctx: CommunicatorContext, cents: int) -> Session:
    order = f"{URL}/orders/{ctx.workflow_uuid}"
    return convert(post(ctx, "/sessions", {"cents": cents, "webhook": f"{order}/settled", "back": order}), Session)


@operon.communicator(retry=operon.Retry(max_attempts=1000, max_interval_seconds=600))  # for days: we have to know
def close_session(ctx: CommunicatorContext, session: UUID) -> bool:
    return convert(post(ctx, f"/sessions/{session}/close"), bool)


def post(ctx: CommunicatorContext, path: str, body: Any = None) -> Any:
    """Asks the provider. The key is the same on every attempt, so one order opens one session."""
    answer = httpx.post(PROVIDER + path, json=body, headers={"Idempotency-Key": ctx.idempotency_key})
    return answer.raise_for_status().json()


@operon.workflow
async def checkout(ctx: WorkflowContext, product: str) -> str:
    cents = await reserve(ctx, product)
    if cents is None:
        return "sold out"
    try:
        session = await open_session(ctx, cents)
    except operon.MaxRetriesExceeded:
        await put_back(ctx)
        return "cancelled, for payments are out of order"
    await ctx.set_event(PAYMENT_URL, session.url)
    await ctx.recv(SETTLED, timeout=PAYMENT_SECONDS)
    # Anybody can call a webhook, and a payment may be under way when time is up. So the provider's own word decides.
    if await close_session(ctx, session.session):
        await hand_out(ctx)
        return "paid"
    await put_back(ctx)
    return "cancelled"


@operon.post("/checkout")
async def buy(ctx: HandlerContext) -> tuple[str, int, dict[str, str]]:
    """Sends the customer on to pay. The form has a number for the order: sent twice, it is one order."""
    form = await ctx.request.form
    handle = await checkout(ctx.using(workflow_uuid=form.get("order", type=UUID)), form["product"])
    url = await ctx.get_event(handle.workflow_uuid, PAYMENT_URL)  # None if it ended without one
    url = url or f"{URL}/orders/{handle.workflow_uuid}"
    return url, 303, {"Location": url}


@operon.post("/orders/<uuid:order>/settled")
async def settled(ctx: HandlerContext, order: UUID, session: UUID) -> None:
    """The provider's webhook."""
    await ctx.send(order, session, SETTLED, idempotency_key=ctx.idempotency_key, ignore_finished=True)


@operon.get("/orders/<uuid:order>")
async def show(ctx: HandlerContext, order: UUID) -> Response:
    """Where the provider sends the customer back to, perhaps a moment before it calls the webhook."""
    try:
        state = await ctx.retrieve_workflow(order).get_result(timeout=5)
    except operon.ResultTimeout:
        state = None
    url = await ctx.get_event(order, PAYMENT_URL, timeout=0)
    return Response(await render_template("order.html", state=state, url=url))


@operon.get("/products")
@operon.transaction(read_only=True)
async def products(tx: TransactionContext) -> list[Product]:
    rows = await tx.client.fetch("select product, cents, stock from products order by cents")
    return [Product(**row) for row in rows]


@operon.get("/orders")
@operon.transaction(read_only=True)
async def orders(tx: TransactionContext) -> list[Order]:
    rows = await tx.client.fetch("select order_id, product, state from orders order by placed desc limit 50")
    return [Order(**row) for row in rows]


@operon.get("/")
async def index(ctx: HandlerContext) -> Response:
    page = await render_template("shop.html", products=await products(ctx), orders=await orders(ctx), new_number=uuid4)
    return Response(page, headers={"Cache-Control": "no-store"})  # a number for the order is used once


app = operon.Operon(__name__, quart=Quart(__name__))
