"""The shop under OpenTelemetry's SDK, with exporters that keep everything in memory."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from operon.testing import TestRuntime
from tests.telemetry import shop


class Seen:
    """What was exported so far."""

    def __init__(self) -> None:
        self._spans = InMemorySpanExporter()
        self._metrics = InMemoryMetricReader()
        self.tracers = TracerProvider(shutdown_on_exit=False)
        self.tracers.add_span_processor(SimpleSpanProcessor(self._spans))
        self.meters = MeterProvider([self._metrics], shutdown_on_exit=False)

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        """In the order of their ends."""
        return self._spans.get_finished_spans()

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.spans if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        (span,) = self.named(name)
        return span

    @property
    def metrics(self) -> str:
        """Everything that was measured, as text."""
        data = self._metrics.get_metrics_data()
        return data.to_json() if data is not None else ""

    def points(self, metric: str) -> list[Any]:
        """The data points of a metric."""
        data = self._metrics.get_metrics_data()
        return [
            point
            for resource in (data.resource_metrics if data is not None else ())
            for scope in resource.scope_metrics
            for each in scope.metrics
            if each.name == metric
            for point in each.data.data_points
        ]

    def counted(self, metric: str, **attributes: str) -> int:
        """The value of a counter, or the count of a histogram, over all points with these attributes."""
        wanted = {name.replace("_", "."): value for name, value in attributes.items()}
        return sum(
            point.value if hasattr(point, "value") else point.count
            for point in self.points(metric)
            if wanted.items() <= dict(point.attributes).items()
        )


def ids(span: ReadableSpan | Any) -> tuple[int, int]:
    """The trace and the span."""
    context = span.get_span_context()
    assert context is not None
    return context.trace_id, context.span_id


def parent_of(span: ReadableSpan) -> int | None:
    return span.parent.span_id if span.parent is not None else None


def attributes_of(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


@pytest.fixture(autouse=True)
def fresh() -> None:
    """Nothing of the last test."""
    shop.gates.clear()
    shop.current.clear()


@pytest.fixture
def seen() -> Iterator[Seen]:
    seen = Seen()
    yield seen
    seen.tracers.shutdown()
    seen.meters.shutdown()


@pytest.fixture
async def runtime(seen: Seen) -> AsyncGenerator[TestRuntime]:
    async with TestRuntime(shop, tracer_provider=seen.tracers, meter_provider=seen.meters) as runtime:
        yield runtime
