"""Handlers that wait for workflows and send to them: what a client is told, and what is left when it goes away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import pytest
from quart.typing import TestClientProtocol as HttpClient

import operon
from operon import EventKey, HandlerContext, Status, Topic, WorkflowContext
from operon.database.connection import connect
from operon.testing import TestRuntime
from tests.acceptance.facts import until, waits_for

STATE = EventKey("state", str)
AMOUNT = Topic("amount", int)


@operon.post("/orders")
@operon.workflow
async def order(ctx: WorkflowContext) -> int:
    """Its end is the answer."""
    amount = await ctx.recv(AMOUNT, required=True)
    await ctx.set_event(STATE, "paid")
    return amount


@operon.post("/impatient")
@operon.workflow
async def impatient(ctx: WorkflowContext) -> int:
    return await ctx.recv(AMOUNT, timeout=0.01, required=True)


@operon.post("/orders/start")
async def start(ctx: HandlerContext, timeout: Annotated[float | None, operon.Query()] = None) -> dict[str, str]:
    handle = await order(ctx.using(timeout=timeout))
    return {"uuid": str(handle.workflow_uuid)}


@operon.get("/orders/<uuid:order_uuid>/state")
async def state(ctx: HandlerContext, order_uuid: UUID, timeout: float | None = None) -> str | None:
    return await ctx.get_event(order_uuid, STATE, timeout)


@operon.get("/orders/<uuid:order_uuid>/result")
async def order_result(ctx: HandlerContext, order_uuid: UUID, timeout: float | None = None) -> int:
    amount: int = await ctx.retrieve_workflow(order_uuid).get_result(timeout)
    return amount


@operon.post("/orders/<uuid:order_uuid>/amount")
async def pay(ctx: HandlerContext, order_uuid: UUID, amount: int, topic: str = "amount") -> None:
    await ctx.send(order_uuid, amount, topic, idempotency_key=ctx.idempotency_key)


@pytest.fixture(scope="module")
async def runtime() -> AsyncIterator[TestRuntime]:
    async with TestRuntime(__name__, mailbox_limit=3, port=0, poll_seconds=0.2) as runtime:
        yield runtime


@pytest.fixture
def client(runtime: TestRuntime) -> HttpClient:
    return runtime.app.quart.test_client()


@pytest.fixture(scope="module")
async def url(runtime: TestRuntime) -> AsyncIterator[str]:
    """Where the application listens."""
    stop, listening = asyncio.Event(), asyncio.get_running_loop().create_future()
    server = asyncio.create_task(runtime.app.serve(listening.set_result, stop))
    yield await listening
    stop.set()
    await server


@asynccontextmanager
async def request(url: str, method: str, path: str) -> AsyncGenerator[asyncio.StreamReader]:
    """A request on a connection of its own; at the end the client is gone."""
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(f"{method} {path} HTTP/1.1\r\nhost: {address.netloc}\r\ncontent-length: 0\r\n\r\n".encode())
    await writer.drain()
    try:
        yield reader
    finally:
        writer.close()
        await writer.wait_closed()


async def started(client: HttpClient, path: str = "/orders/start") -> str:
    answer = await client.post(path)
    body: dict[str, str] = await answer.get_json()
    return body["uuid"]


async def problem(answer: Any) -> tuple[int, str]:
    """Status and code of an error."""
    return answer.status_code, json.loads(await answer.get_data())["code"]


# ---------------------------------------------------------------------- waiting


async def test_a_handler_waits_for_an_event_and_for_a_result(runtime: TestRuntime, client: HttpClient) -> None:
    uuid = await started(client)
    event = asyncio.create_task(client.get(f"/orders/{uuid}/state"))
    result = asyncio.create_task(client.get(f"/orders/{uuid}/result"))
    await until(lambda: runtime.executor.results.awaited)

    sent = await client.post(f"/orders/{uuid}/amount", json={"amount": 50})

    assert sent.status_code == 204
    assert await (await event).get_data() == b"paid"
    assert await (await result).get_json() == 50


async def test_what_is_not_there_in_time_is_no_content_and_a_late_result_a_timeout(client: HttpClient) -> None:
    uuid = await started(client)

    event = await client.get(f"/orders/{uuid}/state?timeout=0.01")
    result = await client.get(f"/orders/{uuid}/result?timeout=0.01")

    assert event.status_code == 204
    assert await problem(result) == (504, "result_timeout")


async def test_a_message_with_an_idempotency_key_is_delivered_once(runtime: TestRuntime, client: HttpClient) -> None:
    uuid, key = await started(client), {"idempotency-key": "webhook 7"}

    told = [await client.post(f"/orders/{uuid}/amount", json={"amount": n}, headers=key) for n in (1, 2)]
    result = await client.get(f"/orders/{uuid}/result")
    told.append(await client.post(f"/orders/{uuid}/amount", json={"amount": 3}, headers=key))

    assert [answer.status_code for answer in told] == [204, 204, 204]
    assert await result.get_json() == 1


# ---------------------------------------------------------------------- clients that go away


@pytest.mark.parametrize("what", ["state", "result"])
async def test_a_client_that_goes_away_frees_what_its_handler_waits_for(
    runtime: TestRuntime, client: HttpClient, url: str, what: str
) -> None:
    uuid = await started(client)
    results = runtime.executor.results

    async with request(url, "GET", f"/orders/{uuid}/{what}"), request(url, "GET", f"/orders/{uuid}/{what}"):
        async with asyncio.timeout(60):
            await until(lambda: results.awaited == 1)
    async with asyncio.timeout(60):
        await until(lambda: results.awaited == 0)

    await runtime.context.send(uuid, 1, AMOUNT)
    assert await runtime.context.retrieve_workflow(uuid).get_result() == 1


async def test_a_client_that_goes_away_does_not_take_the_others_along(
    runtime: TestRuntime, client: HttpClient, url: str
) -> None:
    uuid = await started(client)
    results = runtime.executor.results

    async with request(url, "GET", f"/orders/{uuid}/state") as stays:
        async with request(url, "GET", f"/orders/{uuid}/state"), asyncio.timeout(60):
            await until(lambda: len(bells(results, uuid)) == 2)
        async with asyncio.timeout(60):
            await until(lambda: len(bells(results, uuid)) == 1)
        await runtime.context.send(uuid, 1, AMOUNT)

        async with asyncio.timeout(60):
            assert await stays.readline() == b"HTTP/1.1 200 \r\n"


def bells(results: Any, uuid: str) -> set[Any]:
    found: set[Any] = results._bells.get(UUID(uuid), set())
    return found


async def test_a_client_that_goes_away_does_not_stop_its_workflow(runtime: TestRuntime, url: str) -> None:
    async with request(url, "POST", "/orders"):
        async with asyncio.timeout(60):
            await until(lambda: any(actor.waiting for actor in runtime.executor.incarnation.live.values()))
        ((uuid, actor),) = [(uuid, actor) for uuid, actor in runtime.executor.incarnation.live.items() if actor.waiting]
    async with asyncio.timeout(60):
        await until(lambda: not actor.waiting)
    handle = runtime.context.retrieve_workflow(uuid)
    await waits_for(handle, "recv amount")

    await runtime.context.send(uuid, 5, AMOUNT)

    assert await handle.get_result() == 5


async def test_a_client_that_goes_away_while_its_workflow_begins_does_not_stop_it(
    runtime: TestRuntime, url: str
) -> None:
    live, before = runtime.executor.incarnation.live, set(runtime.executor.incarnation.live)
    holding = await connect(runtime.database_url)

    async with asyncio.timeout(60), holding.transaction():
        await holding.execute("select from operon.executors for update")  # so nothing is durable meanwhile
        async with request(url, "POST", "/orders"):
            await until(lambda: live.keys() - before)
            (uuid,) = live.keys() - before
            begun = live[uuid].begun
            assert begun is not None
            await until(lambda: begun[0].waiters)
        await until(lambda: all(waiter.cancelled() for waiter in begun[0].waiters))
    await holding.close()
    handle = runtime.context.retrieve_workflow(uuid)
    async with asyncio.timeout(60):
        await until(lambda: begun[0].done)
        await runtime.context.send(uuid, 7, AMOUNT)

    assert await handle.get_result() == 7


# ---------------------------------------------------------------------- errors


async def test_a_full_mailbox_is_too_many_requests_and_says_when_to_come_back(client: HttpClient) -> None:
    uuid = await started(client)
    told = [await client.post(f"/orders/{uuid}/amount", json={"amount": 1, "topic": "other"}) for _ in range(4)]

    assert [answer.status_code for answer in told] == [204, 204, 204, 429]
    assert await problem(told[3]) == (429, "mailbox_full")
    assert told[3].headers["retry-after"] == "1"


async def test_a_message_to_a_finished_workflow_is_a_conflict(client: HttpClient) -> None:
    uuid = await started(client)
    await client.post(f"/orders/{uuid}/amount", json={"amount": 1})
    await client.get(f"/orders/{uuid}/result")

    answer = await client.post(f"/orders/{uuid}/amount", json={"amount": 1})

    assert await problem(answer) == (409, "workflow_finished")


async def test_an_unknown_workflow_is_not_found(client: HttpClient) -> None:
    uuid = uuid4()

    answers = [
        await client.post(f"/orders/{uuid}/amount", json={"amount": 1}),
        await client.get(f"/orders/{uuid}/state"),
        await client.get(f"/orders/{uuid}/result"),
    ]

    assert [await problem(answer) for answer in answers] == [(404, "nonexistent_workflow")] * 3


async def test_a_required_message_that_does_not_come_is_a_timeout(client: HttpClient) -> None:
    answer = await client.post("/impatient")

    assert await problem(answer) == (504, "recv_timeout")


async def test_a_workflow_whose_time_is_over_is_a_timeout(runtime: TestRuntime, client: HttpClient) -> None:
    uuid = await started(client, "/orders/start?timeout=0.01")

    answer = await client.get(f"/orders/{uuid}/result")

    status = await runtime.context.retrieve_workflow(uuid).get_status()
    assert await problem(answer) == (504, "workflow_timeout")
    assert status is not None
    assert status.status is Status.CANCELLED


@pytest.mark.parametrize("timeout", ["-1", "nan", "inf"])
async def test_a_timeout_that_is_none_does_no_harm(client: HttpClient, timeout: str) -> None:
    uuid = await started(client)

    answer = await client.get(f"/orders/{uuid}/state?timeout={timeout}")

    assert answer.status_code in (400, 500)
