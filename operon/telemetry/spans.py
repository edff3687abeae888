"""The names and attributes of spans, and the text form of a trace context, as it is stored and sent.

Names are few and fixed: an operation's recorded name, or a verb before a topic or a key. Attributes follow the semantic
conventions of OpenTelemetry where there are any (`messaging.*`, `db.*`, `error.type`, `exception.*`), else they begin
with `operon.`. No argument, result, message or SQL text is ever one; the size of a workflow's arguments is.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from uuid import UUID

from opentelemetry import trace
from opentelemetry.context import Context, attach, detach
from opentelemetry.trace import INVALID_SPAN, Link, Span, SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from operon.masking import masked_logger, told

UUID_KEY = "operon.workflow.uuid"
OPERATION = "operon.operation.name"
EVENT = "operon.supervision.event"
KIND = "operon.operation.kind"
STEP = "operon.step"
EPOCH = "operon.workflow.epoch"
RECORDED_STEPS = "operon.workflow.recorded_steps"
STATUS = "operon.workflow.status"
ARGUMENT_BYTES = "operon.arguments.size"
ATTEMPT = "operon.attempt"
DESTINATION_UUID = "operon.destination.workflow.uuid"
ERROR_TYPE = "error.type"

STACK_CHARS_MAX = 20_000
MESSAGE_CHARS_MAX = 2_000
# What W3C asks of everyone: https://www.w3.org/TR/trace-context/#tracestate-limits
TRACESTATE_CHARS_MAX = 512

VERB = re.compile(r"[A-Za-z]{1,16}\b", re.ASCII)

W3C = TraceContextTextMapPropagator()

logger = masked_logger("operon.telemetry")

Value = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Shape:
    """What the spans of one kind of step look like."""

    verb: str = ""  # before the name; alone where there is none
    kind: SpanKind = SpanKind.INTERNAL
    named: str = OPERATION  # the attribute that the name goes into
    constant: dict[str, Value] = field(default_factory=dict[str, Value])


# Checklist: a new kind of step is here if it shall have spans. Those that cost no wait have none; what waits for the
# end of another workflow has none either, for that one has its own.
SHAPES: dict[str, Shape] = {
    "transaction": Shape(constant={"db.system.name": "postgresql"}),
    "communicator": Shape(),
    "child": Shape("start", SpanKind.PRODUCER),
    "sql": Shape("sql", SpanKind.CLIENT, "db.operation.name", {"db.system.name": "postgresql"}),
    "send": Shape(
        "send",
        SpanKind.PRODUCER,
        "messaging.destination.name",
        {"messaging.system": "operon", "messaging.operation.name": "send", "messaging.operation.type": "send"},
    ),
    "recv": Shape(
        "receive",
        SpanKind.CLIENT,
        "messaging.destination.name",
        {"messaging.system": "operon", "messaging.operation.name": "recv", "messaging.operation.type": "receive"},
    ),
    "set_event": Shape("set_event", named="operon.event.key"),
    "get_event": Shape("get_event", named="operon.event.key"),
}


def name_and_attributes(kind: str, name: str) -> tuple[str, Shape, dict[str, Value]]:
    """The span of a step of this kind, which is recorded under this name."""
    shape = SHAPES[kind]
    if kind == "sql":  # recorded under the beginning of its text, of which only the verb is for spans
        verb = VERB.match(name)
        name = "" if verb is None else verb[0].upper()
    attributes = {KIND: kind, **shape.constant}
    if name:
        attributes[shape.named] = name
    return f"{shape.verb} {name}".strip(), shape, attributes


def begin(
    tracer: Tracer,
    name: str,
    parent: Context,
    kind: SpanKind,
    attributes: Mapping[str, Value],
    links: Sequence[Link] = (),
) -> Span:
    """A span. A processor that fails is no reason for a workflow to fail: then there is none."""
    try:
        return tracer.start_span(name, parent, kind, attributes, links)
    except Exception:
        logger.exception("a span of %s could not begin", name)
        return INVALID_SPAN


def end(span: Span) -> None:
    """Ends a span, and hands it to whatever exports it."""
    try:
        span.end()
    except Exception:
        logger.exception("a span could not end")


def to_text(span: Span) -> str | None:
    """A trace context as it is stored: its W3C `traceparent`, and after a space its `tracestate` where it has one."""
    carrier: dict[str, str] = {}
    W3C.inject(carrier, trace.set_span_in_context(span, Context()))
    state = carrier.get("tracestate", "")
    if state and len(state) <= TRACESTATE_CHARS_MAX:
        return f"{carrier['traceparent']} {state}"
    return carrier.get("traceparent")


def from_text(text: str | None) -> Context:
    """The context to make spans in that continue a stored one."""
    parent, _, state = (text or "").partition(" ")
    return W3C.extract({"traceparent": parent, "tracestate": state}, Context())


class Current:
    """Makes a span, or a context, the current one."""

    __slots__ = ("_context", "_token")

    def __init__(self, context: Context) -> None:
        self._context = context

    def __enter__(self) -> None:
        self._token = attach(self._context)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not GeneratorExit:  # a coroutine that was dropped is closed wherever, not where it was attached
            detach(self._token)


def record(span: Span, error: BaseException) -> None:
    """Marks a span as failed, with the exception as its event; nothing that is masked is in its texts."""
    if not span.is_recording():
        return
    kind = type_of(error)
    span.set_attribute(ERROR_TYPE, kind)
    note(span, error)
    span.set_status(Status(StatusCode.ERROR, f"{kind}: {message_of(error)}"))


def note(span: Span, error: BaseException, attributes: dict[str, Value] | None = None) -> None:
    """An exception as an event of a span. Not `record_exception`, which would take its texts as they are."""
    stack = "".join(traceback.format_exception(error))
    event: dict[str, Value] = {
        "exception.type": type_of(error),
        "exception.message": message_of(error),
        "exception.stacktrace": told(stack)[-STACK_CHARS_MAX:],
        **(attributes or {}),
    }
    span.add_event("exception", event)


def type_of(error: BaseException) -> str:
    """The name of an exception's class, with its module where that says something."""
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def message_of(error: BaseException) -> str:
    try:
        return told(str(error))[:MESSAGE_CHARS_MAX]
    except Exception:
        return ""


def attempt_failed(error: Exception, attempt: int) -> None:
    """An attempt of the step that runs here failed, and there may be another: an event of its span."""
    span = trace.get_current_span()
    if span.is_recording():
        note(span, error, {ATTEMPT: attempt})


def of_step(span: Span, workflow_uuid: UUID, number: int) -> None:
    """Says which step of which workflow a span is of."""
    span.set_attribute(UUID_KEY, str(workflow_uuid))
    span.set_attribute(STEP, number)
