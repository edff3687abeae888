"""Life: the span of one life of a workflow, and what is counted of it.

A workflow has a life wherever its coroutine begins anew: where it is started, after a crash, on another executor that
took it over, and each time that it comes back after it was parked. All lives continue the trace that is stored with the
workflow, below the span that started it, and each has a span of its own: a span cannot be ended by another process, and
one that is open for a month is seen by nobody. A life is linked to the one before where this process still knows it.
Steps that are replayed have no spans; how many there were is an attribute.
"""

from __future__ import annotations

from contextvars import ContextVar
from types import TracebackType
from uuid import UUID

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Status, StatusCode, Tracer

from operon.errors import StopActor
from operon.telemetry import hidden, spans
from operon.telemetry.metrics import Metrics

REMEMBERED_MAX = 10_000  # ended lives that a next one can be linked to; some 2 MB

_current: ContextVar[Life | None] = ContextVar("operon_life", default=None)


class Lives:
    """The spans of the last lives that ended here, so that the next ones can be linked to them."""

    def __init__(self) -> None:
        self._last: dict[UUID, SpanContext] = {}

    def ended(self, workflow_uuid: UUID, span: SpanContext) -> None:
        """There may be another life of this workflow."""
        self._last.pop(workflow_uuid, None)
        self._last[workflow_uuid] = span
        if len(self._last) > REMEMBERED_MAX:
            del self._last[next(iter(self._last))]

    def links(self, workflow_uuid: UUID) -> list[Link]:
        """To the life before, if it is known."""
        last = self._last.pop(workflow_uuid, None)
        return [] if last is None else [Link(last)]


class Life:
    """One life of one workflow, as a context manager around it."""

    __slots__ = (
        "_attributes",
        "_body",
        "_current",
        "_lives",
        "_metrics",
        "_parent",
        "_span",
        "_tracer",
        "error_type",
        "name",
        "status",
        "workflow_uuid",
    )

    def __init__(
        self,
        tracer: Tracer | None,
        metrics: Metrics | None,
        lives: Lives,
        workflow_uuid: UUID,
        name: str,
        traceparent: str | None,
        *,
        body: bool,
        attributes: dict[str, spans.Value],
    ) -> None:
        """`body`: it is a workflow, not a single step, whose own span says all there is to say."""
        self._tracer = tracer
        self._metrics = metrics
        self._lives = lives
        self._parent = traceparent
        self._body = body
        self._attributes = attributes
        self._span: Span | None = None
        self._current: spans.Current | None = None
        self.workflow_uuid = workflow_uuid
        self.name = name
        self.status: str | None = None  # how the workflow ended, if it did
        self.error_type: str | None = None

    def __enter__(self) -> Life:
        hidden.hide(())  # the steps' tasks shall share one set
        _current.set(self)
        if self._tracer is not None:
            context = spans.from_text(self._parent)
            if self._body:
                self._span = self._begin(self._tracer, context)
                context = trace.set_span_in_context(self._span, context)
            self._current = spans.Current(context)
            self._current.__enter__()
        return self

    def _begin(self, tracer: Tracer, context: Context) -> Span:
        attributes: dict[str, spans.Value] = {
            spans.UUID_KEY: str(self.workflow_uuid),
            spans.OPERATION: self.name,
            spans.KIND: "workflow",
            **self._attributes,
        }
        links = self._lives.links(self.workflow_uuid)
        return spans.begin(tracer, self.name, context, SpanKind.INTERNAL, attributes, links)

    def ended(self, status: str | None, halted: StopActor | None, replayed: int) -> None:
        """How the workflow ended; or why it goes on in another life: parked, taken over, the executor stops."""
        self.status = status
        if self._span is not None:
            self._span.set_attribute(spans.RECORDED_STEPS, replayed)
            if status is None and halted is not None:
                self._span.add_event("left", {"operon.reason": str(halted)})

    def failed(self, error: BaseException) -> None:
        """The workflow's own exception, which is its outcome."""
        self.error_type = spans.type_of(error)
        if self._span is not None:
            spans.record(self._span, error)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        span = self._span
        if span is not None:
            if self.status is not None:
                span.set_attribute(spans.STATUS, self.status)
                if self.status != "SUCCESS" and self.error_type is None:  # cancelled, or not to be gone on with
                    span.set_status(Status(StatusCode.ERROR, self.status))
            elif isinstance(error, Exception):
                spans.record(span, error)
            spans.end(span)
            if self.status is None:
                self._lives.ended(self.workflow_uuid, span.get_span_context())
        if self._metrics is not None and self.status is not None:
            self._count(self._metrics, self.status)
        if self._current is not None:
            self._current.__exit__(kind, error, traceback)
        _current.set(None)

    def _count(self, metrics: Metrics, status: str) -> None:
        if status == "SUCCESS":
            metrics.completed.add(1, {spans.OPERATION: self.name})
            return
        attributes = {spans.OPERATION: self.name, spans.STATUS: status}
        if self.error_type is not None:
            attributes[spans.ERROR_TYPE] = self.error_type
        metrics.failed.add(1, attributes)


def current_life() -> Life | None:
    """The life that runs here."""
    return _current.get()
