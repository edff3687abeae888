"""A request is a server span: the client's trace goes on in it, and its own in what it starts and in the answer."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest
from opentelemetry.trace import SpanKind, StatusCode
from quart import Quart
from quart.typing import TestClientProtocol as HttpClient

from operon.testing import TestRuntime
from tests.http.conftest import quart_of
from tests.telemetry import shop
from tests.telemetry.conftest import Seen, attributes_of, ids, parent_of

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE_ID}-00f067aa0ba902b7-01"


@pytest.fixture
def client(runtime: TestRuntime) -> HttpClient:
    return runtime.app.quart.test_client()


async def test_a_request_is_a_span_with_the_conventions_of_http(client: HttpClient, seen: Seen) -> None:
    await client.post("/orders/A1?token=hunter2")

    span = seen.one("POST /orders/<seat>")
    attributes = attributes_of(span)
    uuid = attributes.pop("operon.workflow.uuid")
    assert span.kind is SpanKind.SERVER
    assert attributes == {
        "http.request.method": "POST",
        "http.route": "/orders/<seat>",
        "http.response.status_code": 200,
        "url.path": "/orders/A1",
        "url.scheme": "http",
        "network.protocol.version": "1.1",
    }
    assert attributes_of(seen.one("order"))["operon.workflow.uuid"] == uuid


async def test_an_incoming_trace_goes_on_in_the_workflow_and_in_the_answer(
    runtime: TestRuntime, client: HttpClient, seen: Seen
) -> None:
    headers = {"traceparent": TRACEPARENT, "tracestate": "vendor=1"}

    answer = await client.post("/orders/A1", headers=headers)
    await runtime.restart()

    request = seen.one("POST /orders/<seat>")
    assert parent_of(request) == 0x00F067AA0BA902B7
    assert parent_of(seen.one("order")) == ids(request)[1]
    assert {format(ids(span)[0], "032x") for span in seen.spans} == {TRACE_ID}
    assert answer.headers["traceparent"] == f"00-{TRACE_ID}-{ids(request)[1]:016x}-01"
    assert answer.headers["tracestate"] == "vendor=1"
    charge = seen.one("charge").get_span_context()
    assert charge is not None
    assert charge.trace_state.get("vendor") == "1"


async def test_a_request_without_a_trace_begins_one_and_says_which(client: HttpClient, seen: Seen) -> None:
    answer = await client.get("/hello")

    trace_id, span_id = ids(seen.one("GET /hello"))
    assert answer.headers["traceparent"][:-2] == f"00-{trace_id:032x}-{span_id:016x}-"
    assert ids(shop.current["hello"]) == (trace_id, span_id)


@pytest.mark.parametrize("given", ["nonsense", "00-" + "0" * 32 + "-00f067aa0ba902b7-01", "ff" + TRACEPARENT[2:]])
async def test_a_malformed_trace_is_not_gone_on_with(client: HttpClient, seen: Seen, given: str) -> None:
    await client.get("/hello", headers={"traceparent": given})

    assert parent_of(seen.one("GET /hello")) is None


async def test_a_trace_that_is_not_sampled_is_not_exported_and_goes_on(client: HttpClient, seen: Seen) -> None:
    answer = await client.post("/orders/A1", headers={"traceparent": TRACEPARENT[:-2] + "00"})

    assert answer.headers["traceparent"].startswith(f"00-{TRACE_ID}-")
    assert answer.headers["traceparent"].endswith("-00")
    assert seen.spans == ()


async def test_errors_are_on_the_span_and_a_client_s_fault_is_none_of_the_server_s(
    client: HttpClient, seen: Seen
) -> None:
    await client.get("/broken")
    await client.post("/declined/1234")
    await client.get("/nowhere")

    broken, declined = seen.one("GET /broken"), seen.one("POST /declined/<card>")
    nowhere = seen.one("GET")
    assert broken.status.status_code is StatusCode.ERROR
    assert attributes_of(broken)["error.type"] == "500"
    assert dict(broken.events[0].attributes or {})["exception.type"] == "RuntimeError"
    assert declined.status.status_code is nowhere.status.status_code is StatusCode.UNSET
    assert attributes_of(declined)["http.response.status_code"] == 402
    assert attributes_of(nowhere)["http.response.status_code"] == 404
    assert "http.route" not in attributes_of(nowhere)


async def test_a_handler_s_message_and_look_at_an_event_are_spans_of_its_request(
    runtime: TestRuntime, client: HttpClient, seen: Seen
) -> None:
    buyer = await shop.buyer(runtime.context)
    await client.post(f"/pay/{buyer.workflow_uuid}")
    await buyer.get_result()
    await client.get(f"/status/{buyer.workflow_uuid}")
    await runtime.restart()

    sent, asked = seen.one("send payment"), seen.one("get_event status")
    assert parent_of(sent) == ids(seen.one("POST /pay/<uuid>"))[1]
    assert parent_of(asked) == ids(seen.one("GET /status/<uuid>"))[1]
    assert [link.context.span_id for link in seen.one("receive payment").links] == [ids(sent)[1]]


async def test_below_the_server_span_of_another_instrumentation_it_is_no_second_one(
    runtime: TestRuntime, client: HttpClient, seen: Seen
) -> None:
    with seen.tracers.get_tracer("another").start_as_current_span("GET", kind=SpanKind.SERVER) as other:
        await client.get("/hello")

    span = seen.one("GET /hello")
    assert span.kind is SpanKind.INTERNAL
    assert parent_of(span) == ids(other)[1]


async def test_without_a_tracer_a_trace_goes_through(runtime: TestRuntime) -> None:
    app: Quart = quart_of(shop.hello)

    answer = await app.test_client().get("/hello", headers={"traceparent": TRACEPARENT})
    without = await app.test_client().get("/hello")

    assert answer.headers["traceparent"] == TRACEPARENT
    assert "traceparent" not in without.headers


async def test_requests_side_by_side_keep_their_traces(client: HttpClient, seen: Seen, runtime: TestRuntime) -> None:
    traces = [f"{number + 1:032x}" for number in range(20)]

    answers = await asyncio.gather(
        *(client.post(f"/orders/{t[-2:]}", headers={"traceparent": f"00-{t}-00f067aa0ba902b7-01"}) for t in traces)
    )
    await runtime.restart()

    uuids = {UUID(answer.headers["operon-workflowuuid"]): t for answer, t in zip(answers, traces, strict=True)}
    for span in seen.spans:
        uuid = attributes_of(span).get("operon.workflow.uuid")
        if uuid is not None and UUID(str(uuid)) in uuids:
            assert f"{ids(span)[0]:032x}" == uuids[UUID(str(uuid))]
    assert len(seen.named("charge")) == 20
