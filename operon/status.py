"""The states of a workflow, the moves between them, and what a handle tells about one.

`CODES` are what the database holds: they are never given to another state, because old rows keep them.
"""

from __future__ import annotations

import datetime as dt
from enum import StrEnum
from typing import Any
from uuid import UUID

import msgspec


class Status(StrEnum):
    """Where a workflow stands."""

    PENDING = "PENDING"
    SUCCESS = "SUCCESS"
    ERROR = "ERROR"
    CANCELLED = "CANCELLED"
    DEAD = "DEAD"

    @property
    def code(self) -> int:
        """The number the database holds for it."""
        return CODES[self]

    @property
    def is_finished(self) -> bool:
        """Whether nothing more happens by itself. DEAD and CANCELLED wait for an operator to resume them."""
        return self is not Status.PENDING

    @classmethod
    def from_code(cls, code: int) -> Status:
        """The state of a number. Raises ValueError for one that no state has."""
        if (status := BY_CODE.get(code)) is None:
            raise ValueError(f"no workflow status has the code {code}")
        return status


CODES: dict[Status, int] = {
    Status.PENDING: 0,
    Status.SUCCESS: 1,
    Status.ERROR: 2,
    Status.CANCELLED: 3,
    Status.DEAD: 4,
}
BY_CODE = {code: status for status, code in CODES.items()}

# An outcome is for ever: SUCCESS and ERROR have answered someone. What was only stopped can be resumed.
TRANSITIONS: dict[Status, frozenset[Status]] = {
    Status.PENDING: frozenset({Status.SUCCESS, Status.ERROR, Status.CANCELLED, Status.DEAD}),
    Status.SUCCESS: frozenset(),
    Status.ERROR: frozenset(),
    Status.CANCELLED: frozenset({Status.PENDING}),
    Status.DEAD: frozenset({Status.PENDING, Status.CANCELLED}),
}


class WorkflowStatus(msgspec.Struct, frozen=True):
    """What is known about one workflow at one moment."""

    workflow_uuid: UUID
    status: Status
    workflow_name: str
    authenticated_user: str | None
    assumed_role: str | None
    authenticated_roles: tuple[str, ...]
    request: dict[str, Any] | None
    created_at: dt.datetime
    updated_at: dt.datetime
    attempts: int
    executor: str | None
    waiting_for: str | None
    error: str | None
