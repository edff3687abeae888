"""What a flush carries besides starts, checkpoints and ends: messages, receipts, events, and workflows that park.

Unlike the columns of a batch these are objects, because the database answers each of them, and whoever appended one
looks here for the answer.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from enum import IntEnum
from typing import Any
from uuid import UUID

from operon.database.arrays import some_uuids

SEPARATOR = "\x1f"  # between topics that travel together; no topic contains it
NO_USER = ""  # the owner of what somebody unknown has started; no user has an empty name


class Delivery(IntEnum):
    """What became of a message; the number is what the database answers."""

    SENT = 0
    OURS = 1  # sent to a workflow of this executor
    OURS_ALONE = 2  # ... in whose mailbox there is nothing else
    DUPLICATE = 3
    UNKNOWN = 4
    FINISHED = 5
    FULL = 6
    IGNORED = 7  # finished, and the sender does not mind
    ASIDE = 8  # to one of ours that is parked and waits for other things


DELIVERIES = tuple(Delivery)  # by number: the class looks it up by far more slowly


class Letter:
    """A message on its way. A sender without a step is no workflow: it has a UUID for this letter alone."""

    __slots__ = (
        "body",
        "delivery",
        "destination",
        "keep",
        "key",
        "owner",
        "seen",
        "sender",
        "sequence",
        "started",
        "step",
        "topic",
        "traceparent",
    )

    def __init__(
        self,
        sender: UUID,
        step: int | None,
        destination: UUID,
        topic: str | None,
        body: bytes,
        key: str | None,
        keep: bool,
        started: float | None,
        seen: str | None,
        traceparent: str | None,
        owner: str | None = None,
    ) -> None:
        self.sender = sender
        self.step = step
        self.destination = destination
        self.topic = topic
        self.body = body
        self.key = key
        self.keep = keep
        self.started = started
        self.seen = seen
        self.traceparent = traceparent
        self.owner = owner  # whose the destination has to be; None: anyone's
        self.delivery: Delivery | None = None
        self.sequence: int | None = None


class Park:
    """A workflow that leaves memory, and what brings it back: a message, a time, another's end or event."""

    __slots__ = ("kind", "parked", "start", "targets", "topics", "wake_at", "what", "workflow_uuid")

    def __init__(
        self,
        workflow_uuid: UUID,
        kind: int,
        what: str,
        topics: Sequence[str],
        wake_at: float | None,
        targets: Sequence[tuple[UUID, str]],
    ) -> None:
        self.workflow_uuid = workflow_uuid
        self.kind = kind
        self.what = what
        self.topics = topics
        self.wake_at = wake_at
        self.targets = targets
        self.parked: bool | None = None  # None: not known (yet)
        self.start: Any = None  # batch and row of its start, if it begins so


class Mail:
    """The letters, receipts, events and parks of one batch."""

    __slots__ = ("events", "letters", "parks", "received", "unparked")

    def __init__(self) -> None:
        self.received: list[tuple[UUID, int]] = []  # workflow and sequence of a message
        self.unparked: dict[UUID, None] = {}
        self.events: dict[tuple[UUID, str], tuple[int, bytes]] = {}  # the last value counts
        self.letters: list[Letter] = []
        self.parks: dict[UUID, Park] = {}

    @property
    def records(self) -> int:
        """How many rows it writes."""
        return len(self.received) + len(self.unparked) + len(self.events) + len(self.letters) + len(self.parks)

    def workflows(self) -> list[UUID]:
        """Everyone who has something in it."""
        return [
            *(uuid for uuid, _ in self.received),
            *self.unparked,
            *(uuid for uuid, _ in self.events),
            *(letter.sender for letter in self.letters),
            *self.parks,
        ]

    def only(self, workflows: Collection[UUID]) -> Mail | None:
        """What is of some workflows, as a part of its own; the same objects, so that answers reach who waits."""
        part = Mail()
        part.received = [receipt for receipt in self.received if receipt[0] in workflows]
        part.unparked = {uuid: None for uuid in self.unparked if uuid in workflows}
        part.events = {key: event for key, event in self.events.items() if key[0] in workflows}
        part.letters = [letter for letter in self.letters if letter.sender in workflows]
        part.parks = {uuid: park for uuid, park in self.parks.items() if uuid in workflows}
        return part if part.records else None

    def columns(self, mailbox_limit: int) -> list[Any]:
        """The last arguments of `operon.flush`; None for what is empty."""
        letters, parks = self.letters, list(self.parks.values())
        if len(letters) > 1:
            letters.sort(key=destination_of)  # two who send to the same workflows lock them in the same order
        targets = [(park.workflow_uuid, *target) for park in parks for target in park.targets]
        return [
            some_uuids([uuid for uuid, _ in self.received]),
            [sequence for _, sequence in self.received] or None,
            some_uuids(self.unparked),
            [uuid for uuid, _ in self.events] or None,
            [step for step, _ in self.events.values()] or None,
            [key for _, key in self.events] or None,
            [value for _, value in self.events.values()] or None,
            mailbox_limit,
            some([letter.sender if letter.step is not None else None for letter in letters]),
            some([letter.step for letter in letters]),
            some_uuids([letter.destination for letter in letters]),
            [letter.topic for letter in letters] or None,
            [letter.body for letter in letters] or None,
            some([letter.key for letter in letters]),
            some([letter.keep or None for letter in letters]),
            some([letter.traceparent for letter in letters]),
            some([letter.started for letter in letters]),
            some([letter.seen for letter in letters]),
            some([letter.owner for letter in letters]),
            [park.workflow_uuid for park in parks] or None,
            [park.kind for park in parks] or None,
            [park.what for park in parks] or None,
            [SEPARATOR.join(park.topics) if park.topics else None for park in parks] or None,
            [park.wake_at for park in parks] or None,
            [waiter for waiter, _, _ in targets] or None,
            [target for _, target, _ in targets] or None,
            [key for _, _, key in targets] or None,
        ]

    def answered(self, codes: Sequence[int], sequences: Sequence[int | None], busy: Collection[UUID]) -> None:
        """Hands out what the database said."""
        for letter, code, sequence in zip(self.letters, codes, sequences, strict=True):
            letter.delivery = DELIVERIES[code]
            letter.sequence = sequence
        for uuid, park in self.parks.items():
            park.parked = uuid not in busy

    def answer_lost(self, answers: str | None) -> None:
        """It landed, but the acknowledgement was lost: only what was refused is kept. All else was delivered."""
        codes = [Delivery(int(code)) for code in answers.split(",")] if answers else [Delivery.SENT] * len(self.letters)
        for letter, code in zip(self.letters, codes, strict=True):
            letter.delivery = Delivery.OURS if code < Delivery.DUPLICATE else code

    def __repr__(self) -> str:
        return f"<Mail {len(self.letters)} letters, {len(self.received)} receipts, {len(self.parks)} parks>"


def destination_of(letter: Letter) -> bytes:
    return letter.destination.bytes


def some(column: list[Any]) -> list[Any] | None:
    """A column that few need: None when nobody does."""
    return None if column.count(None) == len(column) else column
