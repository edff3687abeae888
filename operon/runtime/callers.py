"""How a caller is stored with a workflow, and restored when it is recovered."""

from __future__ import annotations

from dataclasses import replace

import msgspec

from operon.caller import NOBODY, Caller
from operon.database.workflows import Claimed
from operon.telemetry.observer import Telemetry

encode = msgspec.json.Encoder().encode


def caller_columns(caller: Caller) -> tuple[str, bytes | None]:
    """Who asked, as JSON text for the flush to take apart, and the request as it is."""
    columns = {
        "user": caller.user,
        "roles": caller.roles,
        "assumed_role": caller.assumed_role,
        "traceparent": caller.traceparent,
    }
    return encode(columns).decode(), None if caller.request is None else encode(caller.request)


def traced(caller: Caller, telemetry: Telemetry, name: str) -> Caller:
    """The caller of a workflow that is started now, with the trace that it goes on in."""
    return replace(caller, traceparent=telemetry.origin(caller.traceparent, name))


def caller_of(claimed: Claimed) -> Caller:
    """The caller of a workflow that is started again."""
    if not (claimed.authenticated_user or claimed.authenticated_roles or claimed.request or claimed.traceparent):
        return NOBODY
    return Caller(
        claimed.authenticated_user,
        tuple(claimed.authenticated_roles or ()),
        claimed.assumed_role,
        None if claimed.request is None else msgspec.json.decode(claimed.request),
        claimed.traceparent,
    )
