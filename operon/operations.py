"""Operations: what `@workflow`, `@transaction` and `@communicator` make of a function.

A decorator describes and registers nothing: it returns an object that knows its function, its name and its options.
Calling the object with a context hands it to that context's invoker, which decides between replay and run. Nothing
here is `async`: a step is numbered when it is called, not when it is awaited, so that `asyncio.gather` replays.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Concatenate,
    Generic,
    Literal,
    ParamSpec,
    Self,
    TypeVar,
    get_args,
    overload,
)

from operon.authorization import ROLES, roles_marked, rules_of
from operon.contexts import (
    CommunicatorContext,
    InitializerContext,
    InvokingContext,
    TransactionContext,
    WorkflowContext,
)
from operon.errors import CatalogError, InvocationError
from operon.handles import WorkflowHandle
from operon.retry import Retry
from operon.signatures import Signature

if TYPE_CHECKING:
    from operon.routes import Route

P = ParamSpec("P")
R = TypeVar("R")

Isolation = Literal["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"]
Kind = Literal["workflow", "transaction", "communicator", "handler", "initializer"]

DEFAULT_RETRY = Retry()


def unwrap_static(fn: Any) -> Any:
    """The function under a `@staticmethod`."""
    return fn.__func__ if isinstance(fn, staticmethod) else fn


class Described:
    """A decorated function: its name, where it was written, its parameters, its routes."""

    kind: ClassVar[Kind]

    def __init__(self, fn: Callable[..., Any], name: str | None) -> None:
        if isinstance(fn, Described):
            raise CatalogError(
                f"{fn.name}: @operon.{self.kind} is above another decorator of Operon",
                hint="write the route decorator at the top, the operation decorator below it, @staticmethod last",
            )
        if not callable(fn):
            raise CatalogError(f"@operon.{self.kind} decorates functions, not {fn!r}")
        self.fn = fn
        self.name: str = name or fn.__qualname__
        self.routes: tuple[Route, ...] = ()
        self.owner: type | None = None
        if (roles := roles_marked(fn)) is not None:  # by a decorator below this one
            setattr(self, ROLES, roles)
        self.__doc__ = fn.__doc__
        self.__name__: str = getattr(fn, "__name__", self.name)
        self.__module__ = fn.__module__

    def __set_name__(self, owner: type, name: str) -> None:
        """The class that it is defined in, whose rules are its own; another name for it changes nothing."""
        self.owner = self.owner or owner

    @functools.cached_property
    def required_roles(self) -> tuple[str, ...] | None:
        """Any of these lets a caller through, `()` lets everyone. None: nobody said, here or for the class."""
        roles = roles_marked(self)
        return roles if roles is not None else rules_of(self.owner).default_roles

    @functools.cached_property
    def signature(self) -> Signature:
        """Parameters after the context, and the result, with their codecs."""
        return Signature(self.fn, skip_first=True, operation_name=self.name)

    @functools.cached_property
    def masks(self) -> bool:
        """Whether any of its arguments is masked."""
        return self.signature.masks

    @property
    def where(self) -> str:
        """File and line of the function, for errors."""
        code = getattr(self.fn, "__code__", None)
        return f"{code.co_filename}:{code.co_firstlineno}" if code else repr(self.fn)

    def __repr__(self) -> str:
        return f"<{self.kind} {self.name}>"


class Operation(Described, Generic[P, R]):
    """A workflow, a transaction or a communicator."""

    __hash__ = object.__hash__

    def __call__(self, ctx: InvokingContext, *args: P.args, **kwargs: P.kwargs) -> Coroutine[object, None, R]:
        """Calls the operation; the step is numbered here."""
        try:
            invoker = ctx.invoker
        except AttributeError:
            raise not_invoking(self, ctx) from None
        return invoker.invoke(self, ctx, args, kwargs)

    def bind_context(self, ctx: InvokingContext) -> Callable[P, Coroutine[object, None, R]]:
        """This operation with the context in front, for `ctx.invoke(Class)`."""
        return functools.partial(self.__call__, ctx)

    if TYPE_CHECKING:  # to a checker `ctx.invoke(Ticket)` is a Ticket, and operations bind to it as methods do

        @overload
        def __get__(self, instance: None, owner: type) -> Self: ...
        @overload
        def __get__(self, instance: object, owner: type) -> Callable[P, Coroutine[object, None, R]]: ...
        def __get__(self, instance: object | None, owner: type) -> Any: ...


class Workflow(Operation[P, WorkflowHandle[R]], Generic[P, R]):
    """A function that always runs to completion. Calling it gives its handle."""

    kind = "workflow"

    def __init__(
        self,
        fn: Callable[Concatenate[WorkflowContext, P], Awaitable[R]],
        name: str | None = None,
        max_live: int | None = None,
    ) -> None:
        super().__init__(fn, name)
        require_async(self)
        if max_live is not None and (type(max_live) is not int or max_live < 1):
            raise CatalogError(f"{self.name}: max_live is {max_live!r}", hint="a whole number of 1 or more, or None")
        self.max_live = max_live


class Transaction(Operation[P, R], Generic[P, R]):
    """One database transaction, exactly once."""

    kind = "transaction"

    def __init__(
        self,
        fn: Callable[Concatenate[TransactionContext, P], Awaitable[R]],
        name: str | None = None,
        isolation: Isolation = "SERIALIZABLE",
        read_only: bool = False,
    ) -> None:
        super().__init__(fn, name)
        require_async(self)
        if isolation not in get_args(Isolation):
            raise CatalogError(
                f"{self.name}: there is no isolation level {isolation!r}",
                hint=f"one of {', '.join(get_args(Isolation))}",
            )
        self.isolation: Isolation = isolation
        self.read_only = read_only


class Communicator(Operation[P, R], Generic[P, R]):
    """A call to the world: at least once, never again after it completed."""

    kind = "communicator"

    def __init__(
        self,
        fn: Callable[Concatenate[CommunicatorContext, P], Awaitable[R] | R],
        name: str | None = None,
        retry: Retry | None = DEFAULT_RETRY,
        timeout_seconds: float | None = None,
        cancellable: bool = False,
    ) -> None:
        super().__init__(fn, name)
        if timeout_seconds is not None and timeout_seconds <= 0:
            raise CatalogError(f"{self.name}: timeout_seconds is {timeout_seconds}", hint="a number above 0, or None")
        self.retry = retry
        self.timeout_seconds = timeout_seconds
        self.is_async = inspect.iscoroutinefunction(fn)
        self.cancellable = cancellable
        if cancellable and not self.is_async:
            raise CatalogError(
                f"{self.name} is `def` and cancellable", hint="a thread cannot be interrupted: make it `async def`"
            )


class Initializer(Described):
    """A function that runs at each start, before any workflow does."""

    kind = "initializer"

    def __init__(self, fn: Callable[[InitializerContext], Awaitable[None]]) -> None:
        super().__init__(fn, None)
        require_async(self)


def initializer(fn: Callable[[InitializerContext], Awaitable[None]], /) -> Initializer:
    """Runs at each start of an executor, before any workflow: the place for `create table if not exists`.

    It runs in a transaction of its own, in one process at a time, and so has to bear being run again.
    """
    return Initializer(unwrap_static(fn))


def require_async(operation: Described) -> None:
    if not inspect.iscoroutinefunction(operation.fn):
        raise CatalogError(
            f"{operation.name} at {operation.where} is not `async def`",
            hint=f"a {operation.kind} is a coroutine function; only communicators may be synchronous",
        )


def not_invoking(operation: Described, ctx: object) -> InvocationError:
    if isinstance(ctx, (TransactionContext, CommunicatorContext)):
        inside = "transaction" if isinstance(ctx, TransactionContext) else "communicator"
        return InvocationError(
            f"{operation.name} was called from inside a {inside}",
            hint=f"a {inside} is one step; call {operation.name} from the workflow, before or after it",
        )
    return InvocationError(
        f"{operation.name} was called with {ctx!r} in place of a context",
        hint=f"pass the caller's context on: await {operation.fn.__name__}(ctx, ...)",
    )


@overload
def workflow(fn: Callable[Concatenate[WorkflowContext, P], Awaitable[R]], /) -> Workflow[P, R]: ...
@overload
def workflow(
    *, name: str | None = None, max_live: int | None = None
) -> Callable[[Callable[Concatenate[WorkflowContext, P], Awaitable[R]]], Workflow[P, R]]: ...
def workflow(fn: Any = None, /, *, name: str | None = None, max_live: int | None = None) -> Any:
    """A function that always runs to completion; deterministic, it orchestrates the others.

    name: the recorded name, `__qualname__` by default. Keep it when the function is renamed.
    max_live: how many workflows of this name are live (in memory, running) in one executor at a time; None for as many
    as come. It is a bulkhead, not an error: what is started beyond it is recorded and waits, the oldest first, for
    whichever executor has room. One that waits for messages, time or other workflows does not count for long: under a
    full name it leaves memory at once, and comes back when there is room.

    Raises CatalogError for a max_live that is no whole number of 1 or more.
    """

    def decorate(fn: Any) -> Workflow[..., Any]:
        return Workflow(unwrap_static(fn), name, max_live)

    return decorate if fn is None else decorate(fn)


@overload
def transaction(fn: Callable[Concatenate[TransactionContext, P], Awaitable[R]], /) -> Transaction[P, R]: ...
@overload
def transaction(
    *, name: str | None = None, isolation: Isolation = "SERIALIZABLE", read_only: bool = False
) -> Callable[[Callable[Concatenate[TransactionContext, P], Awaitable[R]]], Transaction[P, R]]: ...
def transaction(
    fn: Any = None, /, *, name: str | None = None, isolation: Isolation = "SERIALIZABLE", read_only: bool = False
) -> Any:
    """One ACID database transaction, exactly once: its checkpoint commits with the user's own writes.

    isolation: SERIALIZABLE by default; conflicts (40001, 40P01) are retried.
    read_only: Postgres refuses writes; the result is recorded all the same.
    """

    def decorate(fn: Any) -> Transaction[..., Any]:
        return Transaction(unwrap_static(fn), name, isolation, read_only)

    return decorate if fn is None else decorate(fn)


@overload
def communicator(
    fn: Callable[Concatenate[CommunicatorContext, P], Coroutine[Any, Any, R]], /
) -> Communicator[P, R]: ...
@overload
def communicator(fn: Callable[Concatenate[CommunicatorContext, P], R], /) -> Communicator[P, R]: ...
@overload
def communicator(
    *,
    name: str | None = None,
    retry: Retry | None = DEFAULT_RETRY,
    timeout_seconds: float | None = None,
    cancellable: bool = False,
) -> CommunicatorDecorator: ...
def communicator(
    fn: Any = None,
    /,
    *,
    name: str | None = None,
    retry: Retry | None = DEFAULT_RETRY,
    timeout_seconds: float | None = None,
    cancellable: bool = False,
) -> Any:
    """A call to the world: at least once, never again after it completed. `def` runs in a worker thread.

    retry: how often and when to try again; None for a single attempt.
    timeout_seconds: the longest that one attempt may take.
    cancellable: it is interrupted when its workflow is cancelled; otherwise the workflow stops after it.
    """

    def decorate(fn: Any) -> Communicator[..., Any]:
        return Communicator(unwrap_static(fn), name, retry, timeout_seconds, cancellable)

    return decorate if fn is None else decorate(fn)


if TYPE_CHECKING:

    class CommunicatorDecorator:
        """`@communicator(...)` with options takes coroutine functions and plain ones."""

        @overload
        def __call__(
            self, fn: Callable[Concatenate[CommunicatorContext, P], Coroutine[Any, Any, R]], /
        ) -> Communicator[P, R]: ...
        @overload
        def __call__(self, fn: Callable[Concatenate[CommunicatorContext, P], R], /) -> Communicator[P, R]: ...
        def __call__(self, fn: Any, /) -> Any: ...
