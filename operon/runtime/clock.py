"""The database's time, as this process knows it: deadlines are met by one clock, whatever the machines' own ones say.

Each look at the database brings its time along. From then on a monotonic clock counts, so a machine whose clock is off
by an hour, or set while it runs, changes nothing. `now()` is never ahead of the database: a sample counts as taken when
its answer arrived, so what is due here is due there, at most a round trip late.
"""

from __future__ import annotations

import time


class Clock:
    """Seconds since the epoch, by the database."""

    __slots__ = ("_at", "_database")

    def __init__(self) -> None:
        self._database = time.time()  # until the first sample
        self._at = time.monotonic()

    def sample(self, database: float) -> None:
        """The database has just answered that it is this late."""
        self._database = database
        self._at = time.monotonic()

    def now(self) -> float:
        """What the database's clock has passed by now."""
        return self._database + time.monotonic() - self._at

    def __repr__(self) -> str:
        return f"<Clock {self.now():.3f}>"
