"""HTTP in front of the real runtime: what a client sends, what it gets, and what is recorded meanwhile."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections import Counter
from collections.abc import AsyncIterator
from typing import Annotated, Any
from uuid import UUID, uuid4

import asyncpg
import msgspec
import pytest
from quart import Response, redirect
from quart.typing import TestClientProtocol as HttpClient

import operon
from operon.contexts import CommunicatorContext, HandlerContext, InitializerContext, TransactionContext, WorkflowContext
from operon.status import Status
from operon.testing import TestRuntime
from tests.acceptance.gates import Gates

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

calls: Counter[str] = Counter()
gates = Gates()


class Seat(msgspec.Struct):
    row: str
    number: int


class SoldOut(Exception):
    """An application's error that chose its status."""

    status = 409


@operon.initializer
async def tables(ctx: InitializerContext) -> None:
    await ctx.client.execute("create table if not exists guests (name text constraint one_guest primary key)")


@operon.post("/echo/<name>")
@operon.communicator
async def echo(ctx: CommunicatorContext, name: str, q: Annotated[int, operon.Query()], seat: Seat) -> str:
    return f"{name} {q} {seat.row}{seat.number}"


@operon.get("/greet/<name>")
async def greet(ctx: HandlerContext, name: str, loud: bool = False) -> str:
    return f"HELLO {name}" if loud else f"hello {name}"


@operon.get("/moved")
async def moved(ctx: HandlerContext) -> Response:
    return Response("see there", status=301, headers={"location": "/there"})


@operon.get("/redirect")
async def onwards(ctx: HandlerContext) -> Any:
    return redirect(f"{ctx.request.url}/further")


@operon.post("/guests")
@operon.transaction
async def add_guest(tx: TransactionContext, name: str) -> str:
    calls[name] += 1
    await tx.client.execute("insert into guests (name) values ($1)", name)
    return name.upper()


@operon.post("/letters")
@operon.communicator
def letter(ctx: CommunicatorContext, text: str) -> dict[str, Any]:
    calls[text] += 1
    return {"text": text, "sent": calls[text]}


@operon.post("/visits")
@operon.workflow
async def visit(ctx: WorkflowContext, name: str, gate: str | None = None) -> dict[str, Any]:
    added = await add_guest(ctx, name)
    if gate is not None:
        await stop_at(ctx, gate)
    return {"guest": added, "uuid": ctx.workflow_uuid, "path": ctx.request["path"]}


@operon.communicator
async def stop_at(ctx: CommunicatorContext, gate: str) -> None:
    await gates[gate].pass_()


@operon.post("/spawn")
async def spawn(ctx: HandlerContext, name: str, gate: str | None = None) -> dict[str, str | None]:
    key = ctx.idempotency_key
    handle = await visit(ctx.using(workflow_uuid=key), name, gate) if key else await visit(ctx, name, gate)
    return {"uuid": str(handle.workflow_uuid), "key": key}


@operon.get("/results/<uuid:which>")
async def result(ctx: HandlerContext, which: UUID) -> dict[str, Any]:
    found: dict[str, Any] = await ctx.retrieve_workflow(which).get_result()
    return found


@operon.post("/sold-out")
@operon.workflow
async def sold_out(ctx: WorkflowContext) -> None:
    calls["sold out"] += 1
    raise SoldOut("not a seat\r\nis left")


@pytest.fixture(scope="module")
async def runtime() -> AsyncIterator[TestRuntime]:
    async with TestRuntime(__name__, poll_seconds=0.2) as runtime:
        yield runtime


@pytest.fixture
def client(runtime: TestRuntime) -> HttpClient:
    return runtime.app.quart.test_client()


async def recorded(runtime: TestRuntime) -> int:
    count: int = await runtime.fetchval("select count(*) from operon.workflows")
    return count


async def test_arguments_come_from_the_path_the_query_and_the_body(client: HttpClient) -> None:
    answer = await client.post("/echo/ada?q=7", json={"row": "B", "number": 12})
    greeting = await client.get("/greet/ada?loud=true")

    assert await answer.get_data(as_text=True) == "ada 7 B12"
    assert await greeting.get_data(as_text=True) == "HELLO ada"


async def test_a_handlers_own_status_and_redirect_win(client: HttpClient) -> None:
    gone = await client.get("/moved")
    onward = await client.get("/redirect")

    assert (gone.status_code, gone.headers["location"], await gone.get_data(as_text=True)) == (
        301,
        "/there",
        "see there",
    )
    assert (onward.status_code, onward.headers["location"]) == (302, "http://localhost/redirect/further")


async def test_every_kind_of_operation_is_an_endpoint_and_is_recorded(runtime: TestRuntime, client: HttpClient) -> None:
    transaction = await client.post("/guests", json={"name": "ada"})
    communicator = await client.post("/letters", json={"text": "dear"})
    workflow = await client.post("/visits", json={"name": "bob"})

    assert await transaction.get_data(as_text=True) == "ADA"
    assert await communicator.get_json() == {"text": "dear", "sent": 1}
    body = await workflow.get_json()
    assert body == {"guest": "BOB", "uuid": workflow.headers["operon-workflowuuid"], "path": "/visits"}
    for answer in (transaction, communicator, workflow):
        status = await runtime.context.retrieve_workflow(answer.headers["operon-workflowuuid"]).get_status()
        assert status is not None
        assert status.status is Status.SUCCESS


async def test_the_databases_error_is_500_without_internals_and_kept_for_whoever_has_the_uuid(
    runtime: TestRuntime, client: HttpClient
) -> None:
    await client.post("/visits", json={"name": "twin"})
    answer = await client.post("/visits", json={"name": "twin"})

    text = await answer.get_data(as_text=True)
    assert (answer.status_code, answer.content_type) == (500, "application/problem+json")
    assert "one_guest" not in text
    assert "23505" not in text
    assert "Traceback" not in text
    with pytest.raises(asyncpg.UniqueViolationError) as error:
        await runtime.context.retrieve_workflow(answer.headers["operon-workflowuuid"]).get_result()
    assert (error.value.sqlstate, getattr(error.value, "table_name", None)) == ("23505", "guests")


async def test_an_error_that_chose_its_status_is_a_problem_also_when_it_is_given_again(
    client: HttpClient,
) -> None:
    headers = {"operon-workflowuuid": str(uuid4())}

    answers = [await client.post("/sold-out", headers=headers) for _ in range(2)]

    for answer in answers:
        problem = await answer.get_json()
        assert (answer.status_code, answer.content_type) == (409, "application/problem+json")
        assert (problem["status"], problem["title"], problem["code"]) == (409, "Conflict", "sold_out")
        assert problem["detail"] == "not a seat is left"
        assert problem["instance"] == "/sold-out"
    assert calls["sold out"] == 1


async def test_a_missing_argument_is_400_with_its_name_and_nothing_is_recorded(
    runtime: TestRuntime, client: HttpClient
) -> None:
    before = await recorded(runtime)

    answer = await client.post("/guests", json={})

    problem = await answer.get_json()
    assert (answer.status_code, problem["code"]) == (400, "bad_request")
    assert problem["errors"] == [{"in": "body", "name": "name", "detail": "required"}]
    assert await recorded(runtime) == before


async def test_a_uuid_in_the_header_is_the_workflow_and_its_request_is_stored(
    runtime: TestRuntime, client: HttpClient
) -> None:
    uuid = uuid4()
    headers = {"operon-workflowuuid": str(uuid), "x-request-id": "request-1", "authorization": "Bearer hidden"}

    answers = [await client.post("/visits?secret=hidden", json={"name": "eve"}, headers=headers) for _ in range(2)]

    handle = runtime.context.retrieve_workflow(uuid)
    status = await handle.get_status()
    assert [answer.status_code for answer in answers] == [200, 200]
    assert {answer.headers["operon-workflowuuid"] for answer in answers} == {str(uuid)}
    assert await answers[0].get_json() == await answers[1].get_json()
    assert (await handle.get_result())["guest"] == "EVE"
    assert calls["eve"] == 1
    assert status is not None
    assert status.request is not None
    assert (status.request["method"], status.request["path"], status.request["request_id"]) == (
        "POST",
        "/visits",
        "request-1",
    )
    stored = "select count(*) from operon.workflows where convert_from(request, 'UTF8') like '%hidden%'"
    assert await runtime.fetchval(stored) == 0


async def test_an_idempotency_key_of_any_words_is_one_workflow_for_each_operation(
    runtime: TestRuntime, client: HttpClient
) -> None:
    headers = {"idempotency-key": "order 4711"}

    letters = [await client.post("/letters", json={"text": "keyed"}, headers=headers) for _ in range(3)]
    guest = await client.post("/guests", json={"name": "keyed"}, headers=headers)

    assert [(await answer.get_json())["sent"] for answer in letters] == [1, 1, 1]
    assert len({answer.headers["operon-workflowuuid"] for answer in letters}) == 1
    assert guest.status_code == 200
    assert guest.headers["operon-workflowuuid"] != letters[0].headers["operon-workflowuuid"]


async def test_a_handler_reads_the_uuid_and_starts_with_it(runtime: TestRuntime, client: HttpClient) -> None:
    uuid = str(uuid4())
    headers = {"operon-workflowuuid": uuid}

    answers = [await client.post("/spawn", json={"name": "spawned"}, headers=headers) for _ in range(2)]

    assert [await answer.get_json() for answer in answers] == [{"uuid": uuid, "key": uuid}] * 2
    later = await client.get(f"/results/{uuid}")
    assert (await later.get_json())["guest"] == "SPAWNED"
    assert calls["spawned"] == 1


async def test_a_request_id_is_echoed_or_made(client: HttpClient) -> None:
    given = await client.get("/greet/ada", headers={"x-request-id": "mine"})
    made = await client.get("/greet/ada")

    assert given.headers["x-request-id"] == "mine"
    assert UUID(made.headers["x-request-id"])


async def test_an_incoming_trace_is_continued_into_the_stored_workflow_and_survives_a_crash(
    runtime: TestRuntime, client: HttpClient
) -> None:
    answer = await client.post("/spawn", json={"name": "traced", "gate": "traced"}, headers={"traceparent": TRACE})
    uuid = UUID((await answer.get_json())["uuid"])
    await gates["traced"].reached.wait()
    stored = "select traceparent from operon.workflows where workflow_uuid = $1"
    before = await runtime.fetchval(stored, uuid)

    await runtime.crash()
    gates["traced"].open()
    await runtime.context.retrieve_workflow(uuid).get_result()

    assert before == TRACE
    assert await runtime.fetchval(stored, uuid) == TRACE


async def test_an_unknown_url_is_404_and_a_wrong_method_405_as_problems(
    client: HttpClient,
) -> None:
    unknown = await client.get("/nowhere")
    wrong = await client.delete("/guests")

    for answer, status in ((unknown, 404), (wrong, 405)):
        assert (answer.status_code, answer.content_type) == (status, "application/problem+json")
        assert (await answer.get_json())["status"] == status
    assert "POST" in wrong.headers["allow"]


async def test_an_unknown_workflow_is_404_for_a_handler_that_asks_for_its_result(
    client: HttpClient,
) -> None:
    answer = await client.get(f"/results/{uuid4()}")

    problem = await answer.get_json()
    assert (answer.status_code, problem["code"]) == (404, "nonexistent_workflow")


@pytest.fixture
async def server() -> AsyncIterator[tuple[TestRuntime, str, int]]:
    """A server on a real socket."""
    async with TestRuntime(__name__, poll_seconds=0.2, port=0) as runtime:
        bound: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        stop = asyncio.Event()
        serving = asyncio.create_task(runtime.app.serve(bound.set_result, stop))
        host, _, port = (await bound).removeprefix("http://").rpartition(":")
        yield runtime, host, int(port)
        stop.set()
        await serving


def ask(
    host: str, port: int, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
) -> tuple[int, Any]:
    connection = http.client.HTTPConnection(host, port, timeout=60)
    try:
        sent = None if body is None else json.dumps(body)
        connection.request(method, path, sent, {"content-type": "application/json", **(headers or {})})
        answer = connection.getresponse()
        text = answer.read().decode()
        return answer.status, json.loads(text) if "json" in (answer.getheader("content-type") or "") else text
    finally:
        connection.close()


async def test_the_server_runs_a_workflow_for_a_client_on_a_socket(server: tuple[TestRuntime, str, int]) -> None:
    _, host, port = server

    status, body = await asyncio.to_thread(ask, host, port, "POST", "/visits", {"name": "socket"})
    missing, problem = await asyncio.to_thread(ask, host, port, "POST", "/visits", {})

    assert (status, body["guest"]) == (200, "SOCKET")
    assert (missing, problem["code"]) == (400, "bad_request")


async def test_a_client_that_goes_away_leaves_its_workflow_running(server: tuple[TestRuntime, str, int]) -> None:
    runtime, host, port = server
    uuid = uuid4()
    body = json.dumps({"name": "gone", "gate": "gone"}).encode()
    head = (
        f"POST /visits HTTP/1.1\r\nhost: here\r\ncontent-type: application/json\r\n"
        f"operon-workflowuuid: {uuid}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    _, writer = await asyncio.open_connection(host, port)
    writer.write(head.encode() + body)
    await gates["gone"].reached.wait()

    writer.close()
    await writer.wait_closed()
    gates["gone"].open()

    assert (await runtime.context.retrieve_workflow(uuid).get_result())["guest"] == "GONE"


async def test_a_crash_of_the_executor_is_not_seen_by_a_client_that_waits(server: tuple[TestRuntime, str, int]) -> None:
    runtime, host, port = server
    asking = asyncio.create_task(
        asyncio.to_thread(ask, host, port, "POST", "/visits", {"name": "patient", "gate": "patient"})
    )
    await gates["patient"].reached.wait()

    await runtime.crash()
    gates["patient"].open()
    status, body = await asking

    assert (status, body["guest"]) == (200, "PATIENT")
    assert await runtime.fetchval("select count(*) from guests where name = 'patient'") == 1
