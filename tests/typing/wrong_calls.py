# type: ignore  # only for the ordinary runs of the checkers: test_calls.py has them read this file without this line
"""Calls that mypy and pyright must both refuse: exactly the lines marked as wrong. Nothing here runs."""

from __future__ import annotations

import operon
from operon import CommunicatorContext, HandlerContext, MiddlewareContext, TransactionContext, WorkflowContext
from tests.typing.shop import CANCEL, PAYMENT, PLACES, STATUS, Payment, Ticket, charge, checkout, page, reserve


@operon.transaction
async def a_step_in_a_transaction(tx: TransactionContext) -> None:
    await reserve(tx, "Hamlet", 1)  # wrong
    await Ticket.reserve(tx, "Hamlet", 1)  # wrong
    await checkout(tx, "Hamlet", 1)  # wrong
    await tx.invoke(Ticket).reserve("Hamlet", 1)  # wrong


@operon.communicator
async def a_step_in_a_communicator(ctx: CommunicatorContext) -> None:
    await charge(ctx, "4242")  # wrong
    await ctx.client.execute("select 1")  # wrong


@operon.workflow
async def a_missing_context(ctx: WorkflowContext) -> None:
    await reserve("Hamlet", 1)  # wrong
    await checkout("Hamlet", 1)  # wrong
    await Ticket.reserve("Hamlet", 1)  # wrong


@operon.workflow
async def a_context_too_many(ctx: WorkflowContext) -> None:
    await ctx.invoke(Ticket).reserve(ctx, "Hamlet", 1)  # wrong


@operon.workflow
async def a_wrong_argument(ctx: WorkflowContext) -> None:
    await reserve(ctx, "Hamlet", "1")  # wrong
    await reserve(ctx, "Hamlet")  # wrong
    await reserve(ctx, "Hamlet", 1, 2)  # wrong
    await reserve(ctx, "Hamlet", seat=1)  # wrong
    await charge(ctx, "4242", 50_00)  # wrong
    await checkout(ctx, "Hamlet", None)  # wrong


@operon.workflow
async def a_wrong_argument_through_the_class(ctx: WorkflowContext) -> None:
    await Ticket.reserve(ctx, "Hamlet", "1")  # wrong
    await ctx.invoke(Ticket).reserve("Hamlet", "1")  # wrong
    await ctx.invoke(Ticket).reserve("Hamlet")  # wrong
    await ctx.invoke(Ticket).release("Hamlet", 1)  # wrong


@operon.workflow
async def a_handle_is_not_the_result(ctx: WorkflowContext) -> str | None:
    return await checkout(ctx, "Hamlet", 1)  # wrong


@operon.workflow
async def a_result_of_another_type(ctx: WorkflowContext) -> int:
    handle = await checkout(ctx, "Hamlet", 1)
    return await handle.get_result()  # wrong


@operon.workflow
async def a_handler_is_no_step(ctx: WorkflowContext) -> None:
    await page(ctx, "Hamlet")  # wrong


@operon.workflow
async def a_child_that_is_no_workflow(ctx: WorkflowContext) -> None:
    await ctx.child_workflow(reserve, "Hamlet", 1)  # wrong


@operon.workflow
async def a_child_with_a_wrong_argument(ctx: WorkflowContext) -> None:
    await ctx.child_workflow(checkout, "Hamlet", "1")  # wrong


@operon.get("/")
async def sql_in_a_handler(ctx: HandlerContext) -> None:
    await ctx.execute("select 1")  # wrong
    ctx.now()  # wrong


@operon.get("/messages")
async def messages_in_a_handler(ctx: HandlerContext) -> None:
    await ctx.recv(PAYMENT)  # wrong
    await ctx.recv_any(PAYMENT, CANCEL)  # wrong
    await ctx.set_event(STATUS, "paid")  # wrong
    await ctx.sleep(1)  # wrong


@operon.communicator
async def messages_in_a_communicator(ctx: CommunicatorContext) -> None:
    await ctx.send(ctx.workflow_uuid, "hello")  # wrong
    await ctx.get_event(ctx.workflow_uuid, STATUS)  # wrong


@operon.transaction
async def messages_in_a_transaction(tx: TransactionContext) -> None:
    await tx.send(tx.workflow_uuid, "hello")  # wrong
    await tx.recv()  # wrong


@operon.workflow
async def a_message_of_another_type(ctx: WorkflowContext) -> None:
    await ctx.send(ctx.workflow_uuid, "50 cents", PAYMENT)  # wrong
    await ctx.send(ctx.workflow_uuid, Payment(50, "4242"), CANCEL)  # wrong
    await ctx.send(ctx.workflow_uuid, None, CANCEL)  # wrong


@operon.workflow
async def a_message_that_may_not_come(ctx: WorkflowContext) -> Payment:
    return await ctx.recv(PAYMENT, 5)  # wrong


@operon.workflow
async def a_message_received_as_another_type(ctx: WorkflowContext) -> str:
    return await ctx.recv(PAYMENT, required=True)  # wrong


@operon.workflow
async def a_message_to_nobody(ctx: WorkflowContext) -> None:
    await ctx.send(7, "hello")  # wrong
    await ctx.send(ctx.workflow_uuid)  # wrong
    await ctx.send(ctx.workflow_uuid, "hello", idempotency_key=1.5)  # wrong
    await ctx.send(ctx.workflow_uuid, "hello", STATUS)  # wrong


@operon.workflow
async def an_event_of_another_type(ctx: WorkflowContext) -> int | None:
    await ctx.set_event(STATUS, 7)  # wrong
    await ctx.set_event(PLACES, ["1"])  # wrong
    await ctx.set_event(PAYMENT, Payment(50, "4242"))  # wrong
    return await ctx.get_event(ctx.workflow_uuid, STATUS)  # wrong


@operon.workflow
async def an_event_that_may_not_be_set(ctx: WorkflowContext) -> str:
    return await ctx.get_event(ctx.workflow_uuid, STATUS, timeout=5)  # wrong


@operon.workflow
async def times_that_are_none(ctx: WorkflowContext) -> None:
    await ctx.sleep("1")  # wrong
    await ctx.sleep_until(5)  # wrong
    await ctx.recv(PAYMENT, "5")  # wrong
    ctx.using(timeout="5")  # wrong


@operon.workflow  # wrong
async def the_context_of_another_kind(tx: TransactionContext) -> None: ...


@operon.transaction  # wrong
async def the_context_of_a_workflow(ctx: WorkflowContext) -> None: ...


@operon.workflow  # wrong
def a_workflow_that_does_not_wait(ctx: WorkflowContext) -> int:
    return 1


@operon.transaction  # wrong
def a_transaction_that_does_not_wait(tx: TransactionContext) -> None: ...


@operon.transaction(isolation="CHAOS")  # wrong
async def an_unknown_isolation(tx: TransactionContext) -> None: ...


@operon.communicator(retry=3)  # wrong
async def a_number_for_a_retry(ctx: CommunicatorContext) -> None: ...


@operon.workflow  # wrong
@operon.post("/orders")
async def the_route_below_the_operation(ctx: HandlerContext) -> None: ...


@operon.post  # wrong
async def a_route_without_a_path(ctx: HandlerContext) -> None: ...


async def a_user_who_is_a_text(ctx: MiddlewareContext) -> str:
    return "ada"


@operon.authentication(a_user_who_is_a_text)  # wrong
@operon.default_required_roles(["admin", "auditor"])  # wrong
@operon.middleware(a_user_who_is_a_text)  # wrong
class Desk: ...


@operon.required_roles("admin")
@operon.workflow
async def roles_keep_arguments(ctx: WorkflowContext) -> None:
    await roles_keep_arguments(ctx, "Hamlet")  # wrong


@operon.get("/")
async def a_handler_has_no_mailbox(ctx: HandlerContext) -> None:
    await ctx.monitor(ctx.workflow_uuid)  # wrong


@operon.workflow
async def what_is_told_of_an_end(ctx: WorkflowContext) -> str:
    return await ctx.recv(operon.DOWN, required=True)  # wrong


@operon.get("/")
async def a_handler_is_nobodys_parent(ctx: HandlerContext) -> None:
    await checkout(ctx.using(parent_close="cancel"), "Hamlet", 1)  # wrong


@operon.workflow
async def an_unknown_end(ctx: WorkflowContext) -> None:
    await checkout(ctx.using(parent_close="forget"), "Hamlet", 1)  # wrong


operon.child("seat", checkout, 1, "Hamlet")  # wrong
operon.child("seat", reserve, "Hamlet", 1)  # wrong
operon.child("seat", checkout, "Hamlet", 1).using(restart="always")  # wrong
operon.supervise([checkout], name="seats")  # wrong
