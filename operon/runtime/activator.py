"""Brings workflows to life: what nobody runs any more is claimed, what is parked here is brought back.

Each look, once per poll interval and whenever somebody rings, is one query: work that nobody alive owns, and parked
workflows that have got what they waited for or soon will have. A ring that names workflows of this executor's own needs
no look, and puts none off. Whatever was rung for and not heard is found by the next look, so a lost notification costs
one interval.

Nothing is taken from a living executor. Parked workflows stay with theirs, which brings them back without a write; when
it is gone, whoever finds them claims them. As many come to life as there is room for, and no more.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable, Mapping
from itertools import filterfalse, islice
from typing import TYPE_CHECKING
from uuid import UUID

from operon.database import checkpoints, notifications, workflows
from operon.database.connection import Connection, is_weather
from operon.database.mail import Letter
from operon.masking import masked_logger
from operon.operations import Operation
from operon.runtime.callers import caller_of
from operon.runtime.crowds import Places
from operon.runtime.mailbox import LOOK_MAX, Mailbox, Message
from operon.runtime.overdue import Overdue
from operon.runtime.strays import Strays
from operon.runtime.timers import Timer
from operon.runtime.workflow_actor import WorkflowActor

if TYPE_CHECKING:
    from operon.database.workflows import Candidate, Claimed
    from operon.runtime.incarnation import Incarnation

logger = masked_logger("operon.recovery")

CLAIM_MAX = 1_000
LETTERS_MAX = 10_000  # messages that are kept for those who stand in line; of everybody else there only the UUID is
SPARE = 10  # candidates beyond those that there can be room for: who is just leaving is found, too
ALONE = 2  # deaths of its process, after which a workflow is run beside no other suspect, so that the next was its own


class Activator:
    """Looks for workflows to bring to life, in one incarnation of an executor."""

    def __init__(self, incarnation: Incarnation, poll_seconds: float, max_live: int) -> None:
        self._incarnation = incarnation
        self._poll_seconds = poll_seconds
        self._max_live = max_live
        self._rung = asyncio.Event()
        self._look_wanted = True
        self._put_off()
        self._roomy: set[str] = set()  # names under which there may be room again for what was held back
        # Parked workflows of ours to bring back, in order, each with its message if that is all its mailbox has.
        self._woken: dict[UUID, Letter | None] = {}
        self._expected: dict[UUID, Timer] = {}  # ... and those whose time comes soon
        self._names = [operation.name for operation in incarnation.catalog.operations.values()]
        self._complaint = ""
        self._working = False
        self._on_trial: WorkflowActor | None = None
        self._overdue = Overdue(incarnation.results)
        self._strays = Strays(incarnation)
        self.activated = 0

    def ring(self) -> None:
        """There may be something to claim: look now."""
        self._look_wanted = True
        self._rung.set()

    @property
    def busy(self) -> bool:
        """Whether it looks or is about to, or has workflows to bring back."""
        return self._working or self._look_wanted or bool(self._woken) or bool(self._roomy)

    def wake(self, workflow_uuid: UUID, letter: Letter | None = None) -> None:
        """A workflow of ours may have got what it waits for: a live one looks, a parked one is brought back.

        letter: a message that is all there is in its mailbox, so that nobody need look there.
        """
        actor = self._incarnation.live.get(workflow_uuid)
        if actor is not None:
            actor.ring()
        else:
            first = workflow_uuid not in self._woken and len(self._woken) < LETTERS_MAX
            self._woken[workflow_uuid] = letter if first else None
            self._rung.set()

    def expect(self, workflow_uuid: UUID, wake_at: float) -> None:
        """A parked workflow of ours is woken at a time; times far off are found by the look that is near them."""
        if wake_at - self._incarnation.clock.now() > 2 * self._ahead_seconds:
            return
        known = self._expected.get(workflow_uuid)
        if known is not None:
            if known.deadline <= wake_at:
                return
            known.cancel()
        self._expected[workflow_uuid] = self._incarnation.timers.at(wake_at, lambda: self._due(workflow_uuid))

    @property
    def to_come(self) -> int:
        """How many parked workflows are to be brought back."""
        return len(self._woken)

    def freed(self) -> None:
        """There is room for one more."""
        if self._woken or self._roomy:
            self._rung.set()

    def fill(self, name: str) -> None:
        """There is room under a name, of which something was held back: look for that now."""
        self._roomy.add(name)
        self._rung.set()

    def _due(self, workflow_uuid: UUID) -> None:
        del self._expected[workflow_uuid]
        actor = self._incarnation.live.get(workflow_uuid)
        if actor is None or actor.leaving:
            self.wake(workflow_uuid)

    @property
    def _ahead_seconds(self) -> float:
        return 2 * self._poll_seconds

    async def run(self, started: Callable[[], None]) -> None:
        """Looks until cancelled."""
        started()
        while True:
            self._rung.clear()
            self._working = True
            try:
                await self._work()
            except BaseException as error:
                self._strays.doubt()  # it may have claimed something whose answer nobody has read
                if not is_weather(error):
                    raise
                self._incarnation.lease.shaken()
                self._look_wanted = True
                self._put_off()
                self._complain(f"{type(error).__name__}: {error}")
            self._working = False
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, self._pause)):
                    await self._rung.wait()

    @property
    def _pause(self) -> float:
        """Seconds until the next look: fewer while notifications are not heard."""
        incarnation = self._incarnation
        waiting = bool(incarnation.results.awaited or incarnation.parker.waiting or incarnation.parker.parked)
        apart = incarnation.notifier.poll_seconds(self._poll_seconds, waiting=waiting)
        return self._looked_at + apart * self._jitter - time.monotonic()

    def _put_off(self) -> None:
        """The next look is a pause from now, unless somebody rings. Executors do not look all at once."""
        self._looked_at, self._jitter = time.monotonic(), random.uniform(0.9, 1.1)  # noqa: S311

    def _complain(self, complaint: str) -> None:
        """Once for each reason: while a server is away, the same would be said ten times a second."""
        level = logging.DEBUG if complaint == self._complaint else logging.WARNING
        logger.log(level, "no look for work: %s", complaint)
        self._complaint = complaint

    async def _work(self) -> None:
        incarnation = self._incarnation
        if not incarnation.lease.trusted or not self._names:
            self._put_off()
            return
        async with incarnation.look_ups.connection() as connection:
            await self._bring_back(connection)
            if self._look_wanted or self._pause <= 0:
                self._look_wanted = False
                self._put_off()
                while await self._look(connection, self._names, CLAIM_MAX):
                    pass
                await self._strays.look(connection)
                await self._bring_back(connection)
                await self._poll(connection)
            if self._roomy and self._room:
                await self._fill(connection)
                await self._bring_back(connection)
            await self._incarnation.suspensions.judge(connection)

    @property
    def _room(self) -> int:
        incarnation = self._incarnation
        if incarnation.draining or not incarnation.lease.trusted:
            return 0
        return max(0, min(CLAIM_MAX, self._max_live - len(incarnation.live)))

    async def _bring_back(self, connection: Connection) -> None:
        """Brings back parked workflows of ours, as many as there is room for, until it is time to look."""
        incarnation = self._incarnation
        while self._woken and (room := self._room) and self._pause > 0:
            batch = dict(islice(self._woken.items(), room))
            for workflow_uuid in batch:
                del self._woken[workflow_uuid]
            try:
                with Places(incarnation.crowds) as places:
                    settled = list(filterfalse(incarnation.is_between, batch))
                    loaded = await workflows.load(connection, incarnation.number, settled, self._names)
                    # Who is not admitted is found by a later look: what it waited for is in the database.
                    admitted = [
                        each for each in loaded if incarnation.suspensions.admits(each) and places.take(each.name)
                    ]
                    await self._activate(connection, admitted, places, batch)
                incarnation.parker.returned += len(admitted)
            except BaseException:
                self._woken = {**dict.fromkeys(batch), **self._woken}
                raise

    async def _fill(self, connection: Connection) -> None:
        """Looks for what was held back, of the names that have room again."""
        crowds = self._incarnation.crowds
        names, self._roomy = self._incarnation.suspensions.open(crowds.open(list(self._roomy))), set()
        few = SPARE
        for name in names:
            allowed = crowds.by_name[name].allowed
            few += CLAIM_MAX if allowed is None else 2 * allowed  # those that live are found, too
        crowds.wanted.difference_update(names)  # the look says whether there is more
        if names:
            await self._look(connection, names, few)

    async def _look(self, connection: Connection, names: list[str], most: int) -> bool:
        """Finds work of these names, claims what is nobody's; True if there may be more."""
        incarnation = self._incarnation
        with Places(incarnation.crowds) as places:
            return await self._look_for(connection, names, most, places)

    async def _look_for(self, connection: Connection, names: list[str], most: int, places: Places) -> bool:
        incarnation = self._incarnation
        room = min(self._room, most)
        suspensions = incarnation.suspensions
        found = await workflows.candidates(
            connection,
            incarnation.number,
            incarnation.crowds.open(suspensions.open(names)),
            max(room, 1),
            self._ahead_seconds,
            suspects=not self._trying,
        )
        now = found.now
        incarnation.clock.sample(now)
        incarnation.timers.arm()
        if found.revoked:
            incarnation.committer.look()
        await self._overdue.judge(connection, found.overdue)
        orphans: list[Candidate] = []
        suspects: list[Candidate] = []
        for candidate in await suspensions.let_through(connection, found, room=bool(room)):
            if candidate.wake_at is not None and candidate.wake_at > now:
                if candidate.mine:
                    self.expect(candidate.workflow_uuid, candidate.wake_at)
            elif candidate.mine:
                actor = incarnation.live.get(candidate.workflow_uuid)
                if actor is not None:
                    if candidate.wake_at is None:
                        actor.ring()
                elif candidate.workflow_uuid in self._woken or incarnation.is_between(candidate.workflow_uuid):
                    continue  # it comes back anyway, or not yet
                elif places.take(candidate.name):
                    self._woken[candidate.workflow_uuid] = None
                    incarnation.notifier.missed(candidate.wake_at is None)
            elif incarnation.has(candidate.workflow_uuid):
                continue  # cancelled and resumed, it may still be leaving
            else:
                (suspects if candidate.suspect else orphans).append(candidate)
        orphans += suspects[:1]
        placed = [candidate.workflow_uuid for candidate in orphans if places.take(candidate.name)] if room else []
        if not placed:
            return False
        claimed = await workflows.claim(connection, incarnation.number, placed)
        for workflow in claimed:
            if workflow.crash_count > ALONE + 1:  # it was alone when its process died: nobody else was to blame
                await suspensions.crashed(workflow.name, workflow.workflow_uuid)
        alive = [workflow for workflow in claimed if not await self._is_dead(workflow)]
        await self._activate(connection, alive, places, {})
        if suspects:
            self._on_trial = incarnation.live.get(suspects[0].workflow_uuid)
        return len(found.candidates) >= room and bool(claimed)

    @property
    def _trying(self) -> bool:
        """Whether a suspect lives here that has got no further yet: if this process dies, that one is blamed.

        One that waits for others, who may be suspects too, leaves memory for that (see `parking`). What it has recorded
        counts when it is durable: the next one may take the process down at once.
        """
        actor = self._on_trial
        if actor is None or self._incarnation.live.get(actor.workflow_uuid) is not actor:
            return False
        journal = actor.journal
        return journal is None or not journal.grown or journal.pending

    async def _is_dead(self, workflow: Claimed) -> bool:
        """Ends a workflow that its process died of too often."""
        incarnation = self._incarnation
        if workflow.crash_count <= incarnation.endings.crash_budget:
            return False
        await incarnation.endings.bury(workflow)
        return True

    async def _activate(
        self, connection: Connection, claimed: list[Claimed], places: Places, letters: Mapping[UUID, Letter | None]
    ) -> None:
        """Brings workflows to life, with what they have recorded and what has come for them, in their places."""
        incarnation = self._incarnation
        claimed = [workflow for workflow in claimed if workflow.workflow_uuid not in incarnation.live]
        if not claimed:
            return
        history = await checkpoints.history(connection, [workflow.workflow_uuid for workflow in claimed])
        boxes: dict[UUID, Mailbox] = {}
        asked: list[tuple[UUID, str | None, int]] = []
        for workflow in claimed:
            uuid = workflow.workflow_uuid
            if (letter := letters.get(uuid)) is not None and letter.sequence is not None:
                box = boxes[uuid] = Mailbox(uuid, empty=True)
                box.push(letter.topic, letter.sequence, letter.body, letter.traceparent)
            elif workflow.wait_topics:
                boxes[uuid] = Mailbox(uuid, empty=False)
                asked += [(uuid, topic or None, LOOK_MAX) for topic in workflow.wait_topics]
        if asked:
            for (uuid, topic, _), messages in zip(asked, await notifications.oldest(connection, asked), strict=True):
                boxes[uuid].found(topic, [Message(*message) for message in messages], boxes[uuid].rings)
        places.give_back()
        for workflow in claimed:
            uuid = workflow.workflow_uuid
            if uuid in incarnation.live:
                continue
            operation: Operation[..., object] = incarnation.catalog.operations[workflow.name]
            actor = WorkflowActor(
                incarnation,
                operation,
                uuid,
                caller_of(workflow),
                workflow.inputs,
                workflow.epoch,
                history.get(uuid, []),
                deadline=workflow.deadline,
                parked=workflow.parked,
                mailbox=boxes.get(uuid),
                crashes=workflow.crash_count,
                crash_step=workflow.crash_step,
            )
            incarnation.committer.mend(uuid)  # it may have been cancelled here, and resumed
            incarnation.spawn(actor)
            incarnation.suspensions.lives(actor)
            if uuid in self._woken:  # it rang again while it was being read
                del self._woken[uuid]
                actor.ring()
        self.activated += len(claimed)
        await asyncio.sleep(0)

    async def _poll(self, connection: Connection) -> None:
        """The safety poll: whatever is waited for here may have come without a ring."""
        waiting = {actor.workflow_uuid: actor for actor in self._incarnation.parker.waiting}
        asked = [(uuid, topic) for uuid, actor in waiting.items() for topic in actor.awaited_topics]
        if asked:
            for workflow_uuid in await notifications.waiting(connection, asked):
                waiting[workflow_uuid].ring()
                self._incarnation.notifier.missed(1)
        await self._incarnation.results.poll(connection)

    def __repr__(self) -> str:
        return f"<Activator: {self.activated} brought to life, {len(self._woken)} to come>"
