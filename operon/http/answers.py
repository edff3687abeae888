"""From what a function returned to an answer.

The rule: `None` is 204, a string is text, everything else is JSON. What an operation returns is always its value. A
plain handler may also answer as in Quart: with a response object (`await quart.send_file(...)`), a stream, or a tuple
`(body, status)`, `(body, headers)` or `(body, status, headers)`; a tuple that is none of these is a JSON array.

A stream is a generator of texts or bytes. It is text unless its headers say otherwise, and lasts as long as it likes.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import Any, cast

import msgspec
from quart.typing import HeadersValue
from quart.wrappers import Response
from werkzeug.datastructures import Headers
from werkzeug.wrappers import Response as WerkzeugResponse

from operon.http.exchange import one_line

STATUSES = range(100, 600)

to_json = msgspec.json.Encoder().encode


def of_value(value: Any, otherwise: Callable[[Any], bytes] | None = None) -> Response:
    """The answer that carries a value. `otherwise` encodes what plain JSON cannot carry."""
    match value:
        case None:
            return empty()
        case str() if not isinstance(value, Enum):
            # A lone surrogate cannot be sent; an escape in its place can be read.
            return text(value.encode("utf-8", "backslashreplace"))
        case bytes() | bytearray() if otherwise is None:
            return Response(bytes(value), content_type="application/octet-stream")
        case _:
            return Response(json_of(value, otherwise), content_type="application/json")


def text(body: Any) -> Response:
    """A text, which no browser may take for HTML."""
    response = Response(body, content_type="text/plain; charset=utf-8")
    response.headers["x-content-type-options"] = "nosniff"
    return response


def empty() -> Response:
    response = Response(b"", status=204)
    del response.headers["content-type"]  # there is no content to have a type, nor a length (RFC 9110, 8.6)
    del response.headers["content-length"]
    return response


def json_of(value: Any, otherwise: Callable[[Any], bytes] | None) -> bytes:
    try:
        return to_json(value)
    except UnicodeEncodeError:  # a lone surrogate, which JSON can carry as an escape
        return json.dumps(msgspec.to_builtins(value, str_keys=True), allow_nan=False).encode()
    except TypeError:
        if otherwise is None:
            raise
        return otherwise(value)


def of_handler(value: Any) -> Any:
    """The answer of a plain handler, in the forms that Quart knows."""
    match value:
        case (body, int() as status) if status in STATUSES:
            return (body_of(body), status)
        case (body, headers) if isinstance(headers, Headers | dict):
            return (body_of(body), one_line_each(headers))
        case (body, int() as status, headers) if status in STATUSES and isinstance(headers, Headers | dict | list):
            return (body_of(body), status, one_line_each(headers))
        case _:
            return body_of(value)


def body_of(value: Any) -> Any:
    if isinstance(value, Response | WerkzeugResponse):
        return value
    if inspect.isgenerator(value) or inspect.isasyncgen(value):
        stream = text(value)
        stream.timeout = None  # not Quart's minute for an answer, which would end it silently
        return stream
    return of_value(value)


def one_line_each(headers: Any) -> HeadersValue:
    """Headers whose values may be a client's words: a line break in one is a space, and never the next header."""
    pairs = cast("Iterable[tuple[str, Any]]", headers.items() if isinstance(headers, Mapping) else headers)
    return [(name, one_line(str(value))) for name, value in pairs]
