"""Finds work whose executor is gone, and takes it over.

Each look, once a second and whenever somebody rings: which executors are gone, what is there to claim, as much of it as
there is room for. Nothing is ever taken from a living executor, however many processes start beside it:

    expired    its lease ran out, and this executor's own renewals have gone through for a whole lease; after an outage
               of the database everybody's lease has run out, and nobody may conclude anything
    gone       its session lock was free at two looks, and its lease was not renewed between them; this is what
               `kill -9` looks like, within a second or two. A restart of the server frees every lock: locks from
               before it say nothing, and neither does an executor that itself has lost the database of late

Workflows whose name this application does not know are not even candidates: they stay until an executor with the code
comes, and cost no budget.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from operon.database import checkpoints, executors, workflows
from operon.database.connection import Connection, is_weather
from operon.database.executors import Other
from operon.operations import Operation
from operon.runtime.callers import caller_of
from operon.runtime.workflow_actor import WorkflowActor

if TYPE_CHECKING:
    from operon.runtime.incarnation import Incarnation

logger = logging.getLogger("operon.recovery")

CLAIM_MAX = 1_000
FORGET_SECONDS = 3_600.0
GONE_LOOKS_APART = 0.6  # of the poll interval: two looks closer together count as one


@dataclass(frozen=True, slots=True)
class Suspect:
    """An executor whose session lock was free at an earlier look."""

    lease_until: datetime
    since: float


def verdicts(
    others: Sequence[Other], suspects: dict[int, Suspect], now: float, apart: float, *, seasoned: bool, steady: bool
) -> tuple[list[Other], dict[int, Suspect]]:
    """Who is dead, and who is suspected from now on. Pure: `now` is a monotonic time, `apart` seconds."""
    dead: list[Other] = []
    suspected: dict[int, Suspect] = {}
    for other in others:
        if other.expired and seasoned:
            dead.append(other)
        elif other.gone and steady:
            earlier = suspects.get(other.incarnation)
            if earlier is None or earlier.lease_until != other.lease_until:
                suspected[other.incarnation] = Suspect(other.lease_until, now)
            elif now - earlier.since >= apart:
                dead.append(other)
            else:
                suspected[other.incarnation] = earlier
    return dead, suspected


class Recovery:
    """Looks for work without an owner, and activates it here."""

    def __init__(self, incarnation: Incarnation, poll_seconds: float, max_live: int) -> None:
        self._incarnation = incarnation
        self._poll_seconds = poll_seconds
        self._max_live = max_live
        self._rung = asyncio.Event()
        self._suspects: dict[int, Suspect] = {}
        self._names = [operation.name for operation in incarnation.catalog.operations.values()]
        self._forgotten_at = time.monotonic()

    def ring(self) -> None:
        """There may be something to claim: look now."""
        self._rung.set()

    async def run(self, started: Callable[[], None]) -> None:
        """Looks until cancelled."""
        started()
        while True:
            self._rung.clear()
            try:
                await self._look()
            except Exception as error:
                if not is_weather(error):
                    raise
                self._incarnation.lease.shaken()
                logger.warning("no look for work: %s", error)
            pause = self._poll_seconds * random.uniform(0.9, 1.1)  # noqa: S311
            if self._suspects:
                pause *= GONE_LOOKS_APART * 1.2
            try:
                await asyncio.wait_for(self._rung.wait(), pause)
            except TimeoutError:
                continue

    async def _look(self) -> None:
        incarnation = self._incarnation
        if not incarnation.lease.trusted:
            return
        async with incarnation.look_ups.connection() as connection:
            await self._bury(connection)
            while self._names and await self._claim(connection):
                pass
            if time.monotonic() - self._forgotten_at > FORGET_SECONDS:
                self._forgotten_at = time.monotonic()
                await executors.forget(connection)
        await incarnation.results.poll()

    async def _bury(self, connection: Connection) -> None:
        """Declares dead whoever is."""
        lease = self._incarnation.lease
        others = await executors.others(connection, self._incarnation.number)
        dead, self._suspects = verdicts(
            others,
            self._suspects,
            time.monotonic(),
            self._poll_seconds * GONE_LOOKS_APART,
            seasoned=lease.seasoned,
            steady=lease.steady,
        )
        for other in dead:
            if await executors.declare_dead(connection, other.incarnation, other.lease_until):
                logger.warning("executor %d is dead; its workflows are taken over", other.incarnation)

    async def _claim(self, connection: Connection) -> bool:
        """Takes over one batch; True if there may be more."""
        incarnation = self._incarnation
        room = min(CLAIM_MAX, self._max_live - len(incarnation.live))
        if room <= 0 or incarnation.draining or not incarnation.lease.trusted:
            return False
        candidates = await workflows.claimable(connection, self._names, room)
        if not candidates:
            return False
        claimed = await workflows.claim(connection, incarnation.number, candidates)
        history = await checkpoints.history(connection, [workflow.workflow_uuid for workflow in claimed])
        for workflow in claimed:
            operation: Operation[..., object] = incarnation.catalog.operations[workflow.name]
            incarnation.spawn(
                WorkflowActor(
                    incarnation,
                    operation,
                    workflow.workflow_uuid,
                    caller_of(workflow),
                    workflow.inputs,
                    workflow.epoch,
                    history.get(workflow.workflow_uuid, []),
                )
            )
        incarnation.recovered += len(claimed)
        await asyncio.sleep(0)
        return len(candidates) == room
