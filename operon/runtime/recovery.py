"""Finds executors that are gone, so that what they ran can be claimed.

One look a second. Nothing is ever taken from a living executor, however many processes start beside it:

    expired    its lease ran out, and this executor's own renewals have gone through for a whole lease; after an outage
               of the database everybody's lease has run out, and nobody may conclude anything
    gone       its session lock was free at two looks, as far apart as it asked for, and its lease was not renewed
               between them; this is what `kill -9` looks like, within a second or two. A restart of the server frees
               every lock: locks from before it say nothing, and neither does an executor that itself has lost the
               database of late
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from operon.database import executors, notifications, supervision
from operon.database.connection import Connection, is_weather
from operon.database.executors import Other
from operon.database.lease import GRACE_SECONDS
from operon.masking import masked_logger
from operon.runtime.events import Kind

if TYPE_CHECKING:
    from operon.runtime.incarnation import Incarnation

logger = masked_logger("operon.recovery")

SWEEP_SECONDS = 3_600.0
SHORTEST_GRACE_SECONDS = 0.3  # a busy process looks at its session lock now and then


@dataclass(frozen=True, slots=True)
class Suspect:
    """An executor whose session lock was free at an earlier look."""

    lease_until: datetime
    decided: float  # when it is gone, if its lock is still free


def grace_seconds(poll_seconds: float) -> float:
    """How long the session lock of an executor with such a poll has to be free before its process is gone."""
    return max(SHORTEST_GRACE_SECONDS, GRACE_SECONDS * min(1.0, poll_seconds))


def verdicts(
    others: Sequence[Other], suspects: dict[int, Suspect], now: float, *, seasoned: bool, steady: bool
) -> tuple[list[Other], dict[int, Suspect]]:
    """Who is dead, and who is suspected from now on. Pure: `now` is a monotonic time."""
    dead: list[Other] = []
    suspected: dict[int, Suspect] = {}
    for other in others:
        if other.expired and seasoned:
            dead.append(other)
        elif other.gone and steady:
            earlier = suspects.get(other.incarnation)
            if earlier is None or earlier.lease_until != other.lease_until:
                suspected[other.incarnation] = Suspect(other.lease_until, now + other.grace_seconds)
            elif now >= earlier.decided:
                dead.append(other)
            else:
                suspected[other.incarnation] = earlier
    return dead, suspected


class Recovery:
    """Finds executors that are gone, and leaves their work to whoever claims it."""

    def __init__(self, incarnation: Incarnation, poll_seconds: float) -> None:
        self._incarnation = incarnation
        self._poll_seconds = poll_seconds
        self._suspects: dict[int, Suspect] = {}
        self._swept_at = time.monotonic()

    async def run(self, started: Callable[[], None]) -> None:
        """Looks until cancelled."""
        started()
        while True:
            pause = self._poll_seconds * random.uniform(0.9, 1.1)  # noqa: S311
            try:
                if self._incarnation.lease.trusted:
                    async with self._incarnation.look_ups.connection() as connection:
                        await self._bury(connection)
                        await self._sweep(connection)
                    decided = min((suspect.decided for suspect in self._suspects.values()), default=math.inf)
                    pause = max(0.0, min(pause, decided - time.monotonic()))
            except Exception as error:
                if not is_weather(error):
                    raise
                self._incarnation.lease.shaken()
                logger.warning("no look for the dead: %s", error)
            await asyncio.sleep(pause)

    async def _bury(self, connection: Connection) -> None:
        """Declares dead whoever is."""
        lease = self._incarnation.lease
        others = await executors.others(connection, self._incarnation.number)
        dead, self._suspects = verdicts(
            others,
            self._suspects,
            time.monotonic(),
            seasoned=lease.seasoned,
            steady=lease.steady,
        )
        for other in dead:
            if await executors.declare_dead(connection, other.incarnation, other.lease_until):
                logger.warning("executor %d is dead; its workflows are taken over", other.incarnation)
                await self._tell(connection, other)
        if dead:
            self._incarnation.activator.ring()

    async def _tell(self, connection: Connection, dead: Other) -> None:
        """Tells operators who is dead, why, and how many workflows go on elsewhere."""
        record, number = self._incarnation.record, dead.incarnation
        why = "its lease ran out" if dead.expired else "its process is gone"
        record(Kind.DECLARED_DEAD, f"executor {number} was declared dead: {why}", "recovery", dead=number, why=why)
        if left := await supervision.left_by(connection, number):
            text = f"{left} workflows of executor {number} are taken over"
            record(Kind.TAKEN_OVER, text, "recovery", dead=number, workflows=left)

    async def _sweep(self, connection: Connection) -> None:
        """Now and then: executors that are long gone, and messages that nobody will receive."""
        if time.monotonic() - self._swept_at > SWEEP_SECONDS:
            self._swept_at = time.monotonic()
            await executors.forget(connection)
            await supervision.sweep(connection)
            while await notifications.bury(connection):
                pass
