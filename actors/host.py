"""How any supervisor runs: in a task of its own, as an `async with` block or as the child of another supervisor.

    NEW -> STARTING -> RUNNING (-> SUSPENDED -> RUNNING) -> STOPPING -> STOPPED -> STARTING ...

The rules:

* Closing cannot be interrupted. It is shielded, and bounded by the children's own timeouts.
* Escalation is an exception out of `run`. A parent sees it as the crash of a child; at the root it cancels the body of
  the `async with` block and is raised from its end.
* No cancel scope or task group spans somebody's `yield`, except the one around the body of `async with`. So in an async
  generator (a fixture, a server's lifespan) run the root in a task of its own instead: `create_task(root.run(...))`.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from contextvars import Context
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from anyio import CancelScope

from actors.clock import Clock, LoopClock
from actors.errors import SupervisorNotRunning
from actors.events import Event, Happening
from actors.exits import Exit
from actors.state import SupervisorState

if TYPE_CHECKING:
    from actors.snapshot import SupervisorSnapshot

__all__ = ["Host", "Started", "stack_of"]

log = logging.getLogger("actors")

# What a child calls to say that it is up; whoever started it waits for that.
Started: TypeAlias = Callable[[], None]


class Host(AbstractAsyncContextManager["Host"], ABC):
    """The part of a supervisor that does not know about children."""

    def __init__(self, name: str, *, clock: Clock | None = None) -> None:
        self.name = name
        self.clock: Clock = clock or LoopClock()
        self.state = SupervisorState.NEW
        self.started_at = 0.0
        self._observers: dict[Callable[[Event], object], None] = {}
        self._task: asyncio.Task[None] | None = None
        self._scope = CancelScope()
        self._body = CancelScope()

    @abstractmethod
    async def _open(self) -> None:
        """Start what is to run from the beginning."""

    @abstractmethod
    async def _serve(self) -> None:
        """Watch over the children. Returns never; raises to escalate."""

    @abstractmethod
    async def _close(self) -> None:
        """Stop all children. Must end, whatever they do."""

    @abstractmethod
    def snapshot(self, *, limit: int = 100) -> SupervisorSnapshot:
        """Describe this supervisor and what is below it as plain data, with at most `limit` dynamic children each."""

    async def run(self, started: Started) -> None:
        """Run until cancelled, or until it gives up (`IntensityExceeded`). Calls `started` when all children are."""
        if self.state not in (SupervisorState.NEW, SupervisorState.STOPPED):
            raise SupervisorNotRunning(
                f"supervisor {self.name!r} runs already", hint="run a supervisor once at a time, under one parent"
            )
        self.state = SupervisorState.STARTING
        self.started_at = self.clock.now()
        try:
            await self._open()
            self.state = SupervisorState.RUNNING
            started()
            await self._serve()
        finally:
            self.state = SupervisorState.STOPPING
            with CancelScope(shield=True):
                await self._close()
            self.state = SupervisorState.STOPPED
            self.emit(Happening.STOPPED)

    def observe(self, callback: Callable[[Event], object]) -> Callable[[], None]:
        """Call back with every event of this tree, here and below. Returns the function that ends it.

        The callback runs inside the supervisor: it must be quick and must not raise.
        """
        self._observers[callback] = None

        def unobserve() -> None:
            self._observers.pop(callback, None)

        return unobserve

    def emit(self, happening: Happening, *path: str, exit: Exit | None = None) -> None:
        """Tell the observers. Called by supervisors."""
        if not self._observers:
            return
        event = Event((self.name, *path), happening, exit)
        for callback in tuple(self._observers):
            try:
                callback(event)
            except Exception:
                log.exception("an observer raised", extra={"supervisor": self.name, "observer": repr(callback)})

    def adopt(self, child: Host) -> Callable[[], None]:
        """Pass the events of a supervisor below on, with our name in front. Returns the function that ends it."""

        def pass_on(event: Event) -> None:
            self.emit(event.happening, *event.path, exit=event.exit)

        return child.observe(pass_on)

    async def __aenter__(self) -> Self:
        """Start, and return when all children are started. Raises what the start raised."""
        self._scope, self._body = CancelScope(), CancelScope()
        started = asyncio.Event()
        # A task of its own with an empty context: neither the caller's cancellation nor its context variables get in.
        self._task = asyncio.get_running_loop().create_task(
            self._hosted(started.set), name=f"supervisor {self.name}", context=Context()
        )
        # Set before the task can fail, so that a failure always finds somebody to wake.
        self._task.add_done_callback(lambda _task: started.set(), context=Context())
        try:
            await started.wait()
        except BaseException:
            await self._leave()
            raise
        if self._task.done() and (failure := failure_of(self._task)) is not None:
            raise failure
        self._body.__enter__()
        self._task.add_done_callback(lambda task: self._body.cancel() if failure_of(task) else None, context=Context())
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        """Stop all children, last started first. Raises `IntensityExceeded` if the supervisor gave up meanwhile."""
        failure = await self._leave()
        swallowed = self._body.__exit__(exc_type, exc, traceback)
        if failure is None:
            return swallowed
        if exc is None or swallowed:
            raise failure
        exc.add_note(f"and supervisor {self.name!r} failed: {failure}")
        return False

    async def _hosted(self, started: Started) -> None:
        with self._scope:
            await self.run(started)

    async def _leave(self) -> BaseException | None:
        """Stop the task of this supervisor, wait for it, and return what it failed with."""
        if self._task is None:
            return None
        self._scope.cancel()
        with CancelScope(shield=True):
            await asyncio.wait((self._task,))
        return failure_of(self._task)


def failure_of(task: asyncio.Task[None]) -> BaseException | None:
    """Return what a finished task raised, if it did."""
    return None if task.cancelled() else task.exception()


def stack_of(task: asyncio.Task[Any]) -> str:
    """Say where a task is waiting, outermost frame first: what one wants to know about a zombie."""
    places: list[str] = []
    awaited: Any = task.get_coro()
    # Task.get_stack() shows only the outermost coroutine of a task that waits.
    while (frame := getattr(awaited, "cr_frame", None)) is not None:
        places.append(f"{frame.f_code.co_qualname}:{frame.f_lineno}")
        awaited = awaited.cr_await
    return " > ".join(places)
