"""What is known of one HTTP exchange besides its arguments: its request id, its trace, and who asked from where.

Kept in the ASGI scope, which lives exactly as long as the exchange and is there also where no view was reached.
Only what `parts` gives is ever stored with a workflow: never a credential, a cookie or a value of the query string.
"""

from __future__ import annotations

import re
from typing import Any, cast
from uuid import UUID, uuid4

from quart.wrappers import Request, Response

from operon.masking import masked

REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}", re.ASCII)
# https://www.w3.org/TR/trace-context/#traceparent-header: version 00 ends here, later versions may go on after a dash.
TRACEPARENT = re.compile(
    r"(?!ff)(?P<version>[0-9a-f]{2})-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?P<more>-.*)?", re.ASCII
)
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
PATH_CHARS_MAX = 2048
AGENT_CHARS_MAX = 256

REQUEST_ID_KEY = "operon.request_id"
WORKFLOW_UUID_KEY = "operon.workflow_uuid"
TRACE_KEY = "operon.trace"


def scope_of(request: Request) -> dict[str, Any]:
    """The ASGI scope of a request."""
    return cast("dict[str, Any]", request.scope)


def values(request: Request, name: bytes) -> list[str]:
    """The values of a header, whose name is in lower case.

    From the ASGI scope: Werkzeug makes an exception of each header that is not there, which most requests would pay for
    several times.
    """
    headers: list[tuple[bytes, bytes]] = scope_of(request)["headers"]
    return [value.decode("latin-1") for key, value in headers if key == name]


def header(request: Request, name: bytes) -> str | None:
    """The first value of a header, or None."""
    found = values(request, name)
    return found[0] if found else None


def request_id(request: Request) -> str:
    """The client's `x-request-id` where it is one, else a new one; the same for the whole exchange."""
    scope = scope_of(request)
    known: str | None = scope.get(REQUEST_ID_KEY)
    if known is None:
        given = header(request, b"x-request-id")
        known = scope[REQUEST_ID_KEY] = given if given and REQUEST_ID.fullmatch(given) else str(uuid4())
    return known


def traceparent(request: Request) -> str | None:
    """The W3C trace context of the exchange: its span's where it has one, else the client's if it is well formed.

    A `tracestate` follows the `traceparent` after a space.
    """
    known: str | None = scope_of(request).get(TRACE_KEY)
    if known is not None:
        return known
    given = header(request, b"traceparent")
    match = None if given is None else TRACEPARENT.fullmatch(given)
    if match is None or (match["version"] == "00" and match["more"]):
        return None
    return given


def parts(request: Request) -> dict[str, str | None]:
    """What is stored with a workflow of the request that started it."""
    client = scope_of(request).get("client")
    return {
        "method": request.method,
        "path": masked(one_line(request.path))[:PATH_CHARS_MAX],
        "ip": client[0] if client else None,
        "request_id": request_id(request),
        "user_agent": masked(one_line(header(request, b"user-agent") or ""))[:AGENT_CHARS_MAX] or None,
    }


def remember_workflow(request: Request, workflow_uuid: UUID) -> None:
    """Has the answer carry the UUID, also when it is an error."""
    scope_of(request)[WORKFLOW_UUID_KEY] = str(workflow_uuid)


def stamp(request: Request, response: Response) -> None:
    """Writes what the exchange knows of itself into the answer's headers."""
    response.headers["x-request-id"] = request_id(request)
    workflow_uuid = scope_of(request).get(WORKFLOW_UUID_KEY)
    if workflow_uuid is not None:
        response.headers["operon-workflowuuid"] = workflow_uuid
    if trace := traceparent(request):
        response.headers["traceparent"], _, state = trace.partition(" ")
        if state:
            response.headers["tracestate"] = state
    for index, (name, value) in enumerate(response.headers):
        # An application may have put a client's words there. Werkzeug refuses line breaks; h11 also refuses the other
        # control characters, but only when half of the answer is sent.
        if (clean := one_line(value)) != value:
            response.headers[index] = (name, clean)


def one_line(text: str) -> str:
    """The text with every run of control characters as one space, and nothing that UTF-8 cannot carry."""
    if text.isascii() and text.isprintable():
        return text
    return CONTROL.sub(" ", text).encode("utf-8", "replace").decode()
