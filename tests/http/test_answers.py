"""What a function returns becomes an answer."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import msgspec
import pytest
from quart import (
    Quart,
    Response,
    abort,
    redirect,
    send_file,  # pyright: ignore[reportUnknownVariableType] - its types are incomplete
)
from quart.typing import TestClientProtocol as ClientProtocol

from operon.contexts import CommunicatorContext, HandlerContext
from operon.errors import CatalogError
from operon.http.answers import of_handler
from operon.operations import communicator
from operon.routes import get
from tests.http.conftest import quart_of, served
from tests.http.test_listener import exchange, request


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


async def test_a_stream_is_text_unless_it_says_otherwise_and_is_not_cut_after_a_minute() -> None:
    plain = await client_returning(stream()).get("/")
    typed = await client_returning((stream(), 200, {"content-type": "text/event-stream"})).get("/")

    assert (plain.content_type, plain.headers["x-content-type-options"]) == ("text/plain; charset=utf-8", "nosniff")
    assert of_handler(stream()).timeout is None  # what Quart goes by when it sends
    assert (typed.content_type, await typed.get_data()) == ("text/event-stream", b"ab")


async def test_a_stream_of_a_response_object_passes_through() -> None:
    response = await client_returning(Response(stream(), status=206, mimetype="video/webm")).get("/")

    assert (response.status_code, response.content_type, await response.get_data()) == (206, "video/webm", b"ab")


def test_a_generator_as_a_handler_is_refused_at_launch_with_what_to_write() -> None:
    async def lines(ctx: HandlerContext) -> AsyncIterator[str]:
        yield "a"

    with pytest.raises(CatalogError, match="is a generator") as refused:
        quart_of(get("/")(cast("Any", lines)))

    assert "return lines()" in str(refused.value.hint)


async def test_a_file_is_downloaded_also_in_part_and_not_again(tmp_path: Path) -> None:
    file = tmp_path / "réçu.txt"
    file.write_text("one two three")

    @get("/file")
    async def download(ctx: HandlerContext) -> Response:
        return await send_file(file, as_attachment=True, conditional=True)

    client = quart_of(download).test_client()

    whole = await client.get("/file")
    part = await client.get("/file", headers={"range": "bytes=4-6"})
    again = await client.get("/file", headers={"if-none-match": whole.headers["etag"]})

    assert (whole.status_code, await whole.get_data()) == (200, b"one two three")
    assert "attachment" in whole.headers["content-disposition"]
    assert (part.status_code, await part.get_data()) == (206, b"two")
    assert (again.status_code, await again.get_data()) == (304, b"")


@pytest.mark.parametrize("text", ["a\r\nset-cookie: b", "a\nb", "a\x00b", "a\u2028b", "\ud800"])
async def test_a_header_of_an_answer_stays_one_line(text: str) -> None:
    response = await client_returning(("body", 200, {"x-name": text})).get("/")

    assert response.status_code == 200
    assert not set(response.headers["x-name"]) & set("\r\n\x00\u2028\ud800")
    assert "set-cookie" not in response.headers


async def test_a_response_object_cannot_carry_control_characters_either() -> None:
    response = await client_returning(Response("body", headers={"x-name": "a\x00b\x1fc"})).get("/")

    assert response.headers["x-name"] == "a b c"


async def test_nothing_is_shared_with_other_origins_unless_the_application_says_so() -> None:
    async def handler(ctx: HandlerContext) -> str:
        return "mine"

    quart = quart_of(get("/")(handler))
    client = quart.test_client()
    asking = {"origin": "https://elsewhere.example", "access-control-request-method": "GET"}

    answers = [await client.get("/", headers=asking), await client.options("/", headers=asking)]

    names = {name.lower() for answer in answers for name, _ in answer.headers.items()}
    assert not [name for name in names if name.startswith("access-control-")]


async def test_an_application_shares_with_other_origins_by_quart_s_own_means() -> None:
    async def handler(ctx: HandlerContext) -> str:
        return "ours"

    quart = quart_of(get("/")(handler))

    @quart.after_request
    async def share(response: Response) -> Response:
        response.headers["access-control-allow-origin"] = "https://elsewhere.example"
        return response

    response = await quart.test_client().get("/")

    assert response.headers["access-control-allow-origin"] == "https://elsewhere.example"


async def test_a_stream_that_fails_midway_never_looks_complete(caplog: pytest.LogCaptureFixture) -> None:
    async def failing() -> AsyncIterator[str]:
        yield "begun"
        raise ValueError("postgres://operon:hunter2@db.internal/app")

    @get("/")
    async def handler(ctx: HandlerContext) -> AsyncIterator[str]:
        return failing()

    async with served(quart_of(handler)) as server:
        answer = await exchange(server, request("/"))

    assert b"begun" in answer
    assert not answer.endswith(b"0\r\n\r\n")  # how a whole chunked body ends
    assert b"hunter2" not in answer
    assert "hunter2" not in caplog.text


async def test_a_stream_whose_client_is_gone_is_closed() -> None:
    closed = asyncio.Event()

    async def endless() -> AsyncIterator[str]:
        try:
            while True:
                yield "and on, " * 1000
        finally:
            closed.set()

    @get("/")
    async def handler(ctx: HandlerContext) -> AsyncIterator[str]:
        return endless()

    async with served(quart_of(handler)) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(request("/"))
        await reader.readuntil(b"and on")

        writer.close()

        await asyncio.wait_for(closed.wait(), 60)
