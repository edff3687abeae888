"""A supervisor for very many children that come and go: one_for_one, without order, a hundred thousand at a time.

Spawning, running and ending an empty child costs 5 to 6 us, and an idle child about 1.4 kB, so:

* A child is a raw asyncio task that this supervisor holds (the loop itself only holds tasks weakly), not a member of a
  task group: that costs 40-50 us and 3.7 kB. Its end is a done callback, which also fires for a task that was cancelled
  before its first step; its exception is read there, becomes an exit, and reaches neither a task group nor a log that
  complains of exceptions "never retrieved".
* Only the supervisor cancels a child. A cancellation from elsewhere is a crash.
* Each child gets its own copy of a base context (by default an empty one). With the spawner's context, a child started
  from an HTTP handler would keep the request alive as long as itself.
* Between two lives nothing is left of a child but its entry and a timer: no task, no coroutine.
* There is no task per supervisor that receives exits: they are judged in the done callback, without an await between
  reading the state and acting on it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextvars import Context
from functools import partial
from typing import Any

from actors.clock import Clock
from actors.crash_window import CrashWindow
from actors.dynamic_child import DynamicChild, OnExit
from actors.errors import (
    IntensityExceeded,
    NameTaken,
    NoSuchChild,
    SupervisorNotRunning,
    SupervisorSuspended,
    TooManyChildren,
)
from actors.events import Happening
from actors.exits import NORMAL, SHUTDOWN, Crashed, Exit, Zombie, exit_of
from actors.host import Host, stack_of
from actors.restart import Backoff, Intensity, Restart, wants_restart
from actors.snapshot import SupervisorSnapshot, describe
from actors.state import ChildState, SupervisorState

__all__ = ["DynamicSupervisor"]

log = logging.getLogger("actors")

# Cancelling 50,000 tasks in one go blocks the loop for 0.2 s; a thousand take about 4 ms.
CHUNK = 1_000


class DynamicSupervisor(Host):
    """Owns children that are spawned while it runs.

    `restart`        the restart type of children that name none.
    `backoff`        the pause before a restart. A life longer than `backoff.longest` seconds forgives earlier crashes.
    `crashes_max`    how many crashes in a row a child is brought back from; after one more it is CRASHED for good.
    `intensity`      how many *distinct* children may crash within the window, whatever their restart type.
    `on_intensity`   what to do when more do. Called with the supervisor, which then counts from zero; usually it
                     calls `suspend`. Without it the supervisor gives up: it stops all and raises in its parent.
    `children_max`   how many children there may be; one more is `TooManyChildren`.
    `stop_timeout`   how many seconds a child may take to stop before it is listed as a zombie.
    `stopped_by`     exception types (of BaseException, usually) that are an ordinary way for a child to leave.
    `context`        the context that each child gets a copy of; empty by default.
    """

    def __init__(
        self,
        name: str,
        *,
        restart: Restart = Restart.TRANSIENT,
        backoff: Backoff | None = None,
        crashes_max: int = 5,
        intensity: Intensity | None = None,
        on_intensity: Callable[[DynamicSupervisor], object] | None = None,
        children_max: int = 100_000,
        stop_timeout: float = 5.0,
        stopped_by: tuple[type[BaseException], ...] = (),
        context: Context | None = None,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(name, clock=clock)
        self.restart = restart
        self.backoff = backoff or Backoff(first=1.0, longest=300.0)
        self.crashes_max = crashes_max
        self.intensity = intensity or Intensity(restarts=20, period=60.0)
        self._window = CrashWindow(self.intensity)
        self.on_intensity = on_intensity
        self.children_max = children_max
        self.stop_timeout = stop_timeout
        self.stopped_by = stopped_by
        self.context = context if context is not None else Context()
        self._callbacks = self.context.copy()  # where ends are judged: what an on_exit sets there reaches no child
        self.restarts = 0
        self._children: dict[str, DynamicChild] = {}
        self._restarting: dict[str, DynamicChild] = {}
        self._held: dict[str, DynamicChild] = {}  # whose pause ended while the supervisor was suspended
        self._zombies: dict[asyncio.Task[None], DynamicChild] = {}
        self._failed: asyncio.Future[None] | None = None
        self._stopping = 0  # children that were cancelled and have not ended
        self._quiet: asyncio.Future[None] | None = None  # done when there are none of those

    # -- children ------------------------------------------------------------------------------------------------------

    def spawn(
        self,
        name: str,
        run: Callable[[], Coroutine[Any, Any, None]],
        *,
        restart: Restart | None = None,
        on_exit: OnExit | None = None,
        probe: bool = False,
    ) -> DynamicChild:
        """Start a child at once, without waiting for anything, and return its handle.

        `run` is called for each life and makes a fresh coroutine. `on_exit` is called as `on_exit(child, exit)` at the
        end of each life, after it was judged: `child.state` is RESTARTING when another follows. It must not raise.
        A `probe` is let in while the supervisor is suspended.

        Raises `NameTaken`, `TooManyChildren`, `SupervisorSuspended` or `SupervisorNotRunning`; then nothing has run.
        """
        if self.state is not SupervisorState.RUNNING:
            self._refuse(probe)
        children = self._children
        if name in children:
            raise NameTaken(f"supervisor {self.name!r} has a child {name!r} already")
        if len(children) >= self.children_max:
            raise TooManyChildren(
                f"supervisor {self.name!r} has {len(children)} children, its limit",
                hint="wait for some to end, or raise children_max",
            )
        child = DynamicChild(name, run, restart or self.restart, on_exit)
        self._launch(child, run())
        children[name] = child
        return child

    async def stop(self, name: str, *, timeout: float | None = None) -> Exit:
        """Cancel a child, wait until it has ended and return how; a `Zombie` after `timeout` seconds (`stop_timeout`).

        Its name is free again on return, also that of a zombie. Raises `NoSuchChild`.
        """
        child = self.child(name)
        self._cancel(child)
        seconds = self.stop_timeout if timeout is None else timeout
        giving_up = asyncio.get_running_loop().call_later(seconds, self._give_up, child, seconds, context=Context())
        try:
            return await child.wait()
        finally:
            giving_up.cancel()

    async def stop_all(self, *, timeout: float | None = None) -> None:
        """Cancel every child, a thousand at a time, and wait at most `timeout` seconds (`stop_timeout`)."""
        children = list(self._children.values())
        for first in range(0, len(children), CHUNK):
            for child in children[first : first + CHUNK]:
                if child.exit is None:
                    self._cancel(child)
            await asyncio.sleep(0)
        seconds = self.stop_timeout if timeout is None else timeout
        if self._stopping:
            if self._quiet is None:
                self._quiet = asyncio.get_running_loop().create_future()
            await asyncio.wait((self._quiet,), timeout=seconds)
        for child in children:
            self._give_up(child, seconds)

    def child(self, name: str) -> DynamicChild:
        """Return the child of this name, or raise `NoSuchChild`."""
        try:
            return self._children[name]
        except KeyError:
            raise NoSuchChild(f"supervisor {self.name!r} has no child {name!r}") from None

    def __contains__(self, name: str) -> bool:
        return name in self._children

    def __len__(self) -> int:
        return len(self._children)

    @property
    def restarting(self) -> int:
        """How many children are between two lives."""
        return len(self._restarting)

    @property
    def running(self) -> int:
        """How many children have a task, including those that are stopping."""
        return len(self._children) - len(self._restarting)

    @property
    def zombies(self) -> tuple[DynamicChild, ...]:
        """The children that were told to stop, did not, and still run."""
        return tuple(self._zombies.values())

    # -- policy --------------------------------------------------------------------------------------------------------

    def suspend(self) -> None:
        """Take no new children (but probes) and hold restarts back, until `resume`. Children that run go on."""
        if self.state is SupervisorState.RUNNING:
            self.state = SupervisorState.SUSPENDED
            self.emit(Happening.SUSPENDED)

    def resume(self) -> None:
        """Go on after `suspend`: take children again, and restart those whose pause is over."""
        if self.state is not SupervisorState.SUSPENDED:
            return
        self.state = SupervisorState.RUNNING
        self._window.clear()
        self.emit(Happening.RESUMED)
        held, self._held = self._held, {}
        for child in held.values():
            self._relaunch(child)

    # -- one life ------------------------------------------------------------------------------------------------------

    def _launch(self, child: DynamicChild, life: Coroutine[Any, Any, None]) -> None:
        child.started_at = self.clock.now()
        task = asyncio.get_running_loop().create_task(life, name=child.name, context=self.context.copy())
        child.task = task
        # Without a context of ours, the callback would run in the spawner's, and pin it.
        task.add_done_callback(partial(self._ended, child), context=self._callbacks)

    def _ended(self, child: DynamicChild, task: asyncio.Task[None]) -> None:
        """Judge the end of a life. Everything that follows from it happens here, at once."""
        if child.task is not task:
            self._bury(child, task)
            return
        child.task = None
        stopping = child.state is ChildState.STOPPING
        if stopping:
            self._one_less_stopping()
        exit: Exit
        if task.cancelled():
            exit = exit_of(asyncio.CancelledError(), asked=stopping)
        elif (error := task.exception()) is not None:
            exit = exit_of(error, asked=stopping, stopped_by=self.stopped_by)
        else:
            exit = NORMAL
        child.last_exit = exit
        if type(exit) is Crashed:
            self._crashed(child, exit, stopping=stopping)
        elif not stopping and wants_restart(child.restart, exit):
            child.crashes = 0
            self._pause(child, crashes=1)
        else:
            child.state = ChildState.FINISHED
        self._settle(child, exit)

    def _crashed(self, child: DynamicChild, exit: Crashed, *, stopping: bool) -> None:
        now = self.clock.now()
        if now - child.started_at > self.backoff.longest:
            child.crashes = 0
        child.crashes += 1
        again = not stopping and child.crashes <= self.crashes_max and wants_restart(child.restart, exit)
        log.warning(
            "%s crashed",
            child.name,
            exc_info=exit.error,
            extra={"supervisor": self.name, "child": child.name, "crashes": child.crashes, "restart": again},
        )
        if again:
            self._pause(child, crashes=child.crashes)
        else:
            child.state = ChildState.CRASHED
        self.emit(Happening.CRASHED, child.name, exit=exit)
        if not stopping:
            self._count(child, exit, now)

    def _settle(self, child: DynamicChild, exit: Exit) -> None:
        """Forget a child that has ended for good, then tell those who want to know."""
        final = child.state is not ChildState.RESTARTING
        if final:
            del self._children[child.name]
        if child.on_exit is not None:
            try:
                child.on_exit(child, exit)
            except Exception:
                log.exception("on_exit raised", extra={"supervisor": self.name, "child": child.name})
        if final:
            child.end(exit)

    # -- the next life -------------------------------------------------------------------------------------------------

    def _pause(self, child: DynamicChild, *, crashes: int) -> None:
        child.state = ChildState.RESTARTING
        self._restarting[child.name] = child
        delay = self.backoff.delay(crashes)
        child.started_at = self.clock.now() + delay
        child.timer = self.clock.call_later(delay, partial(self._relaunch, child))

    def _relaunch(self, child: DynamicChild) -> None:
        if child.state is not ChildState.RESTARTING:
            return
        child.timer = None
        if self.state is SupervisorState.SUSPENDED:
            self._held[child.name] = child
            return
        del self._restarting[child.name]
        child.state = ChildState.RUNNING
        child.restarts += 1
        self.restarts += 1
        self._launch(child, self._live(child))
        self.emit(Happening.RESTARTED, child.name)

    async def _live(self, child: DynamicChild) -> None:
        # `run` is somebody's code: failing before there is a coroutine is the crash of a life, not of a timer.
        await child.run()

    # -- stopping ------------------------------------------------------------------------------------------------------

    def _cancel(self, child: DynamicChild) -> None:
        """Tell a child to stop; one that is between two lives ends here."""
        if child.state is ChildState.RESTARTING:
            self._unpause(child)
            child.state = ChildState.FINISHED
            self._settle(child, SHUTDOWN)
        elif child.state is ChildState.RUNNING and child.task is not None:
            child.state = ChildState.STOPPING
            self._stopping += 1
            child.task.cancel()

    def _one_less_stopping(self) -> None:
        self._stopping -= 1
        if self._stopping == 0 and self._quiet is not None:
            self._quiet.set_result(None)
            self._quiet = None

    def _unpause(self, child: DynamicChild) -> None:
        del self._restarting[child.name]
        self._held.pop(child.name, None)
        if child.timer is not None:
            child.timer.cancel()
            child.timer = None

    def _give_up(self, child: DynamicChild, seconds: float) -> None:
        """Make a zombie of a child that did not stop: listed and held, but its name is free and nobody waits for it."""
        task = child.task
        if child.state is not ChildState.STOPPING or task is None:
            return
        exit = Zombie(seconds)
        self._one_less_stopping()
        child.task = None
        child.state = ChildState.ZOMBIE
        child.last_exit = exit
        self._zombies[task] = child
        log.error(
            "child does not stop",
            extra={"supervisor": self.name, "child": child.name, "seconds": seconds, "stack": stack_of(task)},
        )
        self.emit(Happening.ZOMBIE, child.name, exit=exit)
        self._settle(child, exit)

    def _bury(self, child: DynamicChild, task: asyncio.Task[None]) -> None:
        """A zombie has ended after all. Its exit counts for nothing; it is read so that nothing complains of it."""
        self._zombies.pop(task, None)
        if not task.cancelled():
            task.exception()
        self.emit(Happening.BURIED, child.name)

    # -- intensity -----------------------------------------------------------------------------------------------------

    def _count(self, child: DynamicChild, exit: Crashed, now: float) -> None:
        if not self._window.overflows(child.name, now):
            return
        if self.on_intensity is not None:
            try:
                self.on_intensity(self)
            except Exception:
                log.exception("on_intensity raised", extra={"supervisor": self.name})
            else:
                return
        if self._failed is not None and not self._failed.done():
            self.emit(Happening.ESCALATED, exit=exit)
            failure = IntensityExceeded(
                f"supervisor {self.name!r}: more than {self.intensity.restarts} children crashed "
                f"within {self.intensity.period:g} s; the last was {child.name!r} ({exit})",
                hint="fix the crash that caused this; on_intensity decides what to do instead of giving up",
            )
            failure.__cause__ = exit.error
            self._failed.set_exception(failure)

    def _refuse(self, probe: bool) -> None:
        if self.state is SupervisorState.SUSPENDED:
            if probe:
                return
            raise SupervisorSuspended(
                f"supervisor {self.name!r} was suspended", hint="it takes children again after resume()"
            )
        raise SupervisorNotRunning(
            f"supervisor {self.name!r} is {self.state}", hint="spawn inside its `async with` block, or under a parent"
        )

    # -- as a host -----------------------------------------------------------------------------------------------------

    async def _open(self) -> None:
        self._window.clear()
        self._failed = asyncio.get_running_loop().create_future()

    async def _serve(self) -> None:
        if self._failed is not None:
            await self._failed

    async def _close(self) -> None:
        await self.stop_all()

    def snapshot(self, *, limit: int = 100) -> SupervisorSnapshot:
        """Describe it: counts of all children, and at most `limit` of them, those in trouble first."""
        now = self.clock.now()
        chosen: dict[int, DynamicChild] = {}
        for group in (self._zombies, self._restarting, self._children):
            for child in group.values():
                if len(chosen) >= limit:
                    break
                chosen[id(child)] = child
        return SupervisorSnapshot(
            name=self.name,
            strategy="one_for_one",
            state=self.state.value,
            dynamic=True,
            running=self.running,
            restarting=self.restarting,
            zombies=len(self._zombies),
            restarts=self.restarts,
            restarts_in_window=self._window.used(now),
            restarts_allowed=self.intensity.restarts,
            period_seconds=self.intensity.period,
            uptime_seconds=now - self.started_at,
            children=tuple(child.describe(now) for child in chosen.values()),
            omitted=len(self._children) + len(self._zombies) - len(chosen),
        )

    def __repr__(self) -> str:
        return f"<DynamicSupervisor {describe(self.snapshot(limit=0))}>"
