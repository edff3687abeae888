"""A handle: how the starter of a workflow, or anybody who knows its UUID, asks for its result and status."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Generic, Protocol, TypeVar
from uuid import UUID

from operon.status import WorkflowStatus

R_co = TypeVar("R_co", covariant=True)


class Results(Protocol):
    """Where a handle gets its answers: in a workflow they are recorded steps, elsewhere plain look-ups."""

    def result(self, workflow_uuid: UUID, timeout: float | None) -> Coroutine[Any, Any, Any]: ...
    def status(self, workflow_uuid: UUID) -> Coroutine[object, None, WorkflowStatus | None]: ...
    def cancel(self, workflow_uuid: UUID) -> Coroutine[object, None, bool]: ...
    def resume(self, workflow_uuid: UUID) -> Coroutine[object, None, bool]: ...


class WorkflowHandle(Generic[R_co]):
    """A workflow that was started, or looked up by its UUID."""

    __slots__ = ("_results", "workflow_uuid")

    def __init__(self, results: Results, workflow_uuid: UUID) -> None:
        self._results = results
        self.workflow_uuid = workflow_uuid

    def get_result(self, timeout: float | None = None) -> Coroutine[object, None, R_co]:
        """Waits until the workflow is finished; gives its result or raises its error.

        timeout: seconds to wait, for ever by default; `ResultTimeout` after that, and the workflow goes on.
        Raises NonExistentWorkflowError for an unknown UUID, WorkflowCancelledError, WorkflowDeadError.
        """
        return self._results.result(self.workflow_uuid, timeout)

    def get_status(self) -> Coroutine[object, None, WorkflowStatus | None]:
        """What the database knows of the workflow now; None for an unknown UUID."""
        return self._results.status(self.workflow_uuid)

    def cancel(self) -> Coroutine[object, None, bool]:
        """Cancels the workflow and what it has started; whether there was anything left to cancel.

        It stops before its next step, at once where it waits. Once this has returned nothing of it commits any more. A
        communicator that is being called ends first, unless it is `cancellable`. Raises NonExistentWorkflowError.
        """
        return self._results.cancel(self.workflow_uuid)

    def resume(self) -> Coroutine[object, None, bool]:
        """Lets a workflow that was cancelled, or is DEAD, go on from what it has recorded; whether it does.

        Its `timeout` does not count any more. Raises NonExistentWorkflowError.
        """
        return self._results.resume(self.workflow_uuid)

    def __repr__(self) -> str:
        return f"<WorkflowHandle {self.workflow_uuid}>"
