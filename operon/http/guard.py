"""Guard stands between Hypercorn and Quart, and refuses what no application should have to think about.

h11 takes a request that has both a length and a chunked body, and bounds only headers that arrive in pieces. The first
is how one request is smuggled inside another past a proxy (RFC 9112, 6.3), so both are closed here.

And Hypercorn never waits when it sends to a client that is gone, so a stream that never waits either would hold the
event loop for ever, without hearing that nobody listens. Here every piece of a stream gives the others a turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import msgspec

from operon.http.problems import Problem

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Any, Any, Any], Awaitable[None]]

HEADER_BYTES_MAX = 16 * 1024
HEADERS_MAX = 100
INSTANCE_CHARS_MAX = 2048  # of a URL that may be refused for its length


class Guard:
    """An ASGI application in front of another one."""

    __slots__ = ("_application",)

    def __init__(self, application: Application) -> None:
        self._application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = verdict(scope)
        if refusal is None:
            await self._application(scope, receive, in_turns(send))
        elif scope["type"] == "http":
            await refuse(scope, send, *refusal)
        else:
            await send({"type": "websocket.close", "code": 1002})

    def __repr__(self) -> str:
        return f"<Guard of {self._application!r}>"


def in_turns(send: Send) -> Send:
    async def send_and_yield(message: Message) -> None:
        await send(message)
        if message.get("more_body"):
            await asyncio.sleep(0)

    return send_and_yield


def verdict(scope: Scope) -> tuple[HTTPStatus, str] | None:
    """Why a request is refused, or None."""
    if scope["type"] not in ("http", "websocket"):
        return None
    headers: list[tuple[bytes, bytes]] = list(scope["headers"])
    names = {name.lower() for name, _ in headers}
    target_bytes = len(scope.get("raw_path") or b"") + len(scope["query_string"])
    if len(headers) > HEADERS_MAX or sum(len(name) + len(value) for name, value in headers) > HEADER_BYTES_MAX:
        return HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "the headers are larger than 16 KiB, or more than 100"
    if target_bytes > HEADER_BYTES_MAX:
        return HTTPStatus.REQUEST_URI_TOO_LONG, "the URL is longer than 16 KiB"
    if b"content-length" in names and b"transfer-encoding" in names:
        return HTTPStatus.BAD_REQUEST, "a request has a Content-Length or a Transfer-Encoding, not both"
    if b"transfer-encoding" in names and scope["http_version"] == "1.0":
        # RFC 9112, 6.1: who speaks 1.0 has not heard of it, so somebody in between has framed the request otherwise.
        return HTTPStatus.BAD_REQUEST, "a request of HTTP/1.0 has no Transfer-Encoding"
    if not scope["path"]:
        return HTTPStatus.BAD_REQUEST, "the path is empty"
    return None


async def refuse(scope: Scope, send: Send, status: HTTPStatus, detail: str) -> None:
    """Answers, and closes the connection: what follows on it cannot be told from the body."""
    identifier = str(uuid4())
    instance = quote(scope["path"], errors="replace")[:INSTANCE_CHARS_MAX]
    problem = Problem(status.value, status.phrase, "bad_request", instance, identifier, detail)
    body = msgspec.json.encode(problem)
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", b"%d" % len(body)),
        (b"x-request-id", identifier.encode()),
    ]
    if scope["http_version"] < "2":
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status.value, "headers": headers})
    await send({"type": "http.response.body", "body": body})
