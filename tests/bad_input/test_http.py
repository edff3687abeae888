"""What clients get wrong and attackers try: a problem that says what to correct, and nothing of the inside."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest
from quart.typing import TestClientProtocol as HttpClient
from quart.wrappers import Response

import operon
from operon.contexts import CommunicatorContext, HandlerContext, InitializerContext, TransactionContext, WorkflowContext
from operon.testing import TestRuntime

BODY_LIMIT_BYTES = 10_000


class Payment(msgspec.Struct):
    cents: int
    card: str


@operon.initializer
async def tables(ctx: InitializerContext) -> None:
    await ctx.client.execute("create table if not exists payments (card text constraint secret_constraint primary key)")


@operon.post("/payments")
@operon.transaction
async def pay(tx: TransactionContext, payment: Payment) -> int:
    await tx.client.execute("insert into payments (card) values ($1)", payment.card)
    return payment.cents


@operon.post("/refunds")
@operon.workflow
async def refund(ctx: WorkflowContext, cents: int) -> int:
    return -cents


@operon.post("/orders")
@operon.workflow
async def order(ctx: WorkflowContext, cents: int) -> int:
    return cents


@operon.post("/unstorable")
@operon.communicator(retry=None)
async def unstorable(ctx: CommunicatorContext) -> Any:
    return object()


@operon.post("/hopeless")
@operon.communicator(retry=operon.Retry(max_attempts=2, interval_seconds=0.01))
async def hopeless(ctx: CommunicatorContext) -> None:
    raise ConnectionRefusedError("10.1.2.3 password=hunter2")


@operon.post("/crash")
async def crash(ctx: HandlerContext) -> None:
    raise RuntimeError("inside story")


@operon.get("/results/<uuid:which>")
async def result(ctx: HandlerContext, which: UUID) -> int:
    found: int = await ctx.retrieve_workflow(which).get_result()
    return found


@operon.get("/states/<which>/<event>")
async def state(ctx: HandlerContext, which: str, event: str) -> Any:
    return await ctx.get_event(which, event, timeout=0)


@operon.post("/parcels")
async def parcel(ctx: HandlerContext, which: str, key: str) -> None:
    await ctx.send(which, "parcel", idempotency_key=key)


@operon.post("/named-orders")
async def named_order(ctx: HandlerContext, which: str) -> int:
    return await (await order(ctx.using(workflow_uuid=which), 1)).get_result()


@operon.get("/mistaken")
async def mistaken(ctx: HandlerContext) -> None:
    number: Any = 17
    ctx.retrieve_workflow(number)


@pytest.fixture(scope="module")
async def runtime() -> AsyncIterator[TestRuntime]:
    async with TestRuntime(__name__, poll_seconds=0.2, body_limit_bytes=BODY_LIMIT_BYTES) as runtime:
        yield runtime


@pytest.fixture
def client(runtime: TestRuntime) -> HttpClient:
    return runtime.app.quart.test_client()


async def problem_of(answer: Response) -> dict[str, Any]:
    """The document, after a look that nothing of the inside is in it."""
    text = await answer.get_data(as_text=True)
    assert answer.content_type == "application/problem+json"
    for inside in ("Traceback", "secret", "hunter2", "10.1.2.3", "inside story", ".py", "asyncpg", "operon.runtime"):
        assert inside not in text
    document: dict[str, Any] = msgspec.json.decode(text)
    assert document["status"] == answer.status_code
    assert document["request_id"] == answer.headers["x-request-id"]
    return document


async def recorded(runtime: TestRuntime) -> int:
    count: int = await runtime.fetchval("select count(*) from operon.workflows")
    return count


@pytest.mark.parametrize(
    ("body", "status", "name"),
    [
        (b"{", 400, ""),
        (b"", 400, ""),
        (b"null", 400, ""),
        (b"[]", 400, ""),
        (b'"text"', 400, ""),
        (b"{}", 400, "cents"),
        (b'{"cents": "many", "card": "4242"}', 400, "cents"),
        (b'{"cents": 1.5, "card": "4242"}', 400, "cents"),
        (b'{"cents": 1, "card": null}', 400, "card"),
        (b'{"cents": 1, "card": "\xff"}', 400, ""),
        (b'{"cents": NaN, "card": "4242"}', 400, ""),
        (b"[" * 9_000, 400, ""),
        (b'{"cents": 1, "card": "' + b"4" * BODY_LIMIT_BYTES + b'"}', 413, ""),
    ],
)
async def test_a_body_that_does_not_fit_is_refused_by_field_and_nothing_is_recorded(
    runtime: TestRuntime, client: HttpClient, body: bytes, status: int, name: str
) -> None:
    before = await recorded(runtime)

    answer = await client.post("/payments", data=body, headers={"content-type": "application/json"})

    problem = await problem_of(answer)
    assert answer.status_code == status
    assert name in [each["name"] for each in problem.get("errors", [{"name": ""}])]
    assert await recorded(runtime) == before


async def test_texts_of_clients_that_name_no_workflow_event_or_key_are_the_clients_fault(client: HttpClient) -> None:
    uuid = str(uuid4())
    await client.post("/named-orders", json={"which": uuid})
    unknown = await client.get("/states/order-17/state")
    unnamed = await client.get(f"/states/{uuid}/%09")
    nowhere = await client.post("/parcels", json={"which": "order-17", "key": "a"})
    long_key = await client.post("/parcels", json={"which": uuid, "key": "a" * 2000})
    malformed = await client.post("/named-orders", json={"which": "order-17"})
    ours = await client.get("/mistaken")

    answers = (unknown, unnamed, nowhere, long_key, malformed, ours)
    assert [answer.status_code for answer in answers] == [404, 400, 404, 400, 400, 500]
    for answer in answers:
        await problem_of(answer)


async def test_an_unknown_url_a_wrong_method_and_a_form_are_refused_as_problems(
    client: HttpClient,
) -> None:
    unknown = await client.post("/paymnets", json={})
    wrong = await client.get("/payments")
    form = await client.post("/payments", form={"cents": "1"})
    no_uuid = await client.get("/results/17")

    assert [answer.status_code for answer in (unknown, wrong, form, no_uuid)] == [404, 405, 415, 404]
    for answer in (unknown, wrong, form, no_uuid):
        await problem_of(answer)


async def test_a_uuid_of_another_operation_is_409_and_tells_nothing_of_it(
    client: HttpClient,
) -> None:
    headers = {"operon-workflowuuid": str(uuid4())}
    first = await client.post("/orders", json={"cents": 123456}, headers=headers)

    second = await client.post("/refunds", json={"cents": 1}, headers=headers)

    problem = await problem_of(second)
    assert (first.status_code, second.status_code) == (200, 409)
    assert problem["code"] == "workflow_conflict"
    assert "order" not in msgspec.json.encode(problem).decode()
    assert "123456" not in msgspec.json.encode(problem).decode()


async def test_a_uuid_of_another_user_is_409_and_tells_nothing_of_them(
    runtime: TestRuntime, client: HttpClient
) -> None:
    uuid = uuid4()
    await (await order(runtime.app.context(user="wilma", workflow_uuid=uuid), 123456)).get_result()

    answer = await client.post("/orders", json={"cents": 123456}, headers={"operon-workflowuuid": str(uuid)})

    problem = await problem_of(answer)
    assert (answer.status_code, problem["code"]) == (409, "workflow_conflict")
    assert "wilma" not in msgspec.json.encode(problem).decode()


async def test_other_inputs_under_one_uuid_are_answered_with_the_result_of_the_first(
    client: HttpClient,
) -> None:
    headers = {"operon-workflowuuid": str(uuid4())}
    first = await client.post("/orders", json={"cents": 5}, headers=headers)
    again = await client.post("/orders", json={"cents": 7}, headers=headers)

    assert await first.get_json() == await again.get_json() == 5


@pytest.mark.parametrize("uuid", ["17", "", "x" * 5000, "00000000-0000-0000-0000-00000000000g"])
async def test_a_malformed_uuid_is_400_and_nothing_is_recorded(
    runtime: TestRuntime, client: HttpClient, uuid: str
) -> None:
    before = await recorded(runtime)

    answer = await client.post("/orders", json={"cents": 1}, headers={"operon-workflowuuid": uuid})

    problem = await problem_of(answer)
    assert answer.status_code == 400
    assert problem["errors"][0]["name"] == "operon-workflowuuid"
    assert await recorded(runtime) == before


@pytest.mark.parametrize("path", ["/unstorable", "/hopeless", "/crash"])
async def test_a_failure_of_the_inside_is_500_and_stays_inside(client: HttpClient, path: str) -> None:
    answer = await client.post(path)

    problem = await problem_of(answer)
    assert answer.status_code == 500
    assert "detail" not in problem


async def test_a_refusal_of_the_database_is_500_and_stays_inside_each_time(
    client: HttpClient,
) -> None:
    headers = {"operon-workflowuuid": str(uuid4())}
    await client.post("/payments", json={"cents": 1, "card": "twice"})

    for _ in range(2):
        answer = await client.post("/payments", json={"cents": 1, "card": "twice"}, headers=headers)
        problem = await problem_of(answer)
        assert answer.status_code == 500
        assert problem["code"] == "internal_error"
        assert answer.headers["operon-workflowuuid"] == headers["operon-workflowuuid"]


async def test_a_nul_in_a_text_is_an_answer_and_no_hang(client: HttpClient) -> None:
    async with asyncio.timeout(60):
        answer = await client.post("/payments", json={"cents": 1, "card": "a\0b"})

    await problem_of(answer)
    assert answer.status_code == 500


async def test_a_port_in_use_is_refused_with_what_to_do() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        async with TestRuntime(__name__, poll_seconds=0.2, port=port) as runtime:
            with pytest.raises(operon.PortInUse, match=f"port {port}") as refused:
                await runtime.app.serve(lambda url: None, asyncio.Event())

            assert "--port" in str(refused.value.hint)
            assert await (await order(runtime.context, 1)).get_result() == 1  # the executor goes on
