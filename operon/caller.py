"""Who is on whose behalf: a user with roles, and what is known of the request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asked for a workflow: inherited through every call, stored with the workflow, restored at recovery."""

    user: str | None = None
    roles: tuple[str, ...] = ()
    assumed_role: str | None = None
    request: Mapping[str, Any] | None = None  # method, url, ip, request_id; never a credential
    traceparent: str | None = None


NOBODY = Caller()
