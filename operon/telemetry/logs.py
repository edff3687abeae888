"""Log records: the fields of a context's logger, and the two formats of `operon start`.

Records are the standard library's, so whatever an application configured for `logging` goes on to work. The fields are
attributes of the record (`extra`), and the trace is looked up when something is logged, not before. Messages and
tracebacks are masked by the filter of `operon.masking`, before any format sees them.
"""

from __future__ import annotations

import json
import logging
from collections.abc import MutableMapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from opentelemetry import trace

from operon.masking import mask_handlers, told
from operon.telemetry.spans import from_text

FIELDS = ("workflow_uuid", "operation", "user", "trace_id", "span_id", "request_id")
# What every record has; everything else is a field that somebody gave it.
STANDARD = frozenset({*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"})
TEXT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"


class FieldLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger whose records say where they come from: `workflow_uuid`, `operation`, `user`, `trace_id`, `span_id`."""

    def __init__(
        self,
        logger: logging.Logger,
        workflow_uuid: UUID | None,
        operation: str | None,
        user: str | None,
        traceparent: str | None,
    ) -> None:
        uuid = None if workflow_uuid is None else str(workflow_uuid)
        super().__init__(logger, {"workflow_uuid": uuid, "operation": operation, "user": user})
        self._traceparent = traceparent

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        kwargs["extra"] = {**(self.extra or {}), **trace_fields(self._traceparent), **(kwargs.get("extra") or {})}
        return msg, kwargs


def trace_fields(stored: str | None = None) -> dict[str, str | None]:
    """The ids of the current span; without one, of the trace that the caller was in."""
    span = trace.get_current_span().get_span_context()
    if not span.is_valid and stored is not None:
        span = trace.get_current_span(from_text(stored)).get_span_context()
    if not span.is_valid:
        return {"trace_id": None, "span_id": None}
    return {"trace_id": trace.format_trace_id(span.trace_id), "span_id": trace.format_span_id(span.span_id)}


class TextFormatter(logging.Formatter):
    """A line for people, with the fields that are known at its end."""

    def __init__(self) -> None:
        super().__init__(TEXT)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the standard library's name
        line = super().formatMessage(record)
        known = [f"{name}={value}" for name in FIELDS if (value := getattr(record, name, None)) is not None]
        return f"{line}  [{' '.join(known)}]" if known else line

    def format(self, record: logging.LogRecord) -> str:
        if record.exc_text:  # of another handler, whose filters it did not pass
            record.exc_text = told(record.exc_text)
        return super().format(record)


class JsonFormatter(logging.Formatter):
    """One JSON object per line: `time`, `level`, `logger`, `message`, the fields, and `exception` if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        document: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **fields_of(record),
        }
        if record.exc_info and not record.exc_text:
            record.exc_text = self.formatException(record.exc_info)
        if record.exc_text:
            document["exception"] = told(record.exc_text)
        if record.stack_info:
            document["stack"] = told(self.formatStack(record.stack_info))
        return json.dumps(document, default=str)  # not msgspec: this one writes every string there is, on one line


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """What a record was given besides its message, None aside; and the trace that it is in, whoever logs it."""
    fields: dict[str, Any] = {name: value for name, value in trace_fields().items() if value is not None}
    for name, value in vars(record).items():
        if name not in STANDARD and not name.startswith("_") and value is not None:
            plain = name in FIELDS or isinstance(value, bool | int | float)  # no secret is in an id but by accident
            fields[name] = value if plain else told(str(value))
    return fields


FORMATS: dict[str, type[logging.Formatter]] = {"text": TextFormatter, "json": JsonFormatter}


def configure(level: str, format: str) -> None:
    """Sends the records of this process to standard error, in one of the two formats."""
    handler = logging.StreamHandler()
    handler.setFormatter(FORMATS[format]())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    mask_handlers()
