"""ServerSpans: one server span, and one measurement, for each HTTP request, around the whole application.

Around it, because only there the status that a client sees is known, whatever made it: a function, an error handler, a
route that does not exist. The trace of the client goes on in the span, and the span's in everything that the request
starts; the answer carries it too. Where another instrumentation has made a server span already, this one is a part of
it. Nothing of the query string, of the headers or of the body is an attribute; a path with a masked argument is not one
either, only its route.

https://opentelemetry.io/docs/specs/semconv/http/http-spans/#http-server
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

from opentelemetry import trace
from opentelemetry.context import get_current
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer
from quart.wrappers import Request

from operon.http.exchange import TRACE_KEY, WORKFLOW_UUID_KEY, scope_of
from operon.masking import masked
from operon.telemetry import hidden, spans
from operon.telemetry.observer import Telemetry

Scope = Any
Send = Callable[[Any], Awaitable[None]]
Application = Callable[[Any, Any, Any], Awaitable[None]]

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"})
PATH_CHARS_MAX = 2048
SERVED_KEY = "operon.served"


class Served:
    """What is known of one request while it is answered."""

    __slots__ = ("_method", "_span", "path", "route", "status")

    def __init__(self, span: Span, method: str, path: str) -> None:
        self._span = span
        self._method = method
        self.path = path
        self.route: str | None = None
        self.status: int | None = None

    def routed(self, route: str, *, secret: bool) -> None:
        """It reached an endpoint. secret: what stands in its path may not be told."""
        self.route = route
        if secret:
            self.path = route
        self._span.update_name(f"{self._method} {route}")

    def failed(self, error: Exception) -> None:
        """Its function raised what no client can help."""
        if self._span.is_recording():
            spans.note(self._span, error)

    def attributes(self, scope: Scope) -> dict[str, spans.Value]:
        """What the span and the measurement have in common."""
        attributes: dict[str, spans.Value] = {
            "http.request.method": self._method,
            "url.scheme": scope["scheme"],
            "network.protocol.version": scope["http_version"],
        }
        if self.route is not None:
            attributes["http.route"] = self.route
        if self.status is not None:
            attributes["http.response.status_code"] = self.status
        if self.status is None or self.status >= 500:
            attributes[spans.ERROR_TYPE] = str(self.status or "no_answer")
        return attributes


class ServerSpans:
    """An ASGI application around another."""

    __slots__ = ("_inner", "_telemetry")

    def __init__(self, inner: Application, telemetry: Callable[[], Telemetry]) -> None:
        self._inner = inner
        self._telemetry = telemetry  # of whichever executor runs when a request comes

    async def __call__(self, scope: Scope, receive: Any, send: Send) -> None:
        telemetry = self._telemetry()
        if not telemetry.on or scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        started = time.perf_counter()
        span = trace.INVALID_SPAN if telemetry.tracer is None else begin(telemetry.tracer, scope)
        served = scope[SERVED_KEY] = Served(span, method_of(scope), scope["path"][:PATH_CHARS_MAX])

        async def watched(message: Any) -> None:
            if message["type"] == "http.response.start":
                served.status = message["status"]
            await send(message)

        hidden.hide(())  # one set for all the tasks of the request
        try:
            if telemetry.tracer is None:
                await self._inner(scope, receive, watched)
            else:
                scope[TRACE_KEY] = spans.to_text(span)
                with spans.Current(trace.set_span_in_context(span)):
                    await self._inner(scope, receive, watched)
        finally:
            attributes = served.attributes(scope)
            if span.is_recording():
                end(span, scope, served, attributes)
            spans.end(span)
            if telemetry.metrics is not None:
                telemetry.metrics.request.record(time.perf_counter() - started, attributes)

    def __repr__(self) -> str:
        return f"<ServerSpans around {self._inner!r}>"


def begin(tracer: Tracer, scope: Scope) -> Span:
    """The span of a request, below the client's, or below the one that another instrumentation made of it."""
    method = method_of(scope)
    if trace.get_current_span().get_span_context().is_valid:
        return spans.begin(tracer, method, get_current(), SpanKind.INTERNAL, {})
    parent, state = header(scope, b"traceparent"), header(scope, b"tracestate")
    attributes: dict[str, spans.Value] = {"http.request.method": method, "url.scheme": scope["scheme"]}
    return spans.begin(tracer, method, spans.from_text(f"{parent} {state}"), SpanKind.SERVER, attributes)


def end(span: Span, scope: Scope, served: Served, attributes: dict[str, spans.Value]) -> None:
    """Says what came of the request."""
    span.set_attributes(attributes)
    span.set_attribute("url.path", masked(served.path))
    if scope.get("client"):
        span.set_attribute("client.address", scope["client"][0])
    if workflow_uuid := scope.get(WORKFLOW_UUID_KEY):
        span.set_attribute(spans.UUID_KEY, workflow_uuid)
    if spans.ERROR_TYPE in attributes:
        span.set_status(Status(StatusCode.ERROR))


def method_of(scope: Scope) -> str:
    """The method, if it is one: names of spans are few."""
    method: str = scope["method"]
    return method if method in METHODS else "_OTHER"


def header(scope: Scope, name: bytes) -> str:
    """The value of a header; one that came more than once is a list."""
    values = [value for key, value in scope["headers"] if key.lower() == name]
    return b",".join(values).decode("ascii", "replace")


def served_of(request: Request) -> Served | None:
    """What is known of a request that is answered in a span, or measured."""
    served: Served | None = scope_of(request).get(SERVED_KEY)
    return served
