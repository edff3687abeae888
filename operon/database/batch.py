"""What one flush carries: the records that live workflows appended since the last one, as columns.

Columns, because that is how they travel: one array per column, `unnest`ed by `operon.flush`. A column that few records
use is a dict by row number and does not travel at all when it is empty. Nobody changes a batch once it was taken.

Whoever appended to a batch can wait for it. Each waiter has a future of its own: a task that is cancelled cancels the
future it waits for, and must not take its neighbours along.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any
from uuid import UUID

from operon.database.arrays import some_uuids
from operon.database.mail import SEPARATOR, Mail, Park

Sparse = dict[int, Any]

# What a flush may carry. With more, client and server take turns: all wait for one batch, then all Python
# runs while the server waits. With less, one half's flight is the other half's turn: 256 workflows of three steps ran
# at 5,400 a second with 2,000, at 8,100 with 128, at 6,900 with 64.
RECORDS_MAX = 128
BYTES_MAX = 8 * 1024 * 1024
RECORD_BYTES = BYTES_MAX // RECORDS_MAX  # what each record weighs besides its payload, so that one sum bounds both


class Batch:
    """Records of many workflows, in the order in which each of them appended its own."""

    __slots__ = (
        "added",
        "bells",
        "c_attempts",
        "c_error",
        "c_kind",
        "c_name",
        "c_output",
        "c_seen",
        "c_started",
        "c_step",
        "c_uuid",
        "done",
        "error",
        "f_error",
        "f_output",
        "f_status",
        "f_uuid",
        "failed",
        "keyed",
        "mail",
        "parked",
        "s_caller",
        "s_deadline",
        "s_error",
        "s_inputs",
        "s_name",
        "s_output",
        "s_parent",
        "s_parent_step",
        "s_request",
        "s_status",
        "s_uuid",
        "s_wait_kind",
        "s_wait_topics",
        "s_wait_what",
        "s_wake",
        "sent",
        "statements",
        "taken",
        "waiters",
        "weight",
        "woken",
    )

    def __init__(self) -> None:
        self.s_uuid: list[UUID] = []
        self.s_name: list[str] = []
        self.s_inputs: list[bytes] = []
        self.s_status: Sparse = {}
        self.s_output: Sparse = {}
        self.s_error: Sparse = {}
        self.s_caller: Sparse = {}
        self.s_request: Sparse = {}
        self.s_parent: Sparse = {}
        self.s_parent_step: Sparse = {}
        self.s_deadline: Sparse = {}
        self.s_wait_kind: Sparse = {}  # of those that are parked from the beginning
        self.s_wait_what: Sparse = {}
        self.s_wait_topics: Sparse = {}
        self.s_wake: Sparse = {}
        self.c_uuid: list[UUID] = []
        self.c_step: list[int] = []
        self.c_kind: list[int] = []
        self.c_name: list[str] = []
        self.c_output: list[bytes | None] = []
        self.c_started: list[float] = []
        self.c_error: Sparse = {}
        self.c_attempts: Sparse = {}
        self.c_seen: Sparse = {}
        self.f_uuid: list[UUID] = []
        self.f_output: list[bytes | None] = []
        self.f_status: Sparse = {}
        self.f_error: Sparse = {}
        self.statements: list[Any] = []  # one-statement transactions, to run before the flush
        self.mail: Mail | None = None  # messages, events and parked workflows, if there are any
        self.bells: set[str] = set()
        self.keyed: set[UUID] = set()  # starts whose UUID somebody chose, so that it may be taken
        self.weight = 0
        self.added = 0  # checkpoints that its statements added, when they have run
        self.sent = False  # from then on nothing is added to it
        self.done = False
        self.taken: Collection[UUID] = ()
        self.parked: list[Park] = []  # that began so
        self.woken: Collection[UUID] = ()  # parked workflows of this executor whose wait it ended
        self.failed: dict[UUID, BaseException] | None = None
        self.error: BaseException | None = None
        self.waiters: list[asyncio.Future[None]] = []

    @property
    def records(self) -> int:
        """How many rows it writes."""
        rows = len(self.s_uuid) + len(self.c_uuid) + len(self.f_uuid) + len(self.statements) - self.added
        return rows if self.mail is None else rows + self.mail.records

    def checkpoint(
        self,
        workflow_uuid: UUID,
        step: int,
        kind: int,
        name: str,
        output: bytes | None,
        started: float,
        error: bytes | None = None,
        seen: str | None = None,
        attempts: int = 1,
    ) -> None:
        """Appends the answer of a step: exactly one of output and error."""
        row = len(self.c_uuid)
        if error is not None:
            self.c_error[row] = error
        if seen is not None:
            self.c_seen[row] = seen
        if attempts != 1:
            self.c_attempts[row] = attempts
        self.c_uuid.append(workflow_uuid)
        self.c_step.append(step)
        self.c_kind.append(kind)
        self.c_name.append(name)
        self.c_output.append(output)
        self.c_started.append(started)

    def forget_added(self) -> None:
        """Takes back what its statements added: they run again."""
        if self.added:
            rows = len(self.c_uuid) - self.added
            for column in (self.c_uuid, self.c_step, self.c_kind, self.c_name, self.c_output, self.c_started):
                del column[rows:]
            self.c_seen = {row: seen for row, seen in self.c_seen.items() if row < rows}
            self.added = 0

    def workflows(self) -> list[UUID]:
        """Everyone who has a record in it, once each."""
        mail = () if self.mail is None else self.mail.workflows()
        return list(dict.fromkeys([*self.s_uuid, *self.c_uuid, *self.f_uuid, *mail]))

    def begin_parked(self, row: int, park: Park) -> None:
        """A start of this batch only waits already: it begins as a parked one, and that needs no other record."""
        self.s_wait_kind[row] = park.kind
        self.s_wait_what[row] = park.what
        if park.topics:
            self.s_wait_topics[row] = SEPARATOR.join(park.topics)
        if park.wake_at is not None:
            self.s_wake[row] = park.wake_at
        self.parked.append(park)

    def begin_running(self, row: int) -> None:
        """It has gone on before its start was sent."""
        uuid = self.s_uuid[row]
        for column in (self.s_wait_kind, self.s_wait_what, self.s_wait_topics, self.s_wake):
            column.pop(row, None)
        self.parked = [park for park in self.parked if park.workflow_uuid != uuid]

    def drop(self, workflow_uuid: UUID) -> None:
        """Takes out everything of one workflow but a start: those who began here know their place in it."""
        present = self.workflows()
        if workflow_uuid in present:
            kept = self.only([uuid for uuid in present if uuid != workflow_uuid])
            for prefix in ("c", "f"):
                for column in (name for name in Batch.__slots__ if name.startswith(f"{prefix}_")):
                    setattr(self, column, getattr(kept, column))
            self.mail = kept.mail
        self.statements = [statement for statement in self.statements if statement.workflow_uuid != workflow_uuid]

    def letters(self) -> Mail:
        """Its messages, events and parked workflows, to append to."""
        if self.mail is None:
            self.mail = Mail()
        return self.mail

    def columns(self) -> list[list[Any] | str | None]:
        """The arguments of `operon.flush` after the first four, up to those of its mail; None for what is empty."""
        s, c, f = len(self.s_uuid), len(self.c_uuid), len(self.f_uuid)
        return [
            some_uuids(self.s_uuid),
            self.s_name or None,
            self.s_inputs or None,
            dense(self.s_status, s),
            dense(self.s_output, s),
            dense(self.s_error, s),
            dense(self.s_caller, s),
            dense(self.s_request, s),
            dense(self.s_parent, s),
            dense(self.s_parent_step, s),
            dense(self.s_deadline, s),
            dense(self.s_wait_kind, s),
            dense(self.s_wait_what, s),
            dense(self.s_wait_topics, s),
            dense(self.s_wake, s),
            some_uuids(self.c_uuid),
            self.c_step or None,
            self.c_kind or None,
            self.c_name or None,
            self.c_output or None,
            dense(self.c_error, c),
            self.c_started or None,
            dense(self.c_attempts, c),
            dense(self.c_seen, c),
            some_uuids(self.f_uuid),
            dense(self.f_status, f),
            self.f_output or None,
            dense(self.f_error, f),
            list(self.bells) or None,
        ]

    def only(self, workflows: Collection[UUID]) -> Batch:
        """The records of some of its workflows, as a batch of their own, in the same order."""
        part = Batch()
        for prefix in ("s", "c", "f"):
            uuids = getattr(self, f"{prefix}_uuid")
            kept = [row for row, uuid in enumerate(uuids) if uuid in workflows]
            for column in (name for name in Batch.__slots__ if name.startswith(f"{prefix}_")):
                values: Any = getattr(self, column)
                sparse = isinstance(values, dict)
                rows: list[Any] = [(new, values[row]) for new, row in enumerate(kept) if not sparse or row in values]
                setattr(part, column, dict(rows) if sparse else [value for _, value in rows])
        if self.mail is not None:
            part.mail = self.mail.only(workflows)
        part.keyed = self.keyed & set(workflows)
        part.bells = self.bells
        return part

    def release(self) -> None:
        """Lets go of its records, when they are durable and nobody looks at them any more. Who waits keeps the rest."""
        for column in COLUMNS:
            setattr(self, column, ())
        self.mail = None

    def settle(self, error: BaseException | None = None) -> None:
        """Tells everyone who waits that the batch is durable, or why it will never be."""
        self.done = True
        self.error = error
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_result(None)
        self.waiters.clear()

    async def durable(self, workflow_uuid: UUID) -> None:
        """Waits until the records of a workflow are durable; raises what became of them if they never will be."""
        if not self.done:
            await self.waiter()
        self.require(workflow_uuid)

    def waiter(self) -> asyncio.Future[None]:
        """Done when it is settled, which it is not yet."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiters.append(waiter)
        return waiter

    def require(self, workflow_uuid: UUID) -> None:
        """Raises what became of the records of a workflow, when it is settled, if they are not durable."""
        if self.error is not None:
            raise self.error
        if self.failed is not None and (failure := self.failed.get(workflow_uuid)) is not None:
            raise failure

    def __repr__(self) -> str:
        state = "done" if self.done else f"{len(self.waiters)} waiting"
        return f"<Batch {len(self.s_uuid)} starts, {len(self.c_uuid)} checkpoints, {len(self.f_uuid)} ends, {state}>"


COLUMNS = tuple(name for name in Batch.__slots__ if name[:2] in ("s_", "c_", "f_"))


def dense(sparse: Sparse, rows: int) -> list[Any] | None:
    """A sparse column as an array, or None when nothing is in it."""
    return [sparse.get(row) for row in range(rows)] if sparse else None
