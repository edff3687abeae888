"""Suspends names: when many workflows of one name crash, no more of that name are brought to life, on any executor.

The rule: nobody is killed for it. What lives goes on, what is started is recorded and waits, what is parked stays
parked. After a pause one of those that wait is tried, the canary, one for all executors. If it ends, or gets past the
place where the others crashed, all go on; if it crashes, the next one is tried after twice the pause.

What is suspended is in the database. An executor knows it from its last look for work, which rings when something
changes, so that a start costs no question; a name may be taken for open for as long as that takes.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

from operon.database import suspensions
from operon.database.connection import Connection
from operon.database.workflows import Candidate, Claimed, Found
from operon.explain.words import some
from operon.runtime.events import Kind
from operon.status import Status

if TYPE_CHECKING:
    from operon.runtime.incarnation import Incarnation
    from operon.runtime.workflow_actor import WorkflowActor

PASSED = (Status.SUCCESS, Status.ERROR)


class Canary:
    """The workflow of a suspended name that is tried here."""

    __slots__ = ("actor", "fell", "step", "workflow_uuid")

    def __init__(self, workflow_uuid: UUID, step: int) -> None:
        self.workflow_uuid = workflow_uuid
        self.step = step  # how far the others were that crashed
        self.actor: WorkflowActor | None = None
        self.fell = False  # it has crashed, wherever that was

    @property
    def passed(self) -> bool:
        """Whether it has ended, or got further than those that crashed."""
        actor = self.actor
        if actor is None or self.fell:
            return False
        if actor.ended is not None:
            return actor.ended.status in PASSED
        # Only what is durable counts: it may have crashed in the turn of the loop in which it recorded that.
        journal = actor.journal
        if journal is None or not journal.grown or journal.pending:
            return False
        return journal.called - journal.outstanding > self.step


class Suspensions:
    """The suspended names, as one incarnation of an executor knows them, and its canaries."""

    def __init__(self, incarnation: Incarnation, many: int) -> None:
        """`many`: how many workflows of one name crash within the window before it is suspended; 0 for never."""
        self._incarnation = incarnation
        self.many = many
        self.crashing: dict[str, tuple[int, float]] = {}  # how many had, within the window, when one last crashed here
        self.until: Mapping[str, float | None] = {}  # by name: when one is tried
        self.canaries: dict[str, Canary] = {}

    # ------------------------------------------------------------------ who may live

    def holds(self, name: str) -> bool:
        """Whether what is started under a name has to wait."""
        return name in self.until

    def admits(self, workflow: Claimed) -> bool:
        """Whether a parked workflow may be brought back."""
        return workflow.name not in self.until or self._is_canary(workflow.name, workflow.workflow_uuid)

    def open(self, names: list[str]) -> list[str]:
        """Those of these names of which something may be brought to life, if only one to try."""
        if not self.until:
            return names
        now = self._incarnation.clock.now()
        return [name for name in names if name not in self.until or has_come(self.until[name], now)]

    async def let_through(self, connection: Connection, found: Found, *, room: bool) -> Sequence[Candidate]:
        """Those of the candidates that may live: all, but of a suspended name one at most, when it is time to try."""
        self.until = suspended = found.suspended
        if not suspended:
            return found.candidates
        admitted = [each for each in found.candidates if each.name not in suspended]
        held = [each for each in found.candidates if each.name in suspended and (each.wake_at or 0.0) <= found.now]
        for name, until in suspended.items():
            ready = [each for each in held if each.name == name and each.workflow_uuid not in self._incarnation.live]
            if not room or not ready or not has_come(until, found.now):
                continue
            trial = await suspensions.try_one(connection, name)
            if trial is not None:
                # By lot: where most are healthy, it is likely one of those.
                candidate = random.choice(ready)  # noqa: S311
                self.canaries[name] = Canary(candidate.workflow_uuid, trial.step)
                self.until = {**self.until, name: trial.until}
                admitted.append(candidate)
        return admitted

    def lives(self, actor: WorkflowActor) -> None:
        """A workflow was brought to life."""
        if self.canaries and self._is_canary(actor.operation.name, actor.workflow_uuid):
            self.canaries[actor.operation.name].actor = actor

    def fell(self, actor: WorkflowActor) -> None:
        """A workflow has just crashed; its row does not say so yet."""
        if self.canaries and self._is_canary(actor.operation.name, actor.workflow_uuid):
            self.canaries[actor.operation.name].fell = True

    def _is_canary(self, name: str, workflow_uuid: UUID) -> bool:
        canary = self.canaries.get(name)
        return canary is not None and canary.workflow_uuid == workflow_uuid

    # ------------------------------------------------------------------ crashes, and the end of it

    async def crashed(self, name: str, workflow_uuid: UUID) -> None:
        """A workflow crashed, which its row says already: it may be one too many."""
        incarnation = self._incarnation
        if self.many:
            count, until = await incarnation.look_ups.ask(
                lambda connection: suspensions.count_crash(connection, workflow_uuid, self.many)
            )
            self.crashing[name] = count, time.monotonic()
            if until is not None:
                self.until = {**self.until, name: until}
                crashed = f"{some(count, 'workflow')} crashed within {suspensions.WINDOW_SECONDS:g} s"
                self._record(Kind.SUSPENDED, name, f"{name} is suspended: {crashed}", crashes=count)
        if self._is_canary(name, workflow_uuid):
            del self.canaries[name]
            text = f"{name} stays suspended: {workflow_uuid}, which was tried, crashed too"
            self._record(Kind.SUSPENDED, name, text, canary=str(workflow_uuid))

    def crashes(self, name: str) -> int:
        """How many workflows of a name have crashed of late, on all executors, as far as is known here."""
        count, at = self.crashing.get(name, (0, 0.0))
        return count if time.monotonic() - at < suspensions.WINDOW_SECONDS else 0

    async def judge(self, connection: Connection) -> None:
        """Lets the names go on whose canary has passed. One that has left without a verdict is followed by another."""
        for name, canary in list(self.canaries.items()):
            if canary.passed:
                del self.canaries[name]
                self.until = {each: until for each, until in self.until.items() if each != name}
                if await suspensions.lift(connection, name):
                    text = f"{name} goes on: {canary.workflow_uuid}, which was tried, did not crash"
                    self._record(Kind.LIFTED, name, text, canary=str(canary.workflow_uuid))
            elif name not in self.until:  # somebody has lifted it
                del self.canaries[name]

    def _record(self, kind: Kind, name: str, text: str, **data: Any) -> None:
        self._incarnation.record(kind, text, "workflows", name, name=name, **data)

    def __repr__(self) -> str:
        return f"<Suspensions: {', '.join(self.until) or 'none'}>"


def has_come(until: float | None, now: float) -> bool:
    """Whether it is time to try one; without a time it never is."""
    return until is not None and until <= now
