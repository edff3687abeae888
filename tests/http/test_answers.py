"""What a function returns becomes an answer."""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import msgspec
import pytest
from quart import Quart, Response, abort, redirect
from quart.typing import TestClientProtocol as ClientProtocol

from operon.contexts import CommunicatorContext, HandlerContext
from operon.operations import communicator
from operon.routes import get
from tests.http.conftest import quart_of


class Seat(msgspec.Struct):
    show: str
    number: int


@dataclass
class Point:
    x: int


class State(enum.StrEnum):
    OPEN = "open"


async def stream() -> AsyncIterator[bytes]:
    yield b"a"
    yield b"b"


def client_returning(value: Any) -> ClientProtocol:
    """A client of a plain handler that returns the value."""

    async def handler(ctx: HandlerContext) -> Any:
        return value

    return quart_of(get("/")(handler)).test_client()


def client_of_operation(value: Any, returns: Any = Any) -> ClientProtocol:
    """A client of an operation that returns the value."""

    async def operation(ctx: CommunicatorContext) -> Any:
        return value

    operation.__annotations__["return"] = returns
    return quart_of(get("/")(communicator(operation))).test_client()


VALUES: list[tuple[Any, str, bytes]] = [
    ("text", "text/plain; charset=utf-8", b"text"),
    ("", "text/plain; charset=utf-8", b""),
    ("<b>", "text/plain; charset=utf-8", b"<b>"),
    (0, "application/json", b"0"),
    (False, "application/json", b"false"),
    ({"a": [1]}, "application/json", b'{"a":[1]}'),
    ([], "application/json", b"[]"),
    (Seat("Hamlet", 1), "application/json", b'{"show":"Hamlet","number":1}'),
    (Point(1), "application/json", b'{"x":1}'),
    (UUID(int=1), "application/json", b'"00000000-0000-0000-0000-000000000001"'),
    (State.OPEN, "application/json", b'"open"'),
    ((1, 2, 3, 4), "application/json", b"[1,2,3,4]"),
]


@pytest.mark.parametrize(("value", "content_type", "body"), VALUES)
async def test_a_value_is_200_with_a_body(value: Any, content_type: str, body: bytes) -> None:
    for client in (client_returning(value), client_of_operation(value)):
        response = await client.get("/")

        assert (response.status_code, response.content_type) == (200, content_type)
        assert await response.get_data() == body


async def test_none_is_204_without_a_body() -> None:
    for client in (client_returning(None), client_of_operation(None)):
        response = await client.get("/")

        assert response.status_code == 204
        assert await response.get_data() == b""


async def test_a_text_is_never_sniffed_for_html() -> None:
    response = await client_returning("<script>").get("/")

    assert response.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("value", "status", "headers", "body"),
    [
        (Response("made", status=202), 202, {}, b"made"),
        (redirect("/elsewhere"), 302, {"location": "/elsewhere"}, None),
        (redirect("/for-good", 301), 301, {"location": "/for-good"}, None),
        (("gone", 410), 410, {}, b"gone"),
        ((None, 201), 201, {}, b""),
        (({"a": 1}, 201, {"location": "/a"}), 201, {"location": "/a", "content-type": "application/json"}, b'{"a":1}'),
        (("<b>", {"content-type": "text/html"}), 200, {"content-type": "text/html"}, b"<b>"),
        ((b"\x00", 200), 200, {"content-type": "application/octet-stream"}, b"\x00"),
        ((1, 2), 200, {"content-type": "application/json"}, b"[1,2]"),
        ((1, True), 200, {"content-type": "application/json"}, b"[1,true]"),
    ],
)
async def test_a_handler_may_answer_as_in_quart(
    value: Any, status: int, headers: dict[str, str], body: bytes | None
) -> None:
    response = await client_returning(value).get("/")

    assert response.status_code == status
    assert {name: response.headers[name] for name in headers} == headers
    assert body is None or await response.get_data() == body


async def test_an_operation_answers_with_its_value_whatever_it_looks_like() -> None:
    response = await client_of_operation(("gone", 410)).get("/")

    assert (response.status_code, await response.get_json()) == (200, ["gone", 410])


async def test_a_handler_may_stream() -> None:
    response = await client_returning(stream()).get("/")

    assert await response.get_data() == b"ab"


async def test_a_lone_surrogate_in_a_text_is_sent_as_an_escape() -> None:
    response = await client_of_operation("a\ud800").get("/")

    assert await response.get_data() == b"a\\ud800"


async def test_a_lone_surrogate_in_json_is_sent_as_an_escape() -> None:
    for client in (client_returning({"a": "\ud800"}), client_of_operation({"a": "\ud800"}, dict[str, str])):
        response = await client.get("/")

        assert await response.get_data() == b'{"a": "\\ud800"}'


async def test_a_value_that_json_cannot_carry_is_500_from_a_handler() -> None:
    response = await client_returning({(1, 2): 3}).get("/")

    assert (response.status_code, (await response.get_json())["code"]) == (500, "internal_error")


async def test_an_operation_s_result_codec_writes_what_plain_json_cannot() -> None:
    response = await client_of_operation({(1, 2): 3}, dict[tuple[int, int], int]).get("/")

    assert response.status_code == 200
    assert response.content_type == "application/json"


async def test_a_handler_may_abort() -> None:
    @get("/")
    async def handler(ctx: HandlerContext) -> None:
        abort(418, "no coffee")

    response = await quart_of(handler).test_client().get("/")

    assert response.status_code == 418
    assert (await response.get_json())["detail"] == "no coffee"


async def test_an_abort_with_a_response_is_that_response() -> None:
    @get("/")
    async def handler(ctx: HandlerContext) -> None:
        abort(Response("mine", status=409))

    response = await quart_of(handler).test_client().get("/")

    assert (response.status_code, await response.get_data()) == (409, b"mine")


async def test_the_application_s_own_quart_routes_work_beside_the_endpoints() -> None:
    quart = Quart("own")

    @quart.get("/own")
    async def own() -> str:
        return "own"

    client = quart_of(quart=quart).test_client()

    assert await (await client.get("/own")).get_data() == b"own"
