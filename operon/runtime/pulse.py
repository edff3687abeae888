"""The pulse of an executor: measures how late the event loop is, notices when the lease is in doubt, and has the
executor say how it is, with each heartbeat.

The rule: it never holds up the work. It sleeps, reads memory, and leaves its portrait for the thread that renews the
lease; if that cannot send it, the next one is as good.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from operon.database.supervision import Commits, Said
from operon.masking import masked_logger
from operon.runtime.events import EventLog, Kind
from operon.runtime.portrait import encoded, portrait

if TYPE_CHECKING:
    from operon.runtime.executor import Executor

logger = masked_logger("operon.supervision")

SAMPLE_SECONDS = 0.25
SAMPLES = 240  # one minute


class LoopLag:
    """How late the event loop was, in the last minute."""

    def __init__(self) -> None:
        self._samples: deque[float] = deque(maxlen=SAMPLES)

    def add(self, seconds: float) -> None:
        """It was that late once more."""
        self._samples.append(max(0.0, seconds))

    @property
    def percentiles(self) -> tuple[float | None, float | None]:
        """Half of the time it was less late than the first, in milliseconds; 99 of 100 times than the second."""
        if not self._samples:
            return None, None
        ordered = sorted(self._samples)
        last = len(ordered) - 1
        return round(ordered[last // 2] * 1000, 2), round(ordered[round(last * 0.99)] * 1000, 2)


class Pulse:
    """Looks at one executor, as long as its process lives."""

    def __init__(self, executor: Executor, events: EventLog, publish_seconds: float) -> None:
        self._executor = executor
        self._events = events
        self._publish_seconds = publish_seconds
        self._doubtful: int | None = None  # the incarnation whose lease is in doubt
        self._counted = (0, 0, 0, 0.0)  # incarnation, flushes, records, seconds: at the last portrait
        self._commits = Commits(0, None, None)
        self.lag = LoopLag()
        self.published = 0

    async def run(self, started: Callable[[], None]) -> None:
        """Looks until cancelled."""
        started()
        loop = asyncio.get_running_loop()
        publish_at = loop.time()
        while True:
            due = loop.time() + SAMPLE_SECONDS
            await asyncio.sleep(SAMPLE_SECONDS)
            self.lag.add(loop.time() - due)
            if not self._executor.running:
                continue
            self._look_at_the_lease()
            if loop.time() >= publish_at:
                publish_at = loop.time() + self._publish_seconds
                self.publish()

    def publish(self) -> None:
        """Leaves a portrait for the next renewal of the lease."""
        try:
            self._count_commits()
            self._executor.incarnation.lease.snapshot = encoded(self.portrait())
            self.published += 1
        except Exception:  # what operators see is worth no crash
            logger.exception("this executor cannot say how it is")

    def portrait(self) -> Said:
        """How the executor is now."""
        return portrait(self._executor, self, self._commits)

    def _count_commits(self) -> None:
        incarnation = self._executor.incarnation
        committer = incarnation.committer
        now = (incarnation.number, committer.flushes, committer.flushed, committer.flush_seconds)
        before = self._counted if self._counted[0] == incarnation.number else (incarnation.number, 0, 0, 0.0)
        self._counted = now
        batches = now[1] - before[1]
        if batches:
            records, seconds = (now[2] - before[2]) / batches, (now[3] - before[3]) / batches
            self._commits = Commits(batches, round(records, 2), round(seconds * 1000, 3))
        else:
            self._commits = Commits(0, None, None)

    def _look_at_the_lease(self) -> None:
        incarnation = self._executor.incarnation
        number, lease = incarnation.number, incarnation.lease
        if lease.fenced:
            return
        if not lease.trusted and self._doubtful != number:
            self._doubtful = number
            text = f"executor {number} has not renewed its lease for {lease.age:.1f} s: the database is out of reach"
            self._events.record(Kind.LEASE_LOST, text, path=("operon", f"executor-{number}"), executor=number)
        elif lease.trusted and self._doubtful == number:
            self._doubtful = None
            text = f"executor {number} has its lease again"
            self._events.record(Kind.LEASE_BACK, text, path=("operon", f"executor-{number}"), executor=number)

    def __repr__(self) -> str:
        return f"<Pulse: {self.published} portraits, loop late by {self.lag.percentiles[1]} ms>"
