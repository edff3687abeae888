"""What people write for a UUID or a duration, and what they hear when it is none."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from operon.errors import InvocationError, NonExistentWorkflowError, OperonError

UUID_HINT = "a workflow is known by its UUID: str(handle.workflow_uuid)"
SECONDS_MAX = 1e10  # three hundred years; the timestamps of Postgres end somewhere too


def as_uuid(given: UUID | str, malformed: type[OperonError] = NonExistentWorkflowError) -> UUID:
    """A workflow's UUID as people write it. `malformed` for a text that is none; InvocationError for what is no text.

    A text comes from outside: of a workflow to look up it says that there is none, of one to start that it cannot be
    started. A handler that hands over anything else is wrong itself, and its clients cannot help it.
    """
    if isinstance(given, UUID):
        return given
    try:
        return UUID(given)
    except ValueError:
        raise malformed(f"{given[:100]!r} is not a UUID", hint=UUID_HINT) from None
    except (TypeError, AttributeError):
        raise InvocationError(f"{given!r} is not a UUID", hint=UUID_HINT) from None


def as_seconds(duration: Any) -> float | None:
    """A duration that somebody gave. InvocationError for one that is no time, or ends when no clock goes any more."""
    if duration is None or (isinstance(duration, int | float) and 0 <= duration <= SECONDS_MAX):
        return duration
    raise InvocationError(f"{duration!r} seconds", hint="a number from 0 on; None for as long as it takes")
