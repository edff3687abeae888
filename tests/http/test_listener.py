"""The server on a real socket: what it refuses, how it drains, how it is cut."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from typing import Any

import pytest

from operon.config import Settings
from operon.contexts import HandlerContext
from operon.errors import ConfigurationError, PortInUse
from operon.http.listener import serve
from operon.routes import get, post
from tests.http.conftest import Served, quart_of, served
from tests.ports import free_port


@get("/hello")
async def hello(ctx: HandlerContext) -> str:
    return "hello"


@get("/nothing")
async def nothing(ctx: HandlerContext) -> None: ...


@post("/echo")
async def echo(ctx: HandlerContext, text: str) -> str:
    return text


class Gate:
    """A handler that stays in flight until it is let go."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.opened = asyncio.Event()
        self.cancelled = asyncio.Event()

    @property
    def handler(self) -> Any:
        async def wait(ctx: HandlerContext) -> str:
            self.entered.set()
            try:
                await self.opened.wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
            return "done"

        return get("/wait")(wait)


async def exchange(server: Served, *pieces: bytes) -> bytes:
    """Everything the server says to these bytes until it closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    for piece in pieces:
        writer.write(piece)
        await writer.drain()
    try:
        return await asyncio.wait_for(reader.read(-1), 60)
    finally:
        writer.close()


def request(path: str, *headers: str, method: str = "GET") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "host: test", "connection: close", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def parsed(answer: bytes) -> tuple[int, dict[str, str], bytes]:
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:])
    return int(lines[0].split()[1]), headers, body


async def test_port_0_is_a_free_port_and_the_url_names_it() -> None:
    async with served(quart_of(hello)) as server:
        status, headers, body = parsed(await exchange(server, request("/hello")))

    assert server.url == f"http://127.0.0.1:{server.port}"
    assert (status, body) == (200, b"hello")
    assert "server" not in headers


async def test_a_port_in_use_says_what_to_do() -> None:
    async with served(quart_of(hello)) as server:
        with pytest.raises(PortInUse, match="--port") as refused:
            async with served(quart_of(hello), Settings(port=server.port)):
                pass

    assert str(server.port) in refused.value.message


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
async def test_an_address_of_another_machine_is_refused(host: str) -> None:
    with pytest.raises(ConfigurationError):
        await serve(quart_of(hello), Settings(host=host, port=0), lambda url: None, asyncio.Event())


async def test_none_is_204_without_type_or_length() -> None:
    async with served(quart_of(nothing)) as server:
        status, headers, body = parsed(await exchange(server, request("/nothing")))

    assert (status, body) == (204, b"")
    assert "content-type" not in headers
    assert "content-length" not in headers


async def test_a_length_with_a_chunked_body_is_refused_and_the_connection_closed() -> None:
    smuggled = b"0\r\n\r\nGET /hello HTTP/1.1\r\nhost: test\r\n\r\n"
    head = f"POST /echo HTTP/1.1\r\nhost: test\r\ncontent-length: {len(smuggled)}\r\ntransfer-encoding: chunked\r\n\r\n"

    async with served(quart_of(hello, echo)) as server:
        answer = await exchange(server, head.encode() + smuggled)

    status, headers, body = parsed(answer)
    assert status == 400
    assert headers["connection"] == "close"
    assert json.loads(body)["status"] == 400
    assert answer.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize(
    "headers",
    [["x: " + "a" * 17 * 1024], [f"x{number}: a" for number in range(101)]],
    ids=["bytes", "count"],
)
async def test_headers_are_bounded_also_when_they_arrive_at_once(headers: list[str]) -> None:
    async with served(quart_of(hello)) as server:
        status, _, _ = parsed(await exchange(server, request("/hello", *headers)))

    assert status == 431


async def test_headers_that_never_end_are_refused() -> None:
    async with served(quart_of(hello)) as server:
        answer = await exchange(server, b"GET /hello HTTP/1.1\r\nhost: test\r\n", b"x: " + b"a" * 20 * 1024)

    assert parsed(answer)[0] == 431


async def test_a_long_url_and_an_empty_path_are_refused() -> None:
    async with served(quart_of(hello)) as server:
        long = parsed(await exchange(server, request("/hello?" + "a" * 17 * 1024)))
        empty = parsed(await exchange(server, request("?a")))

    assert (long[0], empty[0]) == (414, 400)


@pytest.mark.parametrize(
    "head",
    [
        b"GET /hello HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
        b"GET /hello HTTP/1.1\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n",
        b"GET /hello HTTP/1.1\r\nhost: a\r\nx: a\x00b\r\n\r\n",
        b"nonsense\r\n\r\n",
    ],
)
async def test_what_is_not_http_is_400(head: bytes) -> None:
    async with served(quart_of(hello, echo)) as server:
        assert parsed(await exchange(server, head))[0] == 400


async def test_a_path_that_is_not_utf_8_is_400() -> None:
    @get("/show/<name>")
    async def show(ctx: HandlerContext, name: str) -> str:
        return name

    async with served(quart_of(show)) as server:
        status, _, body = parsed(await exchange(server, request("/show/%ff")))

    assert status == 400
    assert json.loads(body)["errors"] == [{"in": "path", "name": "", "detail": "not UTF-8"}]


async def test_a_chunked_body_that_grows_too_large_is_413() -> None:
    settings = Settings(port=0, body_limit_bytes=1000)
    head = request("/echo", "content-type: application/json", "transfer-encoding: chunked", method="POST")
    chunk = b"190\r\n" + b" " * 400 + b"\r\n"

    async with served(quart_of(echo, settings=settings), settings) as server:
        status, _, body = parsed(await exchange(server, head, chunk, chunk, chunk))

    assert status == 413
    assert json.loads(body)["code"] == "body_too_large"


async def test_an_announced_body_that_is_too_large_is_413_before_it_is_sent() -> None:
    head = request("/echo", "content-type: application/json", "content-length: 2000000", method="POST")

    async with served(quart_of(echo)) as server:
        status, _, _ = parsed(await exchange(server, head))

    assert status == 413


async def test_a_body_that_does_not_come_is_408() -> None:
    quart = quart_of(echo)
    quart.config["BODY_TIMEOUT"] = 0.01
    head = request("/echo", "content-type: application/json", "content-length: 10", method="POST")

    async with served(quart) as server:
        status, headers, _ = parsed(await exchange(server, head, b"{"))

    assert (status, headers["content-type"]) == (408, "application/problem+json")


async def test_the_caller_s_address_is_the_connection_s() -> None:
    @get("/ip")
    async def ip(ctx: HandlerContext) -> Any:
        return ctx.caller.request

    async with served(quart_of(ip)) as server:
        _, _, body = parsed(await exchange(server, request("/ip", "remote-addr: 1.2.3.4", "x-forwarded-for: 1.2.3.4")))

    assert json.loads(body)["ip"] == "127.0.0.1"


async def test_a_drain_finishes_what_is_in_flight_and_refuses_what_is_new() -> None:
    gate = Gate()
    async with served(quart_of(gate.handler)) as server:
        in_flight = asyncio.create_task(exchange(server, request("/wait")))
        await gate.entered.wait()

        server.stop.set()
        await asyncio.sleep(0)
        with pytest.raises(ConnectionRefusedError):
            while True:  # the port is closed in one of the next turns of the loop
                _, writer = await asyncio.open_connection("127.0.0.1", server.port)
                writer.close()
        assert not server.task.done()
        gate.opened.set()

        assert parsed(await in_flight)[0] == 200
        await asyncio.wait_for(server.task, 60)


async def test_a_drain_closes_idle_connections() -> None:
    async with served(quart_of(hello)) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /hello HTTP/1.1\r\nhost: test\r\n\r\n")
        await reader.readuntil(b"hello")

        server.stop.set()

        await asyncio.wait_for(server.task, 60)
        assert await reader.read() == b""
        writer.close()


async def test_a_drain_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    gate = Gate()
    settings = Settings(port=0, shutdown_seconds=0.1)
    async with served(quart_of(gate.handler), settings) as server:
        in_flight = asyncio.create_task(exchange(server, request("/wait")))
        await gate.entered.wait()

        server.stop.set()
        await asyncio.wait_for(server.task, 60)

        await asyncio.wait_for(gate.cancelled.wait(), 60)
        assert await in_flight == b""
    assert "cutting 1 connections" in caplog.text


async def test_a_client_that_does_not_read_delays_no_shutdown(caplog: pytest.LogCaptureFixture) -> None:
    @get("/flood")
    async def flood(ctx: HandlerContext) -> bytes:
        sent.set()
        return b"x" * 50_000_000

    sent = asyncio.Event()
    async with served(quart_of(flood), Settings(port=0, shutdown_seconds=0.1)) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as silent:
            silent.sendall(request("/flood"))
            await sent.wait()

            server.stop.set()

            await asyncio.wait_for(server.task, 60)
    assert "does not end" not in caplog.text


async def test_a_port_can_be_listened_on_again_at_once() -> None:
    async with served(quart_of(hello)) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(request("/hello"))
        await reader.read()  # the server has closed first, so its end of the connection lingers in TIME_WAIT
        writer.close()
        await writer.wait_closed()
        server.stop.set()
        await server.task

    async with served(quart_of(hello), Settings(port=server.port)) as again:
        assert again.port == server.port


async def test_cancelling_ends_it_at_once_and_runs_after_serving() -> None:
    gate = Gate()
    quart = quart_of(gate.handler)
    happened: list[str] = []
    quart.before_serving(lambda: happened.append("before"))
    quart.after_serving(lambda: happened.append("after"))
    async with served(quart, Settings(port=0, shutdown_seconds=3600)) as server:
        in_flight = asyncio.create_task(exchange(server, request("/wait")))
        await gate.entered.wait()

        server.task.cancel()
        await asyncio.wait_for(asyncio.wait([server.task]), 60)

        assert server.task.cancelled()
        assert gate.cancelled.is_set()
        assert await in_flight == b""
    assert happened == ["before", "after"]


async def test_a_failed_start_frees_the_port() -> None:
    quart = quart_of(hello)

    @quart.before_serving
    async def fail() -> None:
        raise RuntimeError("no")

    port = free_port()

    with pytest.raises(RuntimeError, match="no"):
        await serve(quart, Settings(port=port), lambda url: None, asyncio.Event())

    async with served(quart_of(hello), Settings(port=port)) as server:
        assert server.port == port


async def test_a_handler_learns_that_its_client_is_gone() -> None:
    gate = Gate()
    async with served(quart_of(gate.handler)) as server:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(request("/wait"))
        await gate.entered.wait()

        writer.close()

        await asyncio.wait_for(gate.cancelled.wait(), 60)


async def test_no_signal_handler_is_installed() -> None:
    import signal

    before = [signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)]
    async with served(quart_of(hello)):
        assert [signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)] == before


async def test_an_error_in_the_server_is_logged_without_passwords(caplog: pytest.LogCaptureFixture) -> None:
    quart = quart_of(hello)

    async def broken(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError("postgres://operon:hunter2@db.internal/app")

    async with served(quart) as server:
        quart.asgi_app = broken  # type: ignore[method-assign]
        with caplog.at_level(logging.ERROR):
            status, _, _ = parsed(await exchange(server, request("/hello")))

    assert status == 500
    assert "db.internal" in caplog.text
    assert "hunter2" not in caplog.text


async def test_who_had_just_connected_when_the_drain_began_is_answered() -> None:
    async with served(quart_of(hello)) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        hello_again = await exchange(server, request("/hello"))  # so that the first one was accepted, too

        server.stop.set()
        await asyncio.sleep(0)
        writer.write(request("/hello"))
        answer = await asyncio.wait_for(reader.read(-1), 60)
        writer.close()

    assert parsed(hello_again)[0] == 200
    assert parsed(answer)[0] == 200
