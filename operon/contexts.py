"""What a function of the application is handed first: a context, which says where it runs and what it may do there.

A context is the only way to the runtime. `WorkflowContext` can call operations, because its workflow is replayed from
their recorded results; `TransactionContext` and `CommunicatorContext` cannot, because they *are* a step; a type
checker sees the difference. Contexts do no I/O: they hold an `Invoker`, which is the runtime's side of the door.
"""

from __future__ import annotations

import logging
from collections.abc import Coroutine, Mapping
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, Self, TypeVar, get_args, overload
from uuid import UUID

from opentelemetry import trace

from operon.caller import NOBODY, Caller
from operon.errors import InputError, InvocationError
from operon.given import as_seconds, as_uuid
from operon.invokers import NO_OPTIONS, Client, Invoker, ParentClose, StartOptions, WorkflowInvoker
from operon.masking import masked_logger
from operon.rows import Row
from operon.telemetry.logs import FieldLogger
from operon.topics import EventKey, Key, Readable, Receivable, Received, Topic

if TYPE_CHECKING:
    from operon.handles import WorkflowHandle
    from operon.operations import Workflow

N = TypeVar("N")
P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

logger = masked_logger("operon.application")


class Context:
    """The members that every context has."""

    __slots__ = ("_application", "_caller", "_operation_name", "workflow_uuid")

    def __init__(
        self,
        workflow_uuid: UUID | None,
        caller: Caller,
        application: Mapping[str, Any],
        operation_name: str | None = None,
    ) -> None:
        self.workflow_uuid: Any = workflow_uuid
        self._caller = caller
        self._application = application
        self._operation_name = operation_name

    @property
    def authenticated_user(self) -> str | None:
        """The user that the authentication function named, or None."""
        return self._caller.user

    @property
    def authenticated_roles(self) -> tuple[str, ...]:
        """Every role of the user."""
        return self._caller.roles

    @property
    def assumed_role(self) -> str | None:
        """The role that let this call through."""
        return self._caller.assumed_role

    @property
    def request(self) -> Any:
        """What is known of the HTTP request that started this: a mapping without credentials, or None."""
        return self._caller.request

    @property
    def config(self) -> Mapping[str, Any]:
        """The application's own configuration."""
        return self._application

    @property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:
        """A standard logger whose records carry `workflow_uuid`, `operation`, `user`, `trace_id` and `span_id`.

        Masked arguments of the running workflow or request are masked in its messages.
        """
        return FieldLogger(
            logger, self.workflow_uuid, self._operation_name, self._caller.user, self._caller.traceparent
        )

    @property
    def span(self) -> trace.Span:
        """The current OpenTelemetry span; a no-op one when no SDK is configured."""
        return trace.get_current_span()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.workflow_uuid}>"


class InvokingContext(Context):
    """A context that may call operations: a workflow's, a handler's, a script's."""

    __slots__ = ("_invoker", "_options")

    def __init__(
        self,
        invoker: Invoker,
        workflow_uuid: UUID | None,
        caller: Caller,
        application: Mapping[str, Any],
        options: StartOptions = NO_OPTIONS,
        operation_name: str | None = None,
    ) -> None:
        super().__init__(workflow_uuid, caller, application, operation_name)
        self._invoker = invoker
        self._options = options

    @property
    def invoker(self) -> Invoker:
        """The runtime's side of this context; for operations, not for applications."""
        return self._invoker

    @property
    def caller(self) -> Caller:
        """Who asked; handed on to what this context calls."""
        return self._caller

    @property
    def options(self) -> StartOptions:
        """The options for the next start."""
        return self._options

    def invoke(self, namespace: type[N]) -> N:
        """The operations of a class with this context bound: `await ctx.invoke(Ticket).reserve(seat)`."""
        bound: Any = BoundNamespace(self, namespace)
        return bound  # type: ignore[no-any-return]

    def using(self, *, workflow_uuid: UUID | str | None = None, timeout: float | None = None) -> Self:
        """A copy of this context with options for the next workflow it starts.

        workflow_uuid: the identity of the workflow, which makes the start idempotent.
        timeout: seconds after which the workflow, and what it has started, is cancelled: `WorkflowTimeout`.
        """
        identity = None if workflow_uuid is None else as_uuid(workflow_uuid, InputError)
        return self._with_options(StartOptions(identity, as_seconds(timeout)))

    def _with_options(self, options: StartOptions) -> Self:
        copy = object.__new__(type(self))
        for cls in type(self).__mro__:
            for slot in getattr(cls, "__slots__", ()):
                object.__setattr__(copy, slot, getattr(self, slot))
        copy._options = options
        return copy

    def retrieve_workflow(self, workflow_uuid: UUID | str, *, owned: bool = False) -> WorkflowHandle[Any]:
        """A handle of any workflow, known or not; in a workflow what it answers is recorded.

        owned: answers for another user's workflow as for an unknown one. A UUID is no secret, so what a request
        names should be looked up with it. Somebody unknown owns what was started by somebody unknown.
        """
        return self._invoker.retrieve(self, as_uuid(workflow_uuid), owned=owned)

    @overload
    def send(
        self,
        destination: UUID | str,
        message: T,
        topic: Topic[T],
        *,
        idempotency_key: Key | None = None,
        ignore_finished: bool = False,
        owned: bool = False,
    ) -> Coroutine[Any, Any, None]: ...

    @overload
    def send(
        self,
        destination: UUID | str,
        message: Any,
        topic: str | None = None,
        *,
        idempotency_key: Key | None = None,
        ignore_finished: bool = False,
        owned: bool = False,
    ) -> Coroutine[Any, Any, None]: ...

    def send(
        self,
        destination: UUID | str,
        message: Any,
        topic: Topic[Any] | str | None = None,
        *,
        idempotency_key: Key | None = None,
        ignore_finished: bool = False,
        owned: bool = False,
    ) -> Coroutine[Any, Any, None]:
        """Sends a message to a workflow; durable when it returns. It is received exactly once, in order.

        From a workflow it is sent exactly once. From elsewhere an idempotency key makes it so: a string or a tuple,
        remembered as long as the destination is. ignore_finished: a destination that has finished is no error.
        owned: another user's workflow is an unknown one, as in `retrieve_workflow`.
        Raises NonExistentWorkflowError, WorkflowFinishedError, MailboxFull, InputError.
        """
        return self._invoker.send(self, as_uuid(destination), message, topic, idempotency_key, ignore_finished, owned)

    @overload
    def get_event(
        self, workflow_uuid: UUID | str, key: Readable[T], timeout: float | None = None, *, owned: bool = False
    ) -> Coroutine[Any, Any, T | None]: ...

    @overload
    def get_event(
        self, workflow_uuid: UUID | str, key: str, timeout: float | None = None, *, owned: bool = False
    ) -> Coroutine[Any, Any, Any]: ...

    def get_event(
        self, workflow_uuid: UUID | str, key: Any, timeout: float | None = None, *, owned: bool = False
    ) -> Coroutine[Any, Any, Any]:
        """Waits until a workflow has set an event, and gives its value; in a workflow the answer is recorded.

        timeout: seconds to wait, then None; 0 looks once; as long as it takes by default. None also when the workflow
        has finished without it. owned: another user's workflow is an unknown one, as in `retrieve_workflow`.
        Raises NonExistentWorkflowError.
        """
        return self._invoker.get_event(self, as_uuid(workflow_uuid), key, timeout, owned)


class WorkflowContext(InvokingContext):
    """The context of a workflow: everything it does goes through here and is recorded."""

    __slots__ = ("_workflow",)
    workflow_uuid: UUID

    def __init__(
        self,
        invoker: WorkflowInvoker,
        workflow_uuid: UUID,
        caller: Caller,
        application: Mapping[str, Any],
        operation_name: str | None = None,
    ) -> None:
        super().__init__(invoker, workflow_uuid, caller, application, NO_OPTIONS, operation_name)
        self._workflow = invoker

    def using(
        self,
        *,
        workflow_uuid: UUID | str | None = None,
        timeout: float | None = None,
        parent_close: ParentClose = "abandon",
    ) -> Self:
        """A copy of this context with options for the next workflow it starts.

        workflow_uuid: the identity of the workflow, which makes the start idempotent.
        timeout: seconds after which the workflow, and what it has started, is cancelled: `WorkflowTimeout`.
        parent_close: what becomes of it if it still runs when this workflow ends: it is abandoned to itself, it is
            cancelled, or this workflow waits for it and ends then. A cancelled parent cancels all that it has started.
        """
        if parent_close not in get_args(ParentClose):
            raise InvocationError(
                f"parent_close={parent_close!r}", hint=f"one of {', '.join(map(repr, get_args(ParentClose)))}"
            )
        options = super().using(workflow_uuid=workflow_uuid, timeout=timeout).options
        return self._with_options(replace(options, parent_close=parent_close))

    async def child_workflow(self, workflow: Workflow[P, R], *args: P.args, **kwargs: P.kwargs) -> WorkflowHandle[R]:
        """Starts a child workflow; the same as calling it: `await workflow(ctx, *args)`."""
        handle: WorkflowHandle[R] = await workflow(self, *args, **kwargs)
        return handle

    def now(self) -> datetime:
        """The time, in UTC, recorded: a replay gives the same again. Costs no wait."""
        return self._workflow.now()

    def uuid4(self) -> UUID:
        """A random UUID, recorded: a replay gives the same again. Costs no wait."""
        return self._workflow.uuid4()

    def random(self) -> float:
        """A random number in [0, 1), recorded: a replay gives the same again. Costs no wait."""
        return self._workflow.random()

    @overload
    def recv(
        self, topic: Receivable[T], timeout: float | None = None, *, required: Literal[True]
    ) -> Coroutine[Any, Any, T]: ...

    @overload
    def recv(
        self, topic: Receivable[T], timeout: float | None = None, *, required: bool = False
    ) -> Coroutine[Any, Any, T | None]: ...

    @overload
    def recv(
        self, topic: str | None = None, timeout: float | None = None, *, required: bool = False
    ) -> Coroutine[Any, Any, Any]: ...

    def recv(
        self, topic: Any = None, timeout: float | None = None, *, required: bool = False
    ) -> Coroutine[Any, Any, Any]:
        """Waits for the next message under a topic, or for the next one without any; each is received once, in order.

        timeout: seconds to wait, then None; 0 looks once; as long as it takes by default. It goes on over restarts.
        required: raises RecvTimeout instead of None.
        """
        return self._workflow.recv(topic, timeout, required)

    @overload
    def recv_any(
        self, *topics: Topic[Any] | str, timeout: float | None = None, required: Literal[True]
    ) -> Coroutine[Any, Any, Received[Any]]: ...

    @overload
    def recv_any(
        self, *topics: Topic[Any] | str, timeout: float | None = None, required: bool = False
    ) -> Coroutine[Any, Any, Received[Any] | None]: ...

    def recv_any(
        self, *topics: Topic[Any] | str, timeout: float | None = None, required: bool = False
    ) -> Coroutine[Any, Any, Received[Any] | None]:
        """Waits for the next message under any of several topics; `.topic` says which, `.message` is what came."""
        return self._workflow.recv_any(topics, timeout, required)

    @overload
    def set_event(self, key: EventKey[T], value: T, *, replace: bool = False) -> Coroutine[Any, Any, None]: ...

    @overload
    def set_event(self, key: str, value: Any, *, replace: bool = False) -> Coroutine[Any, Any, None]: ...

    def set_event(self, key: EventKey[Any] | str, value: Any, *, replace: bool = False) -> Coroutine[Any, Any, None]:
        """Publishes a value under a key, for `get_event` of anybody, during and after this workflow. Costs no wait.

        An event does not change: setting it again is DuplicateEventError, unless it says `replace=True`.
        """
        return self._workflow.set_event(key, value, replace)

    def monitor(self, workflow_uuid: UUID | str, *, owned: bool = False) -> Coroutine[Any, Any, UUID]:
        """From now on this workflow is told when another one ends: one message under `operon.DOWN`, exactly once.

        Also if that one has ended already. Gives a reference, which `Down.ref` is equal to. A workflow that is resumed
        after its end is not told of again; monitor it anew. owned: another user's workflow is an unknown one.
        Raises NonExistentWorkflowError.
        """
        return self._workflow.monitor(as_uuid(workflow_uuid), owned)

    def demonitor(self, ref: UUID) -> Coroutine[Any, Any, bool]:
        """Takes a monitor back; False if it is none any more: its message was sent, and is there to be received."""
        return self._workflow.demonitor(ref)

    def sleep(self, seconds: float) -> Coroutine[Any, Any, None]:
        """Waits; a restart waits for the rest of the time. A workflow that sleeps for long leaves memory."""
        return self._workflow.sleep(seconds)

    def sleep_until(self, when: datetime) -> Coroutine[Any, Any, None]:
        """Waits until a time, which has a zone, has come by the database's clock."""
        return self._workflow.sleep_until(when)

    async def execute(self, statement: str, *args: Any) -> str:
        """Runs one SQL statement as a transaction of its own, exactly once; gives its status, `UPDATE 1`.

        It commits together with its checkpoint, in the executor's group commit, at READ COMMITTED.
        """
        status: str = await self._workflow.sql("execute", statement, args)
        return status

    async def fetch(self, statement: str, *args: Any) -> list[Row]:
        """Like `execute`, and gives the rows."""
        rows: list[Row] = await self._workflow.sql("fetch", statement, args)
        return rows

    async def fetchrow(self, statement: str, *args: Any) -> Row | None:
        """Like `execute`, and gives the first row, or None."""
        row: Row | None = await self._workflow.sql("fetchrow", statement, args)
        return row

    async def fetchval(self, statement: str, *args: Any) -> Any:
        """Like `execute`, and gives the first column of the first row, or None."""
        return await self._workflow.sql("fetchval", statement, args)


class HandlerContext(InvokingContext):
    """The context of an HTTP handler. It may do anything, and nothing of it is recorded but what it calls."""

    __slots__ = ("_http_request", "idempotency_key")

    def __init__(
        self,
        invoker: Invoker,
        caller: Caller,
        application: Mapping[str, Any],
        *,
        http_request: Any = None,
        idempotency_key: str | None = None,
        options: StartOptions = NO_OPTIONS,
        operation_name: str | None = None,
    ) -> None:
        super().__init__(invoker, options.workflow_uuid, caller, application, options, operation_name)
        self._http_request = http_request
        self.idempotency_key = idempotency_key

    @property
    def request(self) -> Any:
        """The Quart request."""
        return self._http_request


class ApplicationContext(InvokingContext):
    """The context of a script, a test or a foreign web framework: `app.context()`."""

    __slots__ = ()


class CommunicatorContext(Context):
    """The context of one attempt of a communicator."""

    __slots__ = ("attempt", "idempotency_key", "max_attempts")
    workflow_uuid: UUID

    def __init__(
        self,
        workflow_uuid: UUID,
        caller: Caller,
        application: Mapping[str, Any],
        idempotency_key: str,
        attempt: int,
        max_attempts: int,
        operation_name: str | None = None,
    ) -> None:
        super().__init__(workflow_uuid, caller, application, operation_name)
        self.idempotency_key = idempotency_key
        """The same over all attempts, crashes and replays of this step: hand it to the service that is called."""
        self.attempt = attempt
        self.max_attempts = max_attempts


class TransactionContext(Context):
    """The context of a transaction: `client` is the open database transaction."""

    __slots__ = ("client",)
    workflow_uuid: UUID

    def __init__(
        self,
        workflow_uuid: UUID,
        caller: Caller,
        application: Mapping[str, Any],
        client: Client,
        operation_name: str | None = None,
    ) -> None:
        super().__init__(workflow_uuid, caller, application, operation_name)
        self.client = client


class InitializerContext(Context):
    """The context of an initializer: `client` is an open transaction, committed when the function returns."""

    __slots__ = ("client",)

    def __init__(self, application: Mapping[str, Any], client: Client) -> None:
        super().__init__(None, NOBODY, application)
        self.client = client


class BoundNamespace:
    """The operations of a class with a context in front. Anything else of the class is not for here."""

    __slots__ = ("_ctx", "_namespace")

    def __init__(self, ctx: InvokingContext, namespace: type) -> None:
        self._ctx = ctx
        self._namespace = namespace

    def __getattr__(self, name: str) -> Any:
        operation: Any = getattr(self._namespace, name)
        bind = getattr(operation, "bind_context", None)
        if bind is None:
            raise InvocationError(
                f"{self._namespace.__qualname__}.{name} is not an operation",
                hint="decorate it with @operon.workflow, @operon.transaction or @operon.communicator",
            )
        return bind(self._ctx)
