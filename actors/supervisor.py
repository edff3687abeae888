"""A supervisor for a handful of children that depend on each other: started in order, stopped in reverse.

One task does everything. Ends of children, pauses that are over and requests to start or stop come in through one
inbox and are handled one at a time, so there is no lock, and no state changes while it is being judged. The price: a
child that takes long to start or stop holds up the rest (as in OTP), so both have timeouts. A child must not wait, in
its own start, for its supervisor to start another.

    a child ends -> decide (restart.py) -> FORGET:   it stays listed with its exit; a temporary or stopped one does not
                                           RESTART:  its group goes down in reverse order, a pause, it comes up in order
                                           ESCALATE: `IntensityExceeded` out of `run`, after all children were stopped

The group of a child is itself, all, or itself and those after it: the strategy. A group that fails to come up again
has crashed again. Children that have finished stay finished, and temporary ones that go down with a group stay down.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Never, TypeAlias, TypeVar

from actors.child import ChildSpec
from actors.clock import Clock
from actors.errors import ChildStartFailed, IntensityExceeded, NameTaken, NoSuchChild, SupervisorNotRunning
from actors.events import Happening
from actors.exits import SHUTDOWN, Crashed, Exit, Shutdown, Stopped, Zombie
from actors.host import Host
from actors.ref import Ref
from actors.restart import Intensity, Restart, Strategy, Verdict, decide
from actors.snapshot import ChildSnapshot, SupervisorSnapshot, describe
from actors.state import ChildState, SupervisorState
from actors.static_child import StaticChild, actor_child, task_child

__all__ = ["Supervisor"]

log = logging.getLogger("actors")

M = TypeVar("M")

OVER = frozenset({ChildState.FINISHED, ChildState.CRASHED, ChildState.ZOMBIE})


@dataclass(frozen=True, slots=True)
class Ended:
    """A life ended by itself."""

    child: StaticChild
    generation: int
    exit: Exit


@dataclass(frozen=True, slots=True)
class Due:
    """The pause before a restart is over."""

    child: StaticChild
    generation: int


@dataclass(frozen=True, slots=True)
class Start:
    """Somebody waits for a new child."""

    child: StaticChild
    started: asyncio.Future[None]


@dataclass(frozen=True, slots=True)
class Stop:
    """Somebody wants a child to stop."""

    child: StaticChild


Notice: TypeAlias = Ended | Due | Start | Stop


class Supervisor(Host):
    """Keeps its children running. Use it as `async with`, or as the child of another one (`ChildSpec.nested`).

    `children`    started, in this order, whenever the supervisor is; more can be added with `start`.
    `strategy`    who goes down and comes back together with a child that crashed.
    `intensity`   how many restarts it bears in a window; one more, and it gives up and stops all children.
    `stopped_by`  exception types (of BaseException, usually) that are an ordinary way for a child to leave.
    """

    def __init__(
        self,
        name: str,
        *,
        children: Sequence[ChildSpec[Never]] = (),
        strategy: Strategy = Strategy.ONE_FOR_ONE,
        intensity: Intensity | None = None,
        stopped_by: tuple[type[BaseException], ...] = (),
        clock: Clock | None = None,
    ) -> None:
        super().__init__(name, clock=clock)
        self.strategy = strategy
        self.intensity = intensity or Intensity()
        self.stopped_by = stopped_by
        self.restarts = 0
        self._specs = tuple(children)
        self._children: dict[str, StaticChild] = {}  # in the order of starting
        self._zombies: dict[asyncio.Task[Exit], StaticChild] = {}
        # As many as are needed to see that one more would be too many.
        self._history: deque[float] = deque(maxlen=self.intensity.restarts)
        self._inbox: asyncio.Queue[Notice] = asyncio.Queue()

    # -- for everybody -------------------------------------------------------------------------------------------------

    async def start(self, spec: ChildSpec[M]) -> Ref[M]:
        """Start a child after those that run already, and return its Ref when it has started.

        Raises `ChildStartFailed` (from what the child raised), `NameTaken` or `SupervisorNotRunning`; then it does not
        run. The same if the caller is cancelled while it waits.
        """
        if self.state is not SupervisorState.RUNNING:
            raise self._not_running()
        ref, child = self._child_of(spec)
        started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._inbox.put_nowait(Start(child, started))
        try:
            await started
        except asyncio.CancelledError:
            self.stop_asked(child)
            raise
        return ref

    async def stop(self, name: str) -> Exit:
        """Cancel a child for good, wait until it has ended and return how; a `Zombie` after its `stop_timeout`.

        Raises `NoSuchChild`. Of a child that has ended already, it returns the exit.
        """
        if (child := self._children.get(name)) is None:
            raise NoSuchChild(f"supervisor {self.name!r} has no child {name!r}")
        self.stop_asked(child)
        return await child.ref.wait()

    def __contains__(self, name: str) -> bool:
        return name in self._children

    def __len__(self) -> int:
        return len(self._children)

    # -- news from the children: only noted down here, handled by `_serve` ---------------------------------------------

    def ended(self, child: StaticChild, generation: int, exit: Exit) -> None:
        """Note that a life has ended. Called by the child."""
        self._inbox.put_nowait(Ended(child, generation, exit))

    def gave_up(self, child: StaticChild, task: asyncio.Task[Exit]) -> None:
        """Keep a task that does not stop. Called by the child."""
        self._zombies[task] = child
        self.emit(Happening.ZOMBIE, child.name, exit=child.last_exit)

        def bury(task: asyncio.Task[Exit]) -> None:
            del self._zombies[task]
            self.emit(Happening.BURIED, child.name)

        task.add_done_callback(bury)

    def stop_asked(self, child: StaticChild) -> None:
        """Note that somebody wants the child to stop. Called by its Ref."""
        self._inbox.put_nowait(Stop(child))

    # -- the one task --------------------------------------------------------------------------------------------------

    async def _open(self) -> None:
        self._children.clear()
        self._history.clear()
        self._inbox = asyncio.Queue()
        for spec in self._specs:
            _, child = self._child_of(spec)
            await self._add(child)

    async def _serve(self) -> None:
        while True:
            match await self._inbox.get():
                case Ended(child, generation, exit) if child.generation == generation:
                    child.task = None
                    child.last_exit = exit
                    await self._judge(child, exit)
                case Due(child, generation) if child.generation == generation:
                    child.timer = None
                    await self._bring_back(child)
                case Start() as request:
                    await self._answer(request)
                case Stop(child) if child.ref.exit is None:
                    self._hand_over(child)
                    await self._remove(child)
                case _:  # stale: of a life, a pause or a child that is no more
                    pass

    async def _close(self) -> None:
        for child in reversed(tuple(self._children.values())):
            if child.ref.exit is None:
                await self._remove(child)
        while not self._inbox.empty():
            notice = self._inbox.get_nowait()
            if isinstance(notice, Start):
                refuse(notice, self._not_running())

    async def _answer(self, request: Start) -> None:
        try:
            await self._add(request.child)
        except (ChildStartFailed, NameTaken) as error:
            refuse(request, error)
        except BaseException:  # we are being stopped: whoever waits must hear of it
            refuse(request, self._not_running())
            raise
        else:
            if not request.started.done():
                request.started.set_result(None)

    async def _add(self, child: StaticChild) -> None:
        """Start a new child as the last one. Raises `ChildStartFailed` or `NameTaken`; then it is not listed."""
        present = self._children.get(child.name)
        if present is not None and present.state not in OVER:
            raise NameTaken(f"supervisor {self.name!r} has a child {child.name!r} already")
        self._children.pop(child.name, None)
        self._children[child.name] = child
        try:
            await child.start()
        except ChildStartFailed:
            await self._remove(child)
            raise
        self.emit(Happening.STARTED, child.name)

    async def _judge(self, child: StaticChild, exit: Exit) -> Verdict:
        now = self.clock.now()
        if now - child.started_at > child.spec.backoff.longest:
            child.crashes = 0
        child.crashes += 1
        verdict = decide(child.spec.restart, exit, self._history, now, self.intensity)
        if isinstance(exit, Crashed):
            log.warning(
                "child crashed",
                exc_info=exit.error,
                extra={"supervisor": self.name, "child": child.name, "crashes": child.crashes, "verdict": verdict.name},
            )
        match verdict:
            case Verdict.FORGET:
                self._forget(child, exit)
            case Verdict.RESTART:
                self._history.append(now)
                await self._take_down(child, now, exit)
            case Verdict.ESCALATE:
                self._forget(child, exit)
                self.emit(Happening.ESCALATED, exit=exit)
                raise IntensityExceeded(
                    f"supervisor {self.name!r}: more than {self.intensity.restarts} restarts "
                    f"within {self.intensity.period:g} s; the last was for {child.name!r} ({exit})",
                    hint="fix the crash that caused this, or allow more with intensity=Intensity(restarts, period)",
                ) from (exit.error if isinstance(exit, Crashed) else None)
        return verdict

    async def _take_down(self, child: StaticChild, now: float, exit: Exit) -> None:
        """Stop the child's group, last started first, and set the timer that brings it back."""
        child.state = ChildState.RESTARTING
        for sibling in reversed(self._group(child)):
            if sibling is child or sibling.state in OVER:
                continue
            if sibling.spec.restart is Restart.TEMPORARY:
                await self._remove(sibling)
            else:
                await sibling.stop()
                sibling.state = ChildState.RESTARTING
        delay = child.spec.backoff.delay(child.crashes)
        for sibling in self._group(child):
            if sibling.state is ChildState.RESTARTING:
                sibling.started_at = now + delay
        self._set_timer(child, delay)
        self.emit(Happening.CRASHED if isinstance(exit, Crashed) else Happening.FINISHED, child.name, exit=exit)

    async def _bring_back(self, child: StaticChild) -> None:
        """Start what went down with the child, in order. A start that fails is one more crash."""
        for sibling in self._group(child):
            if sibling.state is not ChildState.RESTARTING:
                continue
            try:
                await sibling.start()
            except ChildStartFailed as error:
                exit = sibling.last_exit if isinstance(sibling.last_exit, Crashed | Stopped) else Crashed(error)
                if await self._judge(sibling, exit) is not Verdict.FORGET:
                    return  # the group waits again, for this one
            else:
                sibling.restarts += 1
                self.restarts += 1
                self.emit(Happening.RESTARTED, sibling.name)

    def _hand_over(self, child: StaticChild) -> None:
        """Let a sibling wait in the place of a child that is to be removed: its group must still come back."""
        if child.timer is None:
            return
        waiting = (one for one in self._group(child) if one.state is ChildState.RESTARTING and one is not child)
        if (heir := next(waiting, None)) is not None:
            self._set_timer(heir, max(0.0, child.started_at - self.clock.now()))

    def _set_timer(self, child: StaticChild, delay: float) -> None:
        due = Due(child, child.generation)
        child.timer = self.clock.call_later(delay, lambda: self._inbox.put_nowait(due))

    def _group(self, child: StaticChild) -> list[StaticChild]:
        children = list(self._children.values())
        match self.strategy:
            case Strategy.ONE_FOR_ONE:
                return [child]
            case Strategy.ONE_FOR_ALL:
                return children
            case Strategy.REST_FOR_ONE:
                return children[children.index(child) :]

    async def _remove(self, child: StaticChild) -> None:
        """Stop a child for good. It is no longer listed."""
        self._forget(child, await child.stop())
        self._children.pop(child.name, None)

    def _forget(self, child: StaticChild, exit: Exit) -> None:
        """End a child for good. It stays listed if it left by itself and was not temporary."""
        match exit:
            case Crashed():
                child.state, happening = ChildState.CRASHED, Happening.CRASHED
            case Zombie():
                child.state, happening = ChildState.ZOMBIE, Happening.FINISHED
            case _:
                child.state, happening = ChildState.FINISHED, Happening.FINISHED
        if child.spec.restart is Restart.TEMPORARY or isinstance(exit, Shutdown):
            self._children.pop(child.name, None)
        if child.discard is not None and (letters := child.discard()):
            log.warning("dead letters", extra={"supervisor": self.name, "child": child.name, "letters": letters})
        child.ref.end(exit)
        self.emit(happening, child.name, exit=exit)

    def _child_of(self, spec: ChildSpec[M]) -> tuple[Ref[M], StaticChild]:
        ref, child = actor_child(self, spec) if spec.run is None else task_child(self, spec)
        if spec.supervisor is not None:
            unadopt = self.adopt(spec.supervisor)
            ref.watch(lambda _exit: unadopt())
        return ref, child

    def _not_running(self) -> SupervisorNotRunning:
        return SupervisorNotRunning(
            f"supervisor {self.name!r} is {self.state}", hint="use it inside its `async with` block, or under a parent"
        )

    # -- what it looks like --------------------------------------------------------------------------------------------

    def snapshot(self, *, limit: int = 100) -> SupervisorSnapshot:
        """Describe this supervisor and what is below it as plain data, with at most `limit` dynamic children each."""
        now = self.clock.now()
        children = tuple(self._children.values())
        return SupervisorSnapshot(
            name=self.name,
            strategy=self.strategy.value,
            state=self.state.value,
            dynamic=False,
            running=sum(1 for child in children if child.state is ChildState.RUNNING),
            restarting=sum(1 for child in children if child.state is ChildState.RESTARTING),
            zombies=len(self._zombies),
            restarts=self.restarts,
            restarts_in_window=self.intensity.used(self._history, now),
            restarts_allowed=self.intensity.restarts,
            period_seconds=self.intensity.period,
            uptime_seconds=now - self.started_at,
            children=(*(child.describe(now, limit) for child in children), *self._describe_zombies(now)),
        )

    def _describe_zombies(self, now: float) -> list[ChildSnapshot]:
        # The child itself may have been restarted meanwhile, and is listed with its new life.
        state = ChildState.ZOMBIE.value
        return [replace(child.describe(now, 0), state=state, tree=None) for child in self._zombies.values()]

    def __repr__(self) -> str:
        return f"<Supervisor {describe(self.snapshot(limit=0))}>"


def refuse(request: Start, error: Exception) -> None:
    """Tell whoever waits for a start that there will be none, unless they have left."""
    request.child.ref.end(SHUTDOWN)
    if not request.started.done():
        request.started.set_exception(error)
