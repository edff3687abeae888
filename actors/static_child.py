"""One child of a Supervisor, through all its lives: started and waited for, stopped and waited for.

The rules:

* A life is a task of its own, in a cancel scope that only the supervisor cancels, in an empty context. An outer
  cancellation would otherwise reach all children at once, and the order of stopping would be lost.
* An exception never leaves the life: it becomes its exit, the task's result.
* Every life has a generation. The end of one that is not the present one is stale news, and ignored: otherwise a
  predecessor that was stopped on purpose would "crash" its successor.
* asyncio cannot kill. A child that swallows its cancellation is cancelled again at every turn of the loop (that is
  how cancel scopes work, and it costs CPU), and after `stop_timeout` it is a zombie: listed, held, and left behind.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, Never, Protocol, TypeAlias, TypeVar

from anyio import CancelScope

from actors.actor import serve
from actors.child import ChildSpec
from actors.clock import Clock, Timer
from actors.errors import ChildStartFailed
from actors.exits import NORMAL, SHUTDOWN, Crashed, Exit, Zombie, exit_of, message_of
from actors.host import Started, stack_of
from actors.mailbox import Mailbox, MemoryMailbox
from actors.ref import Ref
from actors.snapshot import ChildSnapshot
from actors.state import ChildState

__all__ = ["Keeper", "StaticChild", "actor_child", "task_child"]

log = logging.getLogger("actors")

M = TypeVar("M")
Life: TypeAlias = Callable[[Started], Coroutine[Any, Any, Exit]]


class Keeper(Protocol):
    """What a child needs of its supervisor."""

    clock: Clock
    stopped_by: tuple[type[BaseException], ...]

    def ended(self, child: StaticChild, generation: int, exit: Exit) -> None:
        """Hear that a life has ended that had started."""
        ...

    def gave_up(self, child: StaticChild, task: asyncio.Task[Exit]) -> None:
        """Take over a task that does not stop."""
        ...

    def stop_asked(self, child: StaticChild) -> None:
        """Hear that somebody wants the child to stop."""
        ...


class StaticChild:
    """The supervisor's record of a child. `depth` and `discard` are those of an actor's mailbox."""

    def __init__(self, keeper: Keeper, spec: ChildSpec[Never], ref: Ref[Never], life: Life) -> None:
        self.spec = spec
        self.name = spec.name
        self.ref = ref
        self.depth: Callable[[], int] | None = None
        self.discard: Callable[[], int] | None = None
        self.state = ChildState.STARTING
        self.generation = 0
        self.crashes = 0  # in a row, without a long healthy life in between
        self.restarts = 0
        self.last_exit: Exit | None = None
        self.started_at = 0.0  # of the present life; while RESTARTING, when the next one is due
        self.timer: Timer | None = None
        self.task: asyncio.Task[Exit] | None = None
        self._keeper = keeper
        self._life = life
        self._scope = CancelScope()

    async def start(self) -> None:
        """Begin a life and wait until it has started. Raises `ChildStartFailed`; then there is no life."""
        loop = asyncio.get_running_loop()
        self.generation += 1
        generation = self.generation
        self.state = ChildState.STARTING
        self.started_at = self._keeper.clock.now()
        self._scope = scope = CancelScope(shield=True)
        ready: asyncio.Future[None] = loop.create_future()

        def started() -> None:
            if not ready.done() and self.generation == generation:
                self.state = ChildState.RUNNING
                ready.set_result(None)

        self.task = task = loop.create_task(self._guarded(scope, started), name=self.name, context=Context())
        await asyncio.wait((ready, task), timeout=self.spec.start_timeout, return_when=asyncio.FIRST_COMPLETED)
        if not ready.done() and not task.done():
            await self.stop()
            raise ChildStartFailed(
                f"child {self.name!r} did not start within {self.spec.start_timeout:g} s",
                hint="call started() as soon as others may rely on the child, or raise its start_timeout",
            )
        if not ready.done() and (exit := result_of(task)) is not NORMAL:
            self.task = None
            self.last_exit = exit
            raise ChildStartFailed(f"child {self.name!r} did not start ({exit})") from (
                exit.error if isinstance(exit, Crashed) else None
            )
        task.add_done_callback(lambda task: self._keeper.ended(self, generation, result_of(task)), context=Context())

    async def stop(self) -> Exit:
        """End the present life, if there is one, and return how; a `Zombie` is left behind.

        Can be interrupted and called again.
        """
        self.generation += 1
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        if self.task is None:
            return SHUTDOWN
        self.state = ChildState.STOPPING
        self._scope.cancel()
        task = self.task
        await asyncio.wait((task,), timeout=self.spec.stop_timeout)
        self.task = None
        if task.done():
            self.last_exit = result_of(task)
            return self.last_exit
        self.last_exit = Zombie(self.spec.stop_timeout or 0.0)
        log.error("child does not stop", extra={"child": self.name, "stack": stack_of(task)})
        self._keeper.gave_up(self, task)
        return self.last_exit

    def describe(self, now: float, limit: int) -> ChildSnapshot:
        """Describe it as plain data; of what is below it, at most `limit` dynamic children for each supervisor."""
        below = self.spec.supervisor
        return ChildSnapshot(
            name=self.name,
            state=self.state.value,
            restart=self.spec.restart.value,
            restarts=self.restarts,
            last_exit=None if self.last_exit is None else str(self.last_exit),
            last_error=message_of(self.last_exit),
            uptime_seconds=None if self.task is None else now - self.started_at,
            restart_in_seconds=max(0.0, self.started_at - now) if self.state is ChildState.RESTARTING else None,
            mailbox_depth=None if self.depth is None else self.depth(),
            tree=None if below is None else below.snapshot(limit=limit),
        )

    async def _guarded(self, scope: CancelScope, started: Started) -> Exit:
        try:
            with scope:
                return await self._life(started)
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except BaseException as error:
            return exit_of(error, asked=scope.cancel_called, stopped_by=self._keeper.stopped_by)
        return SHUTDOWN  # the scope has swallowed the cancellation that it sent


def result_of(task: asyncio.Task[Exit]) -> Exit:
    """Return the exit of a finished life. A task that somebody cancelled before its first step has no result."""
    return Crashed(asyncio.CancelledError()) if task.cancelled() else task.result()


def actor_child(keeper: Keeper, spec: ChildSpec[M]) -> tuple[Ref[M], StaticChild]:
    """Make the mailbox, the Ref and the record of an actor."""
    make = spec.actor
    if make is None:
        raise TypeError(f"child {spec.name!r} is no actor")
    mailbox: Mailbox[M] = spec.mailbox() if spec.mailbox is not None else MemoryMailbox()
    ref: Ref[M] = Ref(spec.name, mailbox, mailbox.close)

    def life(started: Started) -> Coroutine[Any, Any, Exit]:
        return serve(make, ref, mailbox, started)

    child = StaticChild(keeper, spec, ref, life)
    child.depth = mailbox.__len__
    child.discard = mailbox.discard
    return ref, child


def task_child(keeper: Keeper, spec: ChildSpec[M]) -> tuple[Ref[M], StaticChild]:
    """Make the Ref and the record of an async function; nothing can be told to it."""
    run = spec.run
    if run is None:
        raise TypeError(f"child {spec.name!r} is no task")
    mailbox: MemoryMailbox[M] = MemoryMailbox(limit=0)
    mailbox.close()

    async def life(started: Started) -> Exit:
        await run(started)
        return NORMAL

    ref: Ref[M] = Ref(spec.name, mailbox, lambda: keeper.stop_asked(child))
    child = StaticChild(keeper, spec, ref, life)
    return ref, child
