"""For tests of supervised code: wait for facts, and own the clock. Nothing here polls or sleeps.

clock = ManualClock()
async with Supervisor("shop", clock=clock) as root:
    ...
    await until_state(root, "till", ChildState.RESTARTING)
    clock.advance(30)                                           # the pause is over
    await until_restarted(root, "till")
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable

from actors.events import Event
from actors.host import Host
from actors.snapshot import ChildSnapshot
from actors.state import ChildState

__all__ = ["ManualClock", "ManualTimer", "child_of", "until", "until_restarted", "until_state"]


class ManualTimer:
    """A timer of a ManualClock."""

    __slots__ = ("callback", "cancelled", "due")

    def __init__(self, due: float, callback: Callable[[], object]) -> None:
        self.due = due
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class ManualClock:
    """A clock that moves when it is told to, and fires what has become due on the way, in order."""

    def __init__(self, now: float = 0.0) -> None:
        self._now = now
        self._timers: list[tuple[float, int, ManualTimer]] = []
        self._count = 0

    def now(self) -> float:
        return self._now

    def call_later(self, delay: float, callback: Callable[[], object]) -> ManualTimer:
        timer = ManualTimer(self._now + delay, callback)
        self._count += 1
        heapq.heappush(self._timers, (timer.due, self._count, timer))
        return timer

    def advance(self, seconds: float) -> None:
        """Let time pass. What the fired timers start needs the event loop: wait for its facts."""
        end = self._now + seconds
        while self._timers and self._timers[0][0] <= end:
            due, _, timer = heapq.heappop(self._timers)
            self._now = due
            if not timer.cancelled:
                timer.callback()
        self._now = end

    @property
    def pending(self) -> list[float]:
        """In how many seconds each timer fires, soonest first."""
        return sorted(timer.due - self._now for _, _, timer in self._timers if not timer.cancelled)


async def until(host: Host, fact: Callable[[], bool], *, timeout: float = 5.0) -> None:
    """Wait until the fact is true: looked at now, and after every event of this supervisor and those below it.

    Raises TimeoutError after `timeout` seconds, with the tree as it is then.
    """
    true = asyncio.Event()

    def look(_event: Event | None = None) -> None:
        if fact():
            true.set()

    stop_looking = host.observe(look)
    try:
        look()
        async with asyncio.timeout(timeout):
            await true.wait()
    except TimeoutError:
        raise TimeoutError(f"still not so after {timeout:g} s: {host.snapshot()}") from None
    finally:
        stop_looking()


async def until_state(host: Host, child: str, state: ChildState, *, timeout: float = 5.0) -> None:
    """Wait until the child is in this state."""
    await until(host, lambda: (found := child_of(host, child)) is not None and found.state == state, timeout=timeout)


async def until_restarted(host: Host, child: str, times: int = 1, *, timeout: float = 5.0) -> None:
    """Wait until the child has been restarted at least so many times since it was first started, and runs."""

    def restarted() -> bool:
        found = child_of(host, child)
        return found is not None and found.restarts >= times and found.state == ChildState.RUNNING

    await until(host, restarted, timeout=timeout)


def child_of(host: Host, name: str) -> ChildSnapshot | None:
    """Return what the snapshot says of a child, or None."""
    return next((child for child in host.snapshot(limit=1_000_000).children if child.name == name), None)
