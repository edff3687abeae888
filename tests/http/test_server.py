"""A request reaches an operation or a handler, with the context that belongs to it."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID, uuid4

import pytest

from operon.contexts import CommunicatorContext, HandlerContext, TransactionContext, WorkflowContext
from operon.http.identity import from_key
from operon.operations import communicator, transaction, workflow
from operon.routes import get, post
from tests.http.conftest import DirectInvoker, quart_of, served

JSON = {"content-type": "application/json"}
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class SoldOut(Exception):
    status = 409


@post("/workflow/<item>")
@workflow
async def order(ctx: WorkflowContext, item: str, amount: int = 1) -> dict[str, int]:
    return {item: amount}


@post("/transaction")
@transaction
async def reserve(ctx: TransactionContext, seat: str) -> bool:
    return seat == "A1"


@get("/communicator")
@communicator
async def charge(ctx: CommunicatorContext, cents: int) -> int:
    return cents


@post("/failing")
@workflow
async def failing(ctx: WorkflowContext) -> None:
    raise SoldOut("none left")


@get("/context")
async def context(ctx: HandlerContext) -> dict[str, Any]:
    return {"key": ctx.idempotency_key, "uuid": ctx.workflow_uuid, "option": ctx.options.workflow_uuid}


@get("/first")
@get("/second/<cents>")
@communicator
async def twice(ctx: CommunicatorContext, cents: int = 7) -> int:
    return cents


async def test_each_kind_of_operation_answers_with_its_value_and_its_uuid() -> None:
    client = quart_of(order, reserve, charge).test_client()

    by_workflow = await client.post("/workflow/tea", data=b'{"amount": 2}', headers=JSON)
    by_transaction = await client.post("/transaction", data=b'{"seat": "A1"}', headers=JSON)
    by_communicator = await client.get("/communicator?cents=0")

    assert await by_workflow.get_json() == {"tea": 2}
    assert await by_transaction.get_json() is True
    assert await by_communicator.get_json() == 0
    for response in (by_workflow, by_transaction, by_communicator):
        assert UUID(response.headers["operon-workflowuuid"]).version == 7


@pytest.mark.parametrize("header", ["operon-workflowuuid", "Idempotency-Key"])
async def test_a_uuid_in_a_header_is_the_workflow_s_identity(header: str) -> None:
    invoker = DirectInvoker()
    client = quart_of(order, invoker=invoker).test_client()
    identity = uuid4()

    response = await client.post("/workflow/tea", headers={header: str(identity)})

    assert response.headers["operon-workflowuuid"] == str(identity)
    assert invoker.calls[0].ctx.options.workflow_uuid == identity
    assert invoker.calls[0].ctx.workflow_uuid == identity


async def test_a_key_is_mapped_to_a_uuid_of_the_operation() -> None:
    invoker = DirectInvoker()
    client = quart_of(reserve, invoker=invoker).test_client()

    for _ in range(2):
        response = await client.post("/transaction", data=b'{"seat": "A1"}', headers=JSON | {"Idempotency-Key": "a"})
        assert response.headers["operon-workflowuuid"] == str(from_key("reserve", None, "a"))

    assert [call.ctx.options.workflow_uuid for call in invoker.calls] == [from_key("reserve", None, "a")] * 2
    assert invoker.calls[0].ctx.idempotency_key == "a"


async def test_a_handler_reads_the_key_itself() -> None:
    client = quart_of(context).test_client()
    identity = str(uuid4())

    by_key = await client.get("/context", headers={"Idempotency-Key": "a"})
    by_uuid = await client.get("/context", headers={"operon-workflowuuid": identity})
    without = await client.get("/context")

    assert await by_key.get_json() == {"key": "a", "uuid": None, "option": None}
    assert await by_uuid.get_json() == {"key": identity, "uuid": identity, "option": identity}
    assert await without.get_json() == {"key": None, "uuid": None, "option": None}
    assert "operon-workflowuuid" not in by_uuid.headers


async def test_a_malformed_identity_is_400_and_nothing_ran() -> None:
    invoker = DirectInvoker()
    client = quart_of(order, invoker=invoker).test_client()

    response = await client.post("/workflow/tea", headers={"operon-workflowuuid": "nonsense"})

    assert response.status_code == 400
    assert (await response.get_json())["errors"] == [
        {"in": "header", "name": "operon-workflowuuid", "detail": "expected a UUID"}
    ]
    assert invoker.calls == []


async def test_the_answer_of_a_failed_workflow_carries_its_uuid() -> None:
    client = quart_of(failing).test_client()

    response = await client.post("/failing")

    assert (response.status_code, (await response.get_json())["detail"]) == (409, "none left")
    assert UUID(response.headers["operon-workflowuuid"])


async def test_what_is_stored_of_a_request_holds_no_credential() -> None:
    invoker = DirectInvoker()
    client = quart_of(order, invoker=invoker).test_client()

    await client.post(
        "/workflow/tea?token=hunter2",
        headers={
            "authorization": "Bearer hunter2",
            "cookie": "session=hunter2",
            "user-agent": "curl\t8",
            "x-request-id": "r-1",
            "traceparent": TRACEPARENT,
        },
    )

    caller = invoker.calls[0].ctx.caller
    assert caller.request == {
        "method": "POST",
        "path": "/workflow/tea",
        "ip": None,
        "request_id": "r-1",
        "user_agent": "curl 8",
    }
    assert caller.traceparent == TRACEPARENT
    assert (caller.user, caller.roles) == (None, ())


@pytest.mark.parametrize(
    "given",
    [
        "",
        "00-0-0-01",
        TRACEPARENT.replace("4bf92f3577b34da6a3ce929d0e0e4736", "0" * 32),
        "ff" + TRACEPARENT[2:],
        TRACEPARENT + "-x",
    ],
)
async def test_a_malformed_trace_is_not_continued(given: str) -> None:
    invoker = DirectInvoker()
    client = quart_of(order, invoker=invoker).test_client()

    await client.post("/workflow/tea", headers={"traceparent": given})

    assert invoker.calls[0].ctx.caller.traceparent is None


async def test_one_function_may_have_several_routes_with_arguments_from_different_places() -> None:
    client = quart_of(twice).test_client()

    assert await (await client.get("/first")).get_json() == 7
    assert await (await client.get("/first?cents=8")).get_json() == 8
    assert await (await client.get("/second/9")).get_json() == 9


async def test_a_function_may_have_the_name_of_a_route_that_is_there() -> None:
    @get("/mine")
    async def static(ctx: HandlerContext) -> str:
        return "mine"

    static.name = "static"  # as Quart calls its route of static files
    client = quart_of(static).test_client()

    assert await (await client.get("/mine")).get_data() == b"mine"


async def test_the_lifespan_runs_the_hooks() -> None:
    happened: list[str] = []

    async def up() -> None:
        happened.append("up")

    async def down() -> None:
        happened.append("down")

    async with quart_of(on_startup=up, on_shutdown=down).test_app():
        assert happened == ["up"]

    assert happened == ["up", "down"]


async def test_a_call_goes_on_when_its_client_is_gone() -> None:
    began, go_on, finished = asyncio.Event(), asyncio.Event(), asyncio.Event()

    @post("/slow")
    @communicator
    async def slow(ctx: CommunicatorContext) -> None:
        began.set()
        await go_on.wait()
        finished.set()

    async with served(quart_of(slow)) as server:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"POST /slow HTTP/1.1\r\nhost: test\r\n\r\n")
        await began.wait()

        writer.close()
        server.stop.set()
        await asyncio.wait_for(server.task, 60)  # a drain ends when no request is in flight
        go_on.set()

        await asyncio.wait_for(finished.wait(), 60)


async def test_waiting_for_a_result_ends_with_the_client() -> None:
    began, cancelled = asyncio.Event(), asyncio.Event()

    @post("/long")
    @workflow
    async def long(ctx: WorkflowContext) -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with served(quart_of(long)) as server:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"POST /long HTTP/1.1\r\nhost: test\r\n\r\n")
        await began.wait()

        writer.close()

        await asyncio.wait_for(cancelled.wait(), 60)
