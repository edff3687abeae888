"""Every error of Operon, in one tree. Each says what happened, and then what to do (`hint`).

    OperonError
    |- ConfigurationError            the application or its settings, found before anything runs
    |  |- CatalogError               decorators and names: clashes, wrong order, unknown classes
    |  |- DatabaseUnusable           unreachable, read-only or too old at start
    |  |  `- SchemaTooNew            the schema was migrated by a newer Operon
    |  `- PortInUse
    |- EncodingError                 a value that cannot be stored and come back equal
    |  |- InputError                 ... an argument: nothing ran
    |  `- OutputError                ... a result: recorded, because the effect has happened
    |- DecodingError                 stored data that does not fit its annotation
    |- WorkflowConflictError         one UUID, two operations or two users
    |- NonExistentWorkflowError
    |- NondeterminismError           the code asks for another step than the one recorded
    |- UnknownOperationError         no operation of that name in this application
    |- InvocationError               a call in the wrong place: a step in a transaction, a foreign context
    |- WorkflowCancelledError
    |  `- WorkflowTimeout             its `timeout` had passed
    |- WorkflowFinishedError         a message to a workflow that receives nothing any more
    |- MailboxFull
    |- RecvTimeout                   `recv(required=True)`: no message in time
    |- DuplicateEventError           an event is set once
    |- WorkflowDeadError             restart budget used up; can be resumed
    |- IntensityExceeded             a supervisor of workflows gave up: too many restarts
    |- MaxRetriesExceeded            every attempt of a communicator failed
    |- StepTimeout                   one attempt took longer than `timeout_seconds`
    |- ResultTimeout                 `get_result(timeout=...)`: the workflow goes on
    |- NotAuthorizedError            nobody is known, 401; or they lack a role, 403
    |- RequestError                  a request that is not what the handler's annotations ask for
    |- DatabaseUnavailable           weather: the runtime waits in place; a caller may try again
    |- ExecutorStopped               this process is shutting down; the workflow continues elsewhere
    |- ExecutorFull                  this process runs as many workflows as it may
    |- RemoteError                   an error recorded by code whose class is not in this application
    `- OperonInternalError           a bug of ours: please report it

    StopActor(BaseException)         not errors: how the runtime takes a live coroutine down
    |- Evicted                       its state is in the database; a fresh coroutine will replay
    |- Cancelled                     it ends here, as cancelled
    `- Fenced                        another executor owns the workflow now

`status` is the HTTP status an error answers with, `code` its stable name in a problem document.
"""

from __future__ import annotations

from typing import ClassVar, Literal


class OperonError(Exception):
    """The root of everything that Operon raises."""

    status: int = 500
    code: ClassVar[str] = "operon"

    def __init__(self, message: str = "", *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\nHint: {self.hint}" if self.hint else self.message


class OperonInternalError(OperonError):
    """A rule of Operon's own was broken. Please report it, with the message."""

    code = "internal"


class ConfigurationError(OperonError):
    """The application or its settings are wrong; nothing has run."""

    code = "configuration"


class CatalogError(ConfigurationError):
    """Operations that cannot live together, or a decorator in the wrong place."""

    code = "catalog"


class DatabaseUnusable(ConfigurationError):
    """The database cannot be used at start: unreachable, read-only, too old, or not allowed."""

    code = "database_unusable"


class SchemaTooNew(DatabaseUnusable):
    """The schema was migrated by a newer version of Operon than this one."""

    code = "schema_too_new"


class PortInUse(ConfigurationError):
    """Another process listens on the address that was asked for."""

    code = "port_in_use"


class EncodingError(OperonError):
    """A value that JSON cannot carry and give back equal. Names the operation and the field."""

    status = 422
    code = "encoding"


class InputError(EncodingError):
    """An argument that cannot be stored. Nothing ran."""

    status = 400
    code = "input"


class OutputError(EncodingError):
    """A result that cannot be stored. The effect has happened, so this error is recorded in its place."""

    status = 500
    code = "output"


class DecodingError(OperonError):
    """Stored data that does not fit its annotation. Of a request that does not, it is RequestError."""

    code = "decoding"


class WorkflowConflictError(OperonError):
    """The UUID belongs to another operation or to another user."""

    status = 409
    code = "workflow_conflict"


class NonExistentWorkflowError(OperonError):
    """No workflow has this UUID."""

    status = 404
    code = "nonexistent_workflow"


class NondeterminismError(OperonError):
    """The code asks for another step than the one that was recorded."""

    code = "nondeterminism"


class UnknownOperationError(OperonError):
    """The application has no operation of this name."""

    code = "unknown_operation"


class InvocationError(OperonError):
    """An operation was called where it cannot be: in a transaction, with a foreign context, after the end."""

    code = "invocation"


class WorkflowCancelledError(OperonError):
    """The workflow was cancelled before it finished."""

    status = 409
    code = "workflow_cancelled"


class WorkflowTimeout(WorkflowCancelledError, TimeoutError):
    """The workflow was cancelled because its `timeout` had passed."""

    status = 504
    code = "workflow_timeout"


class WorkflowFinishedError(OperonError):
    """A message to a workflow that has finished. It is kept as a dead letter."""

    status = 409
    code = "workflow_finished"


class MailboxFull(OperonError):
    """The workflow has as many messages waiting as it may. Nothing was sent; try again when it has received some."""

    status = 429
    code = "mailbox_full"
    retry_after_seconds: ClassVar[int] = 1


class RecvTimeout(OperonError, TimeoutError):
    """No message came in time, and `recv` was told that it is required."""

    status = 504
    code = "recv_timeout"


class DuplicateEventError(OperonError):
    """The workflow has set this event before. Events do not change unless it says `replace=True`."""

    status = 409
    code = "duplicate_event"


class WorkflowDeadError(OperonError):
    """The workflow used up its restart budget. It can be resumed."""

    code = "workflow_dead"


class IntensityExceeded(OperonError):
    """A supervisor of workflows gave up: its children ended more often than it was to bear. They were cancelled."""

    code = "intensity_exceeded"


class MaxRetriesExceeded(OperonError):
    """Every attempt of a communicator failed. `errors` has them all, oldest first."""

    code = "max_retries_exceeded"

    def __init__(self, message: str = "", *, hint: str | None = None, errors: list[Exception] | None = None) -> None:
        super().__init__(message, hint=hint)
        self.errors: list[Exception] = errors or []


class StepTimeout(OperonError, TimeoutError):
    """One attempt of a communicator took longer than its `timeout_seconds`."""

    status = 504
    code = "step_timeout"


class ResultTimeout(OperonError, TimeoutError):
    """The result was not there in time. The workflow goes on."""

    status = 504
    code = "result_timeout"


class NotAuthorizedError(OperonError):
    """The caller is unknown (401) or lacks a role (403).

    status: 401 for somebody who did not say who they are, 403 for somebody who may not.
    challenge: what a 401 asks for in its `WWW-Authenticate` header.
    """

    status = 403
    code = "not_authorized"
    challenge = "Bearer"

    def __init__(
        self, message: str = "", *, hint: str | None = None, status: Literal[401, 403] = 403, challenge: str = "Bearer"
    ) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.challenge = challenge


class RequestError(OperonError):
    """A request that does not fit the handler: malformed JSON, a missing field, a wrong type, too large a body."""

    status = 400
    code = "bad_request"


class DatabaseUnavailable(OperonError):
    """The database did not answer in time. Nothing that was recorded is lost; what was asked for may still happen."""

    status = 503
    code = "database_unavailable"


class ExecutorStopped(OperonError):
    """This process is shutting down. The workflow continues when an executor claims it."""

    status = 503
    code = "executor_stopped"


class ExecutorFull(OperonError):
    """This process runs as many workflows as it may. Nothing was started."""

    status = 503
    code = "executor_full"


class RemoteError(OperonError):
    """An error recorded by code whose class is not in this application. `type_name` is that class."""

    code = "remote"

    def __init__(self, message: str = "", *, hint: str | None = None, type_name: str = "Exception") -> None:
        super().__init__(message, hint=hint)
        self.type_name = type_name


class StopActor(BaseException):
    """How the runtime takes a live coroutine down; never caught by `except Exception`."""


class Evicted(StopActor):
    """The coroutine is dropped. Its state is in the database, and a fresh one will replay it."""


class Cancelled(StopActor):
    """The workflow is cancelled: it stops at its next step, or where it waits. `error` becomes its outcome."""

    def __init__(self, error: WorkflowCancelledError) -> None:
        super().__init__(str(error))
        self.error = error


class Fenced(StopActor):
    """Another executor owns the workflow now, or it was cancelled; nothing of this coroutine counts any more."""
