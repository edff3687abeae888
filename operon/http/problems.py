"""Errors as answers: `application/problem+json`, RFC 9457. One rule decides what a client may read.

An error whose `status` is a client's fault (4xx) says what happened, for the client can do something about it. So
does an application's own error that chose its status. Everything else is 500 and says nothing: the log has it, under
the request id that the answer carries.
"""

from __future__ import annotations

import inspect
import math
import re
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import msgspec
from quart.wrappers import Request, Response
from werkzeug.exceptions import HTTPException, InternalServerError

from operon.errors import NotAuthorizedError, OperonError
from operon.http.exchange import WORKFLOW_UUID_KEY, one_line, request_id, scope_of
from operon.http.refusals import BadInput, Complaint
from operon.masking import masked, masked_logger

DETAIL_CHARS_MAX = 2000
RETRY_AFTER_SECONDS = 1
ERROR_STATUSES = range(400, 600)
CODE = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)

logger = masked_logger("operon.http")


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """The document. `title` is the status in words, `code` is stable, `detail` is for people."""

    status: int
    title: str
    code: str
    instance: str
    request_id: str
    detail: str | None = None
    hint: str | None = None
    errors: tuple[Complaint, ...] = ()


def answer(error: Exception, request: Request) -> Response:
    """The answer to an error that ended a request; logs it where it is the server's fault."""
    if isinstance(error, InternalServerError) and isinstance(error.original_exception, Exception):
        error = error.original_exception  # raised after the function had answered: a header, a converter of Quart's
    problem = describe(error, quote(request.path, errors="replace"), request_id(request))
    if problem.status >= 500:
        log(error, problem, request)
    response = Response(msgspec.json.encode(problem), status=problem.status, content_type="application/problem+json")
    for name, value in headers_of(error, problem.status):
        response.headers[name] = value
    return response


def describe(error: Exception, instance: str, identifier: str) -> Problem:
    """The document of an error."""
    status = status_of(error)
    return Problem(
        status=status,
        title=title_of(status),
        code=code_of(error),
        instance=instance,
        request_id=identifier,
        detail=detail_of(error),
        hint=one_line(masked(error.hint)) if isinstance(error, OperonError) and error.hint and status < 500 else None,
        errors=error.complaints if isinstance(error, BadInput) else (),
    )


def status_of(error: Exception) -> int:
    """The status that the error chose, 500 for one that chose none."""
    return own_status(error) or 500


def own_status(error: Exception) -> int | None:
    status = error.code if isinstance(error, HTTPException) else getattr(error, "status", None)
    return status if isinstance(status, int) and status in ERROR_STATUSES else None


def title_of(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def code_of(error: Exception) -> str:
    """The stable name: the error's own `code`, or its class's name where the error chose its status."""
    if isinstance(error, HTTPException):
        return re.sub(r"\W+", "_", title_of(status_of(error)).replace("'", "").lower())
    if own_status(error) is None:
        return "internal_error"
    code = getattr(error, "code", None)
    if isinstance(code, str) and CODE.fullmatch(code):
        return code
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(error).__name__).lower()


def detail_of(error: Exception) -> str | None:
    """What happened, in words that are meant for the client."""
    status = own_status(error)
    match error:
        case HTTPException():
            text = error.description or ""
        case OperonError() if status is not None and status >= 500:
            # The message tells of the inside: hosts, step names. The class says what its status means.
            text = "" if status == 500 else inspect.getdoc(type(error)) or ""
        case OperonError():
            text = error.message
        case _:
            text = "" if status is None else str(error)
    return one_line(masked(text))[:DETAIL_CHARS_MAX] or None


def headers_of(error: Exception, status: int) -> list[tuple[str, str]]:
    """What the answer says besides the document: how to authenticate, `Allow` of a 405, when to come back."""
    headers: list[tuple[str, str]] = []
    if isinstance(error, HTTPException):
        headers = [(name, value) for name, value in error.get_headers() if name.lower() != "content-type"]
    if isinstance(error, NotAuthorizedError) and status == 401:  # which has to say how: RFC 9110, 15.5.2
        headers.append(("www-authenticate", one_line(error.challenge)))
    if status in (429, 503) and not any(name.lower() == "retry-after" for name, _ in headers):
        headers.append(("retry-after", str(retry_after(error))))
    return headers


def retry_after(error: Exception) -> int:
    """Whole seconds, as the header has them: what the error says in `retry_after_seconds`, rounded up."""
    after: Any = getattr(error, "retry_after_seconds", None)
    if isinstance(after, int | float) and math.isfinite(after) and after >= 0:
        return math.ceil(after)
    return RETRY_AFTER_SECONDS


def log(error: Exception, problem: Problem, request: Request) -> None:
    fields: dict[str, Any] = {
        "request_id": problem.request_id,
        "workflow_uuid": scope_of(request).get(WORKFLOW_UUID_KEY),
    }
    logger.error(
        "%s %s failed with %d, request %s",
        request.method,
        one_line(request.path),
        problem.status,
        problem.request_id,
        exc_info=error,
        extra=fields,
    )
