"""The part of a workflow's mailbox that is in memory: messages that are known, and how much is not known.

The mailbox is in the database. Only its owner takes from it, so what to take is decided here: the message of the lowest
sequence under a topic. Its removal goes into the batch that records the receipt; until that is durable the message is
still there, and is not taken again.

Nothing is read that need not be: a workflow that began here has an empty mailbox until somebody rings, and a message
from this process comes along with the ring when it is the only one. A ring without a message means: look.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple
from uuid import UUID

from operon.database import notifications
from operon.database.batch import Batch
from operon.database.pool import Pool

LOOK_MAX = 64  # messages of one topic that are read at a time


class Message(NamedTuple):
    """A message in memory."""

    sequence: int
    body: bytes
    traceparent: str | None = None  # of its sending


class Mailbox:
    """What one live workflow knows of its mailbox."""

    __slots__ = ("_known", "_looking", "_messages", "_more", "_rings", "_taken", "workflow_uuid")

    def __init__(self, workflow_uuid: UUID, *, empty: bool) -> None:
        """`empty`: the workflow has just begun here, so there can be nothing in it."""
        self.workflow_uuid = workflow_uuid
        self._messages: dict[str | None, deque[Message]] = {}
        self._rings = 0 if empty else 1
        self._known: dict[str | None, int] = {}  # by topic: how many rings the last look came after
        self._more: frozenset[str | None] = frozenset()  # topics of which only the oldest were read
        self._taken: dict[int, Batch] = {}  # by sequence: what was received, and where that is recorded
        self._looking = False

    def knows(self, topics: Iterable[str | None]) -> bool:
        """Whether the oldest message of each of these topics is in memory, if there is one at all."""
        for topic in topics:
            if self._known.get(topic, 0) != self._rings or (topic in self._more and not self._messages.get(topic)):
                return False
        return True

    @property
    def known(self) -> int:
        """How many messages are in memory."""
        return sum(len(messages) for messages in self._messages.values())

    def ring(self) -> None:
        """There may be something that is not in memory."""
        self._rings += 1

    def push(self, topic: str | None, sequence: int, body: bytes, traceparent: str | None = None) -> None:
        """The only message in the mailbox. A look may have found it before its sender's batch was known to be there."""
        if self._looking:  # which may have been too early for this one, and says what is there
            self._rings += 1
            return
        waiting = self._messages.setdefault(topic, deque())
        if all(message.sequence != sequence for message in waiting) and sequence not in self._taken:
            waiting.append(Message(sequence, body, traceparent))

    def look(self) -> int:
        """A look begins; gives after how many rings. What is durable by now it does not find, and only that."""
        self._looking = False
        self._forget()
        self._looking = True
        return self._rings

    def found(self, topic: str | None, messages: Sequence[Message], rings: int) -> None:
        """What a look that began after so many rings has found: the oldest of a topic, or all of them."""
        self._looking = False
        taken = self._taken
        self._messages[topic] = deque([message for message in messages if message.sequence not in taken])
        self._known[topic] = rings
        # Where there are more than were read, the rest is looked for when these are taken.
        if len(messages) >= LOOK_MAX:
            self._more |= {topic}
        elif self._more:
            self._more -= {topic}

    def take(self, topics: Sequence[str | None]) -> tuple[str | None, Message] | None:
        """The oldest known message of these topics."""
        oldest: tuple[str | None, Message] | None = None
        for topic in topics:
            waiting = self._messages.get(topic)
            if waiting and (oldest is None or waiting[0].sequence < oldest[1].sequence):
                oldest = topic, waiting[0]
        if oldest is not None:
            self._messages[oldest[0]].popleft()
        return oldest

    def taken(self, sequence: int, batch: Batch) -> None:
        """A message was received; it is gone when the batch is durable."""
        self._taken[sequence] = batch
        if len(self._taken) >= LOOK_MAX:
            self._forget()

    def depth(self, topic: str | None) -> int:
        """How many messages are in memory under a topic."""
        return len(self._messages.get(topic, ()))

    @property
    def rings(self) -> int:
        """How often it rang."""
        return self._rings

    def _forget(self) -> None:
        """Forgets what was received durably. Not while somebody looks, who may still have seen it."""
        if not self._looking:
            self._taken = {sequence: batch for sequence, batch in self._taken.items() if not batch.done}

    @property
    def in_flight(self) -> int:
        """How many were received and are still there."""
        return len(self._taken)

    def __repr__(self) -> str:
        return f"<Mailbox of {self.workflow_uuid}: {sum(map(len, self._messages.values()))} in memory>"


class MailReader:
    """Looks into the mailboxes of many workflows with one query."""

    def __init__(self, look_ups: Pool) -> None:
        self._look_ups = look_ups
        self._wanted: list[tuple[Mailbox, tuple[str | None, ...], asyncio.Future[None]]] = []
        self._task: asyncio.Task[None] | None = None

    async def look(self, mailbox: Mailbox, topics: Sequence[str | None]) -> None:
        """Brings the messages of these topics into memory. Waits for the database as long as it takes."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._wanted.append((mailbox, tuple(topics), future))
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())
        await future

    async def _run(self) -> None:
        try:
            while self._wanted:
                wanted, self._wanted = self._wanted, []
                try:
                    await self._read(wanted)
                except Exception as error:
                    for _, _, future in wanted:
                        if not future.done():
                            future.set_exception(error)
        finally:
            self._task = None

    async def _read(self, wanted: list[tuple[Mailbox, tuple[str | None, ...], asyncio.Future[None]]]) -> None:
        asked = [(mailbox, topic) for mailbox, topics, _ in wanted for topic in topics]
        rings = [mailbox.look() for mailbox, _ in asked]
        found = await self._look_ups.ask(
            lambda connection: notifications.oldest(
                connection, [(box.workflow_uuid, topic, LOOK_MAX + box.in_flight) for box, topic in asked]
            )
        )
        for (mailbox, topic), before, messages in zip(asked, rings, found, strict=True):
            mailbox.found(topic, [Message(*message) for message in messages], before)
        for _, _, future in wanted:
            if not future.done():
                future.set_result(None)

    def close(self) -> None:
        """Nobody looks any more."""
        if self._task is not None:
            self._task.cancel()
