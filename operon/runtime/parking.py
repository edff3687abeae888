"""Takes workflows that only wait out of memory. What is left is a row that says what they wait for.

A workflow is parked when all its branches have waited durably for a while; at once when it sleeps for long, and when
there is little room left. The record goes through the committer like any other, after everything else of its workflow,
and the database answers whether it holds: what the workflow waits for may have come meanwhile. Only then the coroutine
is evicted; if it has gone on by itself before the answer came, it says so with its next record and stays.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from operon.database.mail import Park
from operon.errors import Evicted, StopActor
from operon.runtime.waits import WaitKind
from operon.runtime.workflow_actor import WorkflowActor

if TYPE_CHECKING:
    from operon.runtime.incarnation import Incarnation

SWEEP_MAX = 1_000  # workflows that are parked in one turn of the loop
SWEEP_SECONDS = 1.0
SUSPICIOUS = 2  # crashes in a row: its process may die of it, or of somebody that it waits for
PRESSURE = 0.5  # of max_live: with more than that in memory, whoever waits is parked at once, as under a full name


@dataclass(frozen=True, slots=True)
class Counts:
    """How many workflows are where, at one moment. Costs nothing to ask."""

    live: int  # in memory
    waiting: int  # ... of which all that is known to wait, and may be parked
    parked: int  # left memory since this incarnation began
    woken: int  # have to come back, and wait for room or for the next turn


class Parker:
    """The workflows of an incarnation that wait, those that wait longest first."""

    def __init__(self, incarnation: Incarnation, after_seconds: float, max_live: int) -> None:
        self._incarnation = incarnation
        self._after = after_seconds
        self._room = max_live * PRESSURE
        self._waiting: dict[WorkflowActor, float] = {}  # since when, in the loop's time
        self._soon: asyncio.Handle | None = None
        self._refused: set[WorkflowActor] = set()  # since the last sweep: tried again by the next one, and not before
        self.parked = 0  # how many were, since the start
        self.returned = 0  # ... and how many of them came back

    @property
    def waiting(self) -> list[WorkflowActor]:
        """The live workflows that wait."""
        return list(self._waiting)

    def each_waiting(self) -> Iterator[WorkflowActor]:
        """The live workflows that wait, those that wait longest first, for as long as nothing changes."""
        return iter(self._waiting)

    @property
    def counts(self) -> Counts:
        """How many live, wait, were parked and come back."""
        incarnation = self._incarnation
        return Counts(len(incarnation.live), len(self._waiting), self.parked, incarnation.activator.to_come)

    async def run(self, started: Callable[[], None]) -> None:
        """Sweeps until cancelled."""
        started()
        pause = min(SWEEP_SECONDS, max(self._after, 0.05))
        while True:
            await asyncio.sleep(pause)
            self._refused.clear()
            self._sweep()

    def changed(self, actor: WorkflowActor) -> None:
        """A workflow waits for one thing more, or less."""
        if actor.waits is None or not len(actor.waits):
            self._waiting.pop(actor, None)
            return
        if actor not in self._waiting:
            self._waiting[actor] = asyncio.get_running_loop().time()
        if self._soon is None and actor not in self._refused and (self._at_once(actor) or self._pressed(actor)):
            # Two turns later: then the workflow has called whatever else it calls now.
            loop = asyncio.get_running_loop()
            self._soon = loop.call_soon(lambda: setattr(self, "_soon", loop.call_soon(self._sweep_soon)))

    def _pressed(self, actor: WorkflowActor) -> bool:
        incarnation = self._incarnation
        return self._after == 0 or len(incarnation.live) > self._room or incarnation.crowds.full(actor.operation.name)

    def is_long(self, seconds: float) -> bool:
        """Whether nothing is gained by keeping who waits for that long in memory."""
        return seconds > self._after

    def _at_once(self, actor: WorkflowActor) -> bool:
        """Whether nothing is gained by keeping it: it sleeps for long, or may be blamed for what it only waits for."""
        waits = actor.waits
        if waits is None:
            return False
        if waits.kinds != {WaitKind.TIME}:
            return actor.crashes_here >= SUSPICIOUS
        wake_at = waits.deadline
        return wake_at is not None and self.is_long(wake_at - self._incarnation.clock.now())

    def _sweep_soon(self) -> None:
        self._soon = None
        self._sweep()

    def _sweep(self) -> None:
        now = asyncio.get_running_loop().time()
        done = 0
        for actor, since in list(islice(self._waiting.items(), 2 * SWEEP_MAX)):
            late = now - since >= self._after or self._pressed(actor)
            if actor in self._refused or (not late and not self._at_once(actor)):
                continue
            if actor.idle:
                self._park(actor)
                done += 1
            else:  # it does something else besides; it goes to the end of the line
                del self._waiting[actor]
                self._waiting[actor] = now
            if done >= SWEEP_MAX:
                self._soon = self._soon or asyncio.get_running_loop().call_soon(self._sweep_soon)
                return

    def _park(self, actor: WorkflowActor) -> None:
        del self._waiting[actor]
        journal, waits = actor.journal, actor.waits
        if journal is None or waits is None or journal.parking is not None or self._incarnation.draining:
            return
        park = waits.park(actor.workflow_uuid, actor.deadline)
        try:
            self._incarnation.committer.park(park, actor.begun)
        except StopActor:
            return
        journal.parked, journal.parking = True, park

    def answered(self, park: Park) -> None:
        """The database has said whether a workflow may leave."""
        actor = self._incarnation.live.get(park.workflow_uuid)
        journal = None if actor is None else actor.journal
        if actor is None or journal is None or journal.parking is not park:
            return  # it has gone on
        journal.parking = None
        if park.parked and actor.idle:
            self.parked += 1
            if park.wake_at is not None:
                self._incarnation.activator.expect(park.workflow_uuid, park.wake_at)
            actor.halt(Evicted("parked"))
        else:
            if park.parked is False:
                # An earlier park of this life may still stand, so its next record says that it goes on, all the same.
                self._refused.add(actor)
            actor.ring()

    @property
    def away(self) -> int:
        """How many are parked now."""
        return self.parked - self.returned

    def __repr__(self) -> str:
        return f"<Parker: {len(self._waiting)} wait, {self.parked} were parked>"
