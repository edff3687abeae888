"""What the branches of one live workflow wait for: messages, times, the ends and events of other workflows.

Such a wait is durable: it can be taken up again from the database, so a workflow all of whose branches wait so need not
be in memory. A wait is a doorbell: whoever rings says "look again", and the step that waits looks.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from enum import IntEnum
from uuid import UUID

from operon.database.mail import Park
from operon.errors import StopActor
from operon.runtime.timers import Timers


class WaitKind(IntEnum):
    """What a workflow waits for; the number is what the database holds of a parked one."""

    MESSAGE = 0
    EVENT = 1
    RESULT = 2
    TIME = 3
    CRASH = 4  # it crashed, and is run again when a pause is over


class Bell:
    """Somebody who waits until it rings; a ring that comes first is not lost. `value` may come along with it."""

    __slots__ = ("_future", "_rung", "key", "value")

    def __init__(self, key: str | None = None) -> None:
        self.key = key  # of the event that is waited for
        self.value: bytes | None = None
        self._rung = False
        self._future: asyncio.Future[None] | None = None

    def ring(self, value: bytes | None = None) -> None:
        """Look again."""
        self._rung = True
        if value is not None:
            self.value = value
        if self._future is not None and not self._future.done():
            self._future.set_result(None)

    async def rung(self) -> None:
        """Waits for the next ring."""
        if not self._rung:
            self._future = asyncio.get_running_loop().create_future()
            try:
                await self._future
            finally:
                self._future = None
        self._rung = False

    @property
    def unheard(self) -> bool:
        """Whether it rang, and whoever waits has not had his turn since."""
        return self._rung

    def stop(self, error: StopActor) -> None:
        """Ends the wait with an error."""
        if self._future is not None and not self._future.done():
            self._future.set_exception(error)


class Wait(Bell):
    """A durable wait of a workflow."""

    __slots__ = ("deadline", "kind", "since", "target", "topics", "what")

    def __init__(
        self,
        kind: WaitKind,
        what: str,
        deadline: float | None,
        *,
        topics: tuple[str | None, ...] = (),
        target: UUID | None = None,
        key: str | None = None,
    ) -> None:
        super().__init__(key)
        self.kind = kind
        self.what = what
        self.deadline = deadline  # in the database's clock
        self.since = time.monotonic()
        self.topics = topics
        self.target = target


class Waits:
    """The durable waits of one life of a workflow."""

    __slots__ = ("_on_change", "_stopped", "_timers", "_waiting")

    def __init__(self, timers: Timers, on_change: Callable[[], None]) -> None:
        self._timers = timers
        self._on_change = on_change  # one more, or one less
        self._waiting: list[Wait] = []
        self._stopped: StopActor | None = None

    async def pause(self, wait: Wait) -> None:
        """Waits until somebody rings or the deadline has passed. Raises StopActor when the workflow is taken down."""
        if self._stopped is not None:
            raise self._stopped
        timer = None if wait.deadline is None else self._timers.at(wait.deadline, wait.ring)
        self._waiting.append(wait)
        self._on_change()
        try:
            await wait.rung()
        finally:
            if timer is not None:
                timer.cancel()
            self._waiting.remove(wait)
            self._on_change()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def unheard(self) -> bool:
        """Whether one of them rang, and its branch has not had its turn since."""
        return any(wait.unheard for wait in self._waiting)

    @property
    def topics(self) -> set[str | None]:
        """The topics that are waited for."""
        return {topic for wait in self._waiting for topic in wait.topics}

    @property
    def oldest(self) -> Wait | None:
        """What is waited for longest."""
        return self._waiting[0] if self._waiting else None

    @property
    def kinds(self) -> set[WaitKind]:
        """The kinds of things that are waited for."""
        return {wait.kind for wait in self._waiting}

    @property
    def deadline(self) -> float | None:
        """When the first of them ends by itself."""
        return min((wait.deadline for wait in self._waiting if wait.deadline is not None), default=None)

    @property
    def what(self) -> str:
        """All of it, for people."""
        return "; ".join(dict.fromkeys(wait.what for wait in self._waiting))[:500]

    def rung_for(self, topic: str | None) -> None:
        """A message of a topic may be there."""
        for wait in self._waiting:
            if topic in wait.topics:
                wait.ring()

    def ring_all(self) -> None:
        """Anything may have happened."""
        for wait in self._waiting:
            wait.ring()

    def stop(self, error: StopActor) -> None:
        """Ends every wait, and refuses new ones."""
        self._stopped = error
        for wait in list(self._waiting):
            wait.stop(error)

    def park(self, workflow_uuid: UUID, no_later: float | None) -> Park:
        """All of it as the database keeps it."""
        ends = [end for end in (self.deadline, no_later) if end is not None]
        return Park(
            workflow_uuid,
            self._waiting[0].kind,
            self.what,
            sorted({topic or "" for wait in self._waiting for topic in wait.topics}),
            min(ends, default=None),
            sorted({(wait.target, wait.key or "") for wait in self._waiting if wait.target is not None}),
        )

    def __repr__(self) -> str:
        return f"<Waits for {self.what}>"
