"""Clients that mean harm, on a real socket: every one is answered or cut off, and the next honest one is served."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from quart import Response, redirect

from operon.config import Settings
from operon.contexts import CommunicatorContext, HandlerContext
from operon.http import listener
from operon.http.listener import hypercorn_config
from operon.operations import communicator
from operon.routes import get, post
from tests.http.conftest import Served, quart_of, served
from tests.http.test_listener import exchange, parsed, request

JSON = "content-type: application/json"
INJECTED = "x%0d%0aset-cookie:%20evil=1"


@get("/hello")
async def hello(ctx: HandlerContext) -> str:
    return "hello"


@post("/value")
@communicator
async def value(ctx: CommunicatorContext, v: Any) -> Any:
    return v


@post("/text")
async def take(ctx: HandlerContext, text: str) -> int:
    return len(text)


@get("/named")
async def named(ctx: HandlerContext, name: str) -> Any:
    return "", 200, {"x-name": name}


@get("/made")
async def made(ctx: HandlerContext, name: str) -> Response:
    return Response("", headers={"x-name": name})


@get("/elsewhere")
async def elsewhere(ctx: HandlerContext, name: str) -> Any:
    return redirect(f"/{name}")


@get("/slash/")
async def slash(ctx: HandlerContext) -> None: ...


@get("/shows/<name>")
async def show(ctx: HandlerContext, name: str) -> str:
    return "shown"


@pytest.fixture
async def server() -> AsyncIterator[Served]:
    async with served(quart_of(hello, value, take, named, made, elsewhere, slash, show)) as server:
        yield server
        assert parsed(await exchange(server, request("/hello")))[2] == b"hello"


def body_of(length: int) -> list[str]:
    return [JSON, f"content-length: {length}"]


@pytest.mark.parametrize(
    "headers",
    [
        ["transfer-encoding: chunked", "content-length: 4"],
        ["content-length: 4", "transfer-encoding: chunked"],
        ["content-length: 4", "Transfer-Encoding: CHUNKED"],
        ["content-length: 4", "transfer-encoding: identity"],
        ["content-length: 4", "transfer-encoding: gzip, chunked"],
        ["transfer-encoding: xchunked"],
        ["transfer-encoding : chunked"],
        ["transfer-encoding: chunked", "transfer-encoding: identity"],
        ["content-length: 4, 5"],
        ["content-length: +4"],
        ["content-length: 0x4"],
        ["content-length: 4 4"],
    ],
)
async def test_a_body_of_two_lengths_is_never_two_requests(server: Served, headers: list[str]) -> None:
    smuggled = b"0\r\n\r\nGET /hello HTTP/1.1\r\nhost: test\r\n\r\n"
    head = "\r\n".join(["POST /value HTTP/1.1", "host: test", JSON, *headers]).encode() + b"\r\n\r\n"

    answer = await exchange(server, head + smuggled)

    assert parsed(answer)[0] in (400, 501)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"hello" not in answer


async def test_a_chunked_body_of_http_1_0_is_refused(server: Served) -> None:
    head = f"POST /value HTTP/1.0\r\nhost: test\r\n{JSON}\r\ntransfer-encoding: chunked\r\n\r\n".encode()

    answer = await exchange(server, head + b"0\r\n\r\nGET /hello HTTP/1.1\r\nhost: test\r\n\r\n")

    assert parsed(answer)[0] == 400
    assert answer.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize("pieces", [1, 40])
async def test_forty_kilobytes_of_headers_are_refused(server: Served, pieces: int) -> None:
    each = 40 * 1024 // pieces
    headers = [f"x-{number}: {'a' * each}" for number in range(pieces)]

    status, answered, body = parsed(await exchange(server, request("/hello", *headers)))

    assert status == 431
    if body:  # refused by us, and not already by the parser
        assert answered["content-type"] == "application/problem+json"
        assert json.loads(body)["request_id"] == answered["x-request-id"]


async def test_a_refusal_before_the_application_is_a_problem_like_every_other(server: Served) -> None:
    status, headers, body = parsed(await exchange(server, request("/hello", *(f"x{n}: a" for n in range(101)))))

    problem = json.loads(body)
    assert (status, problem["status"], problem["instance"]) == (431, 431, "/hello")
    assert problem["request_id"] == headers["x-request-id"]
    assert problem.keys() == {"status", "title", "code", "instance", "request_id", "detail"}


async def test_a_client_that_sends_its_headers_slowly_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    def impatient() -> Any:
        config = hypercorn_config()
        config.keep_alive_timeout = 0.2
        return config

    monkeypatch.setattr(listener, "hypercorn_config", impatient)
    async with served(quart_of(hello)) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /hello HTTP/1.1\r\nhost: test\r\n")
        drips = asyncio.create_task(drip(writer, b"x: a\r\n"))

        assert await asyncio.wait_for(reader.read(), 60) in (b"", None)

        drips.cancel()
        writer.close()
        assert parsed(await exchange(server, request("/hello")))[0] == 200


async def drip(writer: asyncio.StreamWriter, piece: bytes) -> None:
    """Sends a piece now and then, always sooner than the server would lose its patience with silence."""
    while not writer.is_closing():
        writer.write(piece)
        await asyncio.sleep(0.02)


async def test_a_client_that_sends_its_body_slowly_is_answered_408() -> None:
    quart = quart_of(hello, take)
    quart.config["BODY_TIMEOUT"] = 0.2
    async with served(quart) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(request("/text", *body_of(1000), method="POST") + b'{"text": "')
        drips = asyncio.create_task(drip(writer, b"a"))

        status, headers, _ = parsed(await asyncio.wait_for(reader.read(), 60))

        drips.cancel()
        writer.close()
        assert (status, headers["content-type"]) == (408, "application/problem+json")
        assert parsed(await exchange(server, request("/hello")))[0] == 200


async def test_a_hundred_idle_connections_keep_nobody_waiting(server: Served) -> None:
    idle = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(100)]
    for _, writer in idle:
        writer.write(b"GET /hello HTTP/1.1\r\nhost: test\r\nx: ")

    status, _, _ = parsed(await exchange(server, request("/hello")))

    for _, writer in idle:
        writer.close()
    assert status == 200


@pytest.mark.parametrize("path", ["/text", "/hello"])
async def test_a_chunked_gigabyte_is_stopped_at_the_limit(path: str) -> None:
    settings = Settings(port=0, body_limit_bytes=64 * 1024)
    chunk = b"10000\r\n" + b" " * 65_536 + b"\r\n"
    sent = 0
    async with served(quart_of(hello, take, settings=settings), settings) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        answer = asyncio.create_task(reader.read())
        method = "POST" if path == "/text" else "GET"
        writer.write(request(path, JSON, "transfer-encoding: chunked", method=method))
        try:
            while sent < 2**30 and not answer.done():
                writer.write(chunk)
                sent += len(chunk)
                await writer.drain()
        except ConnectionError:
            pass  # the server has closed on us
        status = await asyncio.wait_for(status_of(answer), 60)
        writer.close()

    assert sent < 64 * 2**20
    assert status in ((413, None) if path == "/text" else (200, 413, None))


async def status_of(answer: asyncio.Task[bytes]) -> int | None:
    """The status, or None where the connection was reset before the answer was read."""
    try:
        received = await answer
    except ConnectionError:
        return None
    return parsed(received)[0] if received else None


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 10_000 + b"]" * 10_000,
        b'{"v": ' + b"[" * 10_000 + b"]" * 10_000 + b"}",
        b'{"v": ' + b'{"a":' * 10_000 + b"1" + b"}" * 10_000 + b"}",
        b'{"x": ' + b"[" * 10_000 + b"]" * 10_000 + b', "v": 1}',
        b'{"v": ' + b"[" * 10_000,
    ],
)
async def test_json_ten_thousand_deep_is_400(server: Served, body: bytes) -> None:
    status, headers, _ = parsed(await exchange(server, request("/value", *body_of(len(body)), method="POST") + body))

    assert (status, headers["content-type"]) == (400, "application/problem+json")


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        (f"/named?name={INJECTED}", []),
        (f"/made?name={INJECTED}", []),
        (f"/elsewhere?name={INJECTED}", []),
        ("/named?name=a%00b%0bc%7f%C2%85d%E2%80%A8e", []),
        ("/made?name=a%00b", []),
        ("/elsewhere?name=a%00b%08", []),
        (f"/shows/{INJECTED}", []),
        (f"/{INJECTED}", []),
        (f"/slash?{INJECTED}", []),
        ("/slash", [f"x-forwarded-host: {INJECTED}"]),
        ("/hello", [f"x-request-id: {INJECTED}"]),
        ("/hello", ["x-request-id: a\x0bset-cookie: evil=1"]),
        ("/hello", [f"traceparent: {INJECTED}"]),
        ("/hello", [f"operon-workflowuuid: {INJECTED}"]),
        ("/hello", ["idempotency-key: a\x7fb"]),
        ("/hello", ["x: a\r\n set-cookie: evil=1"]),
        ("/hello", ["x: a\nset-cookie: evil=1"]),
        ("/hello", ["x: a\rset-cookie: evil=1"]),
        ("/hello\r\nset-cookie: evil=1\r\nx:", []),
        ("/he\tllo", []),
    ],
)
async def test_a_line_break_in_anything_makes_no_header(server: Served, path: str, headers: list[str]) -> None:
    answer = await exchange(server, request(path, *headers))

    status, answered, _ = parsed(answer)
    # Werkzeug refuses a response or a redirect that is made with a line break: an error of the application.
    assert status < 500 or path.startswith(("/made", "/elsewhere"))
    assert "set-cookie" not in answered
    assert answer.count(b"HTTP/1.1 ") == 1
    assert not [text for text in answered.values() if set(text) & {"\x00", "\x0b", "\r", "\n"}]


@pytest.mark.parametrize("method", ["GET\tX", "G\x00T", "X" * 5000, "CONNECT", "TRACE"])
async def test_an_odd_method_is_refused(server: Served, method: str) -> None:
    answer = await exchange(server, request("/hello", method=method))

    assert 400 <= parsed(answer)[0] < 500


async def test_a_body_that_is_announced_and_never_sent_holds_nothing_up(server: Served) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(request("/text", *body_of(1000), method="POST") + b"{")

    writer.close()

    assert parsed(await exchange(server, request("/hello")))[0] == 200


async def test_a_pipeline_of_requests_is_answered_in_order(server: Served) -> None:
    one = b"GET /hello HTTP/1.1\r\nhost: test\r\n\r\n"

    answer = await exchange(server, one * 50 + request("/nowhere"))

    assert answer.count(b"HTTP/1.1 200") == 50
    assert answer.count(b"HTTP/1.1 404") == 1
    assert answer.index(b"HTTP/1.1 404") > answer.rindex(b"HTTP/1.1 200")
