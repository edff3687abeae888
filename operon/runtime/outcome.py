"""How a workflow ended, in the form in which it is stored, and what that means to somebody who asks."""

from __future__ import annotations

from typing import Any, NamedTuple
from uuid import UUID

from operon.catalog import Catalog
from operon.errors import OperonInternalError, WorkflowCancelledError, WorkflowDeadError, WorkflowTimeout
from operon.failures import decode_error
from operon.status import Status


class Ended(NamedTuple):
    """A finished workflow. Nobody changes it any more."""

    name: str
    status: Status
    output: bytes | None
    error: bytes | None

    def value(self, workflow_uuid: UUID, catalog: Catalog) -> Any:
        """Its result, decoded to the annotated type; raises its error."""
        match self.status:
            case Status.SUCCESS if self.output is not None:
                return catalog.result_codec(self.name).decode(self.output)
            case Status.ERROR | Status.DEAD | Status.CANCELLED if self.error is not None:
                raise decode_error(self.error)
            case Status.DEAD:
                raise WorkflowDeadError(
                    f"{self.name!r} {workflow_uuid} used up its restart budget", hint="fix the cause, then resume it"
                )
            case Status.CANCELLED:
                raise WorkflowCancelledError(f"{self.name!r} {workflow_uuid} was cancelled")
            case _:
                raise OperonInternalError(f"{self.name!r} {workflow_uuid} ended as {self.status} without an outcome")


def timed_out(name: str, workflow_uuid: UUID) -> WorkflowTimeout:
    """What a workflow is cancelled with whose time is over."""
    return WorkflowTimeout(
        f"{name!r} {workflow_uuid} was cancelled: its timeout had passed",
        hint="what it has recorded stands; give it more time with ctx.using(timeout=...)",
    )
