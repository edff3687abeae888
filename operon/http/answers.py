"""From what a function returned to an answer.

The rule: `None` is 204, a string is text, everything else is JSON. What an operation returns is always its value. A
plain handler may also answer as in Quart: with a response object, a stream, or a tuple `(body, status)`,
`(body, headers)` or `(body, status, headers)`; a tuple that is none of these is a JSON array.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from enum import Enum
from typing import Any, cast

import msgspec
from quart.typing import HeadersValue
from quart.wrappers import Response
from werkzeug.datastructures import Headers
from werkzeug.wrappers import Response as WerkzeugResponse

STATUSES = range(100, 600)

to_json = msgspec.json.Encoder().encode


def of_value(value: Any, otherwise: Callable[[Any], bytes] | None = None) -> Response:
    """The answer that carries a value. `otherwise` encodes what plain JSON cannot carry."""
    match value:
        case None:
            return empty()
        case str() if not isinstance(value, Enum):
            # A lone surrogate cannot be sent; an escape in its place can be read.
            response = Response(value.encode("utf-8", "backslashreplace"), content_type="text/plain; charset=utf-8")
            response.headers["x-content-type-options"] = "nosniff"
            return response
        case bytes() | bytearray() if otherwise is None:
            return Response(bytes(value), content_type="application/octet-stream")
        case _:
            return Response(json_of(value, otherwise), content_type="application/json")


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
            return (body_of(body), cast("HeadersValue", headers))
        case (body, int() as status, headers) if status in STATUSES and isinstance(headers, Headers | dict | list):
            return (body_of(body), status, cast("HeadersValue", headers))
        case _:
            return body_of(value)


def body_of(value: Any) -> Any:
    if isinstance(value, Response | WerkzeugResponse) or inspect.isgenerator(value) or inspect.isasyncgen(value):
        return value
    return of_value(value)
