"""Calls that mypy and pyright must accept, with the types that they must see. Nothing here runs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from decimal import Decimal
from typing import Any, assert_type
from uuid import UUID

import operon
from operon import (
    ApplicationContext,
    Authenticated,
    CallNext,
    HandlerContext,
    MiddlewareContext,
    Received,
    Topic,
    TransactionContext,
    WorkflowContext,
    WorkflowHandle,
    WorkflowStatus,
)
from tests.typing.shop import (
    CANCEL,
    PAYMENT,
    PLACES,
    STATUS,
    Payment,
    Ticket,
    charge,
    checkout,
    page,
    price,
    print_ticket,
    reserve,
)


@operon.workflow
async def steps(ctx: WorkflowContext) -> None:
    assert_type(await reserve(ctx, "Hamlet", 1), bool)
    assert_type(await reserve(ctx, show="Hamlet", number=1), bool)
    assert_type(await price(ctx, "Hamlet"), Decimal)
    assert_type(await charge(ctx, "4242"), str)
    assert_type(await charge(ctx, "4242", cents=1), str)
    assert_type(await print_ticket(ctx, 1), bytes)


@operon.workflow(name="renamed")
async def steps_of_a_class(ctx: WorkflowContext) -> None:
    assert_type(await Ticket.reserve(ctx, "Hamlet", 1), bool)
    assert_type(await ctx.invoke(Ticket).reserve("Hamlet", number=1), bool)
    assert_type(await ctx.invoke(Ticket).print_ticket(1), bytes)
    assert_type(await ctx.invoke(Ticket).checkout("Hamlet", 1), WorkflowHandle[int])


@operon.workflow
async def children(ctx: WorkflowContext) -> str | None:
    handle = await checkout(ctx, "Hamlet", 1)
    assert_type(handle, WorkflowHandle[str | None])
    assert_type(await ctx.child_workflow(checkout, "Hamlet", 1), WorkflowHandle[str | None])
    assert_type(await handle.get_status(), WorkflowStatus | None)
    return await handle.get_result(timeout=5)


@operon.workflow
async def steps_side_by_side(ctx: WorkflowContext) -> None:
    both = await asyncio.gather(reserve(ctx, "Hamlet", 1), price(ctx, "Hamlet"))
    assert_type(both, tuple[bool, Decimal])
    async with asyncio.TaskGroup() as group:
        reserved = group.create_task(reserve(ctx, "Hamlet", 1))
    assert_type(reserved.result(), bool)


@operon.workflow
async def recorded_values(ctx: WorkflowContext) -> None:
    assert_type(ctx.now(), datetime)
    assert_type(ctx.uuid4(), UUID)
    assert_type(ctx.random(), float)
    assert_type(ctx.workflow_uuid, UUID)
    assert_type(await ctx.execute("update seats set sold = $1", False), str)
    assert_type(await ctx.fetch("select 1"), list[operon.Row])
    assert_type(await ctx.fetchrow("select 1"), operon.Row | None)


@operon.workflow
async def messages(ctx: WorkflowContext, other: UUID) -> None:
    assert_type(await ctx.recv(PAYMENT), Payment | None)
    assert_type(await ctx.recv(PAYMENT, 5), Payment | None)
    assert_type(await ctx.recv(PAYMENT, timeout=0, required=False), Payment | None)
    assert_type(await ctx.recv(PAYMENT, required=True), Payment)
    assert_type(await ctx.recv(PAYMENT, 86400, required=True), Payment)
    assert_type(await ctx.recv(), Any)
    assert_type(await ctx.recv("payment", 5, required=True), Any)
    assert_type(await ctx.recv_any(PAYMENT, CANCEL, timeout=5), Received[Any] | None)
    assert_type(await ctx.recv_any(PAYMENT, "cancel", required=True), Received[Any])
    assert_type((await ctx.recv_any(PAYMENT, CANCEL, required=True)).topic, Topic[Any] | str | None)
    assert_type(await ctx.send(other, Payment(50, "4242"), PAYMENT), None)
    assert_type(await ctx.send(str(other), "changed my mind", CANCEL, idempotency_key=("a", 1, other)), None)
    await ctx.send(other, {"anything": "goes"}, "payment", ignore_finished=True)
    await ctx.send(other, 1, idempotency_key="order 7")


@operon.workflow
async def events_and_time(ctx: WorkflowContext, other: UUID) -> None:
    assert_type(await ctx.set_event(STATUS, "paid"), None)
    await ctx.set_event(PLACES, [1, 2], replace=True)
    await ctx.set_event("anything", object())
    assert_type(await ctx.get_event(other, STATUS), str | None)
    assert_type(await ctx.get_event(str(other), PLACES, timeout=5), list[int] | None)
    assert_type(await ctx.get_event(other, "anything", 5), Any)
    assert_type(await ctx.sleep(1), None)
    assert_type(await ctx.sleep_until(ctx.now()), None)
    either: tuple[None, str | None] = await asyncio.gather(ctx.sleep(0.5), ctx.recv(CANCEL))
    both: list[str | None] = [await ctx.recv(CANCEL, required=True), await ctx.get_event(other, STATUS), either[1]]
    both.append(await ctx.get_event(other, STATUS))
    await checkout(ctx.using(timeout=60), "Hamlet", 1)


@operon.post("/webhooks/<uuid:order>")
async def webhook(ctx: HandlerContext, order: UUID, payment: Payment) -> str | None:
    await ctx.send(order, payment, PAYMENT, idempotency_key=ctx.idempotency_key)
    assert_type(await ctx.get_event(order, STATUS, timeout=60), str | None)
    return await ctx.get_event(order, STATUS)


@operon.post("/orders")
async def place(ctx: HandlerContext, show: str) -> dict[str, str]:
    handle = await checkout(ctx.using(workflow_uuid=ctx.idempotency_key), show, 1)
    assert_type(handle, WorkflowHandle[str | None])
    assert_type(await reserve(ctx, show, 1), bool)
    return {"order": str(handle.workflow_uuid)}


async def from_a_script(app: operon.Operon) -> None:
    ctx = app.context(user="ada", roles=("admin",))
    assert_type(ctx, ApplicationContext)
    assert_type(await reserve(ctx, "Hamlet", 1), bool)
    assert_type(await (await checkout(ctx, "Hamlet", 1)).get_result(), str | None)
    await ctx.send(UUID(int=1), Payment(50, "4242"), PAYMENT)
    assert_type(await ctx.get_event(UUID(int=1), STATUS), str | None)


async def a_handler_is_a_function_still(ctx: HandlerContext) -> dict[str, Decimal]:
    return await page(ctx, "Hamlet")


async def who(ctx: MiddlewareContext) -> Authenticated | None:
    rows = await ctx.query("select name, roles from users where token = $1", ctx.request.headers.get("x-token"))
    assert_type(rows, list[operon.Row])
    return Authenticated(rows[0]["name"], rows[0]["roles"]) if rows else None


def plainly_who(ctx: MiddlewareContext) -> Authenticated:
    assert_type(ctx.required_roles, tuple[str, ...] | None)
    return Authenticated("ada", ("admin",))


async def timed(ctx: MiddlewareContext, call_next: CallNext) -> object:
    return await call_next()


@operon.authentication(who)
@operon.default_required_roles("user")
@operon.middleware(timed, timed)
class Desk:
    @operon.required_roles("admin", "auditor")
    @operon.post("/above")
    @operon.transaction
    @staticmethod
    async def above(tx: TransactionContext, show: str) -> int:
        return len(tx.authenticated_roles)

    @operon.get("/below")
    @operon.required_roles()
    @staticmethod
    async def below(ctx: HandlerContext, show: str) -> int:
        assert_type(ctx.retrieve_workflow(show, owned=True), WorkflowHandle[Any])
        assert_type(await ctx.get_event(show, operon.EventKey("seats", int), owned=True), int | None)
        await ctx.send(show, 1, operon.Topic("seats", int), owned=True)
        return await Desk.above(ctx, show)


@operon.workflow
async def roles_change_no_types(ctx: WorkflowContext) -> None:
    assert_type(await Desk.above(ctx, "Hamlet"), int)
    assert_type(await ctx.invoke(Desk).above("Hamlet"), int)


operon.Operon(Desk, authentication=plainly_who)

# Operations are values: they go where a function of their signature is asked for.
takes_a_step: Callable[[WorkflowContext, str, int], Awaitable[bool]] = reserve


@operon.workflow
async def watching(ctx: WorkflowContext) -> None:
    child = await checkout(ctx, "Hamlet", 1)
    await checkout(ctx.using(timeout=5, parent_close="cancel"), "Hamlet", 1)
    ref = await ctx.monitor(child.workflow_uuid)
    assert_type(ref, UUID)
    assert_type(await ctx.recv(operon.DOWN), operon.Down | None)
    assert_type(await ctx.recv(operon.DOWN, required=True), operon.Down)
    assert_type(await ctx.recv_any(operon.DOWN, PAYMENT), Received[Any] | None)
    assert_type(await ctx.demonitor(ref), bool)


desk = operon.supervise(
    [
        operon.child("first", checkout, "Hamlet", 1),
        operon.child("second", checkout, "Hamlet", number=2).using(restart="transient"),
    ],
    name="desk",
    strategy="rest_for_one",
    intensity=operon.Intensity(restarts=5, period=60),
)
counter = operon.supervise([operon.child("desk", desk)], name="counter")


@operon.post("/counter")
async def opening(ctx: HandlerContext) -> None:
    handle = await counter(ctx)
    assert_type(handle, WorkflowHandle[None])
    assert_type(await ctx.get_event(handle.workflow_uuid, operon.EventKey("desk", UUID)), UUID | None)
