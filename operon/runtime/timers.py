"""One queue for every deadline of this process: a heap, and a single timer of the event loop for its head.

A deadline is absolute, in the database's clock. Nothing is called before it, also when the database's clock was set
back meanwhile: what comes up too early is put off again.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from itertools import count

from operon.runtime.clock import Clock

# The loop's timers are good to a millisecond; asking again sooner would only spin.
SOONEST_SECONDS = 0.001
# While nobody looks at the database's clock, and so arms again, the heap is looked at so often.
LONGEST_SECONDS = 60.0


class Timer:
    """A callback with a deadline. Cancelled, it stays in the heap until it comes up, or the heap is mostly such."""

    __slots__ = ("_timers", "callback", "deadline")

    def __init__(self, timers: Timers, deadline: float, callback: Callable[[], object]) -> None:
        self._timers = timers
        self.deadline = deadline
        self.callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        """Takes it back."""
        if self.callback is not None:
            self.callback = None
            self._timers.cancelled()


class Timers:
    """The deadlines of everything that lives in this process."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._heap: list[tuple[float, int, Timer]] = []
        self._order = count()
        self._cancelled = 0
        self._handle: asyncio.TimerHandle | None = None
        self._armed_for = 0.0

    def at(self, deadline: float, callback: Callable[[], object]) -> Timer:
        """Calls back once the database's clock has passed the deadline."""
        timer = Timer(self, deadline, callback)
        heapq.heappush(self._heap, (deadline, next(self._order), timer))
        if self._handle is None or deadline < self._armed_for:
            self.arm()
        return timer

    def cancelled(self) -> None:
        """Another one of the heap is not needed any more."""
        self._cancelled += 1
        if self._cancelled > 64 and self._cancelled * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[2].callback is not None]
            heapq.heapify(self._heap)
            self._cancelled = 0

    def look(self) -> None:
        """The clock was moved: calls back at once what is due by now."""
        if self._handle is not None:
            self._handle.cancel()
        self._fire()

    def after(self, moment: float) -> float | None:
        """The first deadline after a moment."""
        deadlines = (deadline for deadline, _, timer in self._heap if timer.callback is not None and deadline > moment)
        return min(deadlines, default=None)

    def close(self) -> None:
        """Nothing is called any more."""
        self._heap.clear()
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def arm(self) -> None:
        """Sets the loop's timer for the head of the heap. To be called when the clock was looked at: it may be set."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        if self._heap:
            self._armed_for = self._heap[0][0]
            pause = min(max(self._armed_for - self._clock.now(), SOONEST_SECONDS), LONGEST_SECONDS)
            self._handle = asyncio.get_running_loop().call_later(pause, self._fire)

    def _fire(self) -> None:
        self._handle = None
        now = self._clock.now()
        while self._heap and self._heap[0][0] <= now:
            timer = heapq.heappop(self._heap)[2]
            callback, timer.callback = timer.callback, None
            if callback is None:
                self._cancelled -= 1
            else:
                callback()
        if self._handle is None:
            self.arm()

    def __len__(self) -> int:
        return len(self._heap) - self._cancelled

    def __repr__(self) -> str:
        return f"<Timers: {len(self)} to come>"
