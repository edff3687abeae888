"""A collector: takes what exporters send over OTLP/HTTP, and waits for it."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

DEADLINE_SECONDS = 60.0


class Exported(NamedTuple):
    """A span, and what its process said of itself."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    resource: dict[str, str]


class Collector:
    """Everything that was sent."""

    def __init__(self) -> None:
        self.endpoint = ""
        self.spans: list[Exported] = []
        self.metrics: set[str] = set()
        self._came = asyncio.Condition()

    async def until(self, fact: Callable[[], bool]) -> None:
        """Waits until something is true of what was sent."""
        async with asyncio.timeout(DEADLINE_SECONDS), self._came:
            await self._came.wait_for(fact)

    def named(self, name: str, **resource: str) -> list[Exported]:
        return [span for span in self.spans if span.name == name and resource.items() <= span.resource.items()]

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                fields = dict(line.lower().split(": ", 1) for line in head.splitlines()[1:] if line)
                body = await reader.readexactly(int(fields["content-length"]))
                if fields.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                await self.take(head.split()[1], body)
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n")
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def take(self, path: str, body: bytes) -> None:
        async with self._came:
            if path.endswith("/v1/traces"):
                for each in ExportTraceServiceRequest.FromString(body).resource_spans:
                    resource = {field.key: field.value.string_value for field in each.resource.attributes}
                    for scope in each.scope_spans:
                        self.spans += [
                            Exported(
                                span.name,
                                span.trace_id.hex(),
                                span.span_id.hex(),
                                span.parent_span_id.hex(),
                                resource,
                            )
                            for span in scope.spans
                        ]
            else:
                for measured in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                    self.metrics |= {metric.name for scope in measured.scope_metrics for metric in scope.metrics}
            self._came.notify_all()


@asynccontextmanager
async def collecting() -> AsyncGenerator[Collector]:
    """A collector on a port of its own."""
    collector = Collector()
    server = await asyncio.start_server(collector.answer, "127.0.0.1", 0)
    collector.endpoint = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield collector
