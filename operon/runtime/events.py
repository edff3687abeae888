"""The event log: what happened to executors, supervisors and workflow actors, for operators.

The rule: writing it never blocks and never breaks the work. Whoever tells of something appends to a bounded list in
memory; one small task writes what is there in batches, through the pool of look-ups. While the database is away the
list fills up, the oldest are dropped and counted, and the log says how many.

Three things are made of each event: a row of `operon.supervision_events`, a line in the log (at INFO: what is wrong was
logged louder where it happened, with its traceback), and one more in the counter `operon.supervision.events`.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum, StrEnum
from typing import Any, NamedTuple, Protocol
from uuid import UUID

import msgspec

import actors
from actors import Crashed, Exit, Happening
from operon.database import supervision
from operon.database.connection import Connection, is_weather
from operon.database.supervision import Happened
from operon.masking import masked, masked_logger

logger = masked_logger("operon.supervision")

PENDING_MAX = 2_000
BATCH_MAX = 500
GATHER_SECONDS = 0.2  # what happens together is written together
PRUNE_EVERY = 10_000
AGAIN_SECONDS = 1.0
FLUSH_SECONDS = 2.0  # at the end of the process
TEXT_MAX = 1_000


class Kind(StrEnum):
    """What happened."""

    STARTED = "started"
    CRASHED = "crashed"
    RESTARTED = "restarted"
    BACKED_OFF = "backed_off"  # waits before it is restarted
    ESCALATED = "escalated"  # a supervisor gave up
    SUSPENDED = "suspended"  # a name: too many of its workflows crashed
    LIFTED = "lifted"
    DIED = "died"  # a workflow: it cannot go on
    SET_ASIDE = "set_aside"  # a message: its receiver crashed at it too often
    ZOMBIE = "zombie"  # did not stop when told
    BURIED = "buried"  # ... and then did
    TAKEN_OVER = "taken_over"
    LEASE_LOST = "lease_lost"  # no renewal in time: the database is out of reach
    LEASE_BACK = "lease_back"
    FENCED = "fenced"  # we were declared dead
    DECLARED_DEAD = "declared_dead"  # somebody else was
    DRAINING = "draining"
    LEFT = "left"
    DROPPED = "dropped"  # events


class Severity(IntEnum):
    """How bad it is; the number is what the database holds."""

    INFO = 0
    WARNING = 1
    ERROR = 2


SEVERITIES = {
    Kind.CRASHED: Severity.WARNING,
    Kind.BACKED_OFF: Severity.WARNING,
    Kind.ESCALATED: Severity.ERROR,
    Kind.SUSPENDED: Severity.ERROR,
    Kind.DIED: Severity.ERROR,
    Kind.SET_ASIDE: Severity.WARNING,
    Kind.ZOMBIE: Severity.ERROR,
    Kind.TAKEN_OVER: Severity.WARNING,
    Kind.LEASE_LOST: Severity.WARNING,
    Kind.FENCED: Severity.ERROR,
    Kind.DECLARED_DEAD: Severity.WARNING,
    Kind.DROPPED: Severity.WARNING,
}

# What a supervision tree tells, as far as an operator wants to know of it.
HAPPENINGS = {
    Happening.CRASHED: Kind.CRASHED,
    Happening.RESTARTED: Kind.RESTARTED,
    Happening.ZOMBIE: Kind.ZOMBIE,
    Happening.BURIED: Kind.BURIED,
    Happening.SUSPENDED: Kind.SUSPENDED,
    Happening.RESUMED: Kind.LIFTED,
    Happening.ESCALATED: Kind.ESCALATED,
}
WORDS = {
    Kind.RESTARTED: "was restarted",
    Kind.ZOMBIE: "did not stop when told",
    Kind.BURIED: "has stopped after all",
    Kind.SUSPENDED: "was suspended",
    Kind.LIFTED: "goes on",
    Kind.ESCALATED: "gave up",
}


class Record(Protocol):
    """`EventLog.record`."""

    def __call__(
        self,
        kind: Kind,
        text: str,
        *,
        path: Sequence[str],
        executor: int | None,
        workflow_uuid: UUID | None,
        data: Mapping[str, Any] | None,
    ) -> None: ...


class Database(Protocol):
    """Where the log is written: a pool."""

    async def ask(self, query: Any, patience_seconds: float | None = None) -> Any:
        """Runs a query on a connection."""
        ...


class Entry(NamedTuple):
    """An event that is not written yet."""

    at: float  # on the monotonic clock
    kind: Kind
    text: str
    path: str
    executor: int | None
    workflow_uuid: UUID | None
    data: Mapping[str, Any] | None


class EventLog:
    """The events of one process, on their way into the database."""

    def __init__(
        self, database: Database, counted: Callable[[str], object], name_of: Callable[[UUID], str | None]
    ) -> None:
        """`counted` is told the kind of each event; `name_of` knows the operations of the workflows that live here."""
        self._database = database
        self._counted = counted
        self._name_of = name_of
        self._pending: deque[Entry] = deque()
        self._dropped = 0
        self._unpruned = 0
        self._something = asyncio.Event()
        self._writing = asyncio.Lock()
        self._complained = False

    def record(
        self,
        kind: Kind,
        text: str,
        *,
        path: Sequence[str] = ("operon",),
        executor: int | None = None,
        workflow_uuid: UUID | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> None:
        """Tells of an event. Costs a few microseconds, waits for nothing, raises nothing."""
        text = masked(text)[:TEXT_MAX]
        entry = Entry(time.monotonic(), kind, text, "/".join(path), executor, workflow_uuid, data)
        if len(self._pending) >= PENDING_MAX:
            self._pending.popleft()
            self._dropped += 1
        self._pending.append(entry)
        self._something.set()
        self._counted(kind.value)
        fields = {"event": kind.value, "path": entry.path, "executor": executor, "workflow_uuid": workflow_uuid}
        logger.info("%s", text, extra={name: value for name, value in fields.items() if value is not None})

    def observed(self, event: actors.Event) -> None:
        """Something happened in the supervision tree."""
        kind = HAPPENINGS.get(event.happening)
        if kind is None:
            return
        executor = number_of(event.path)
        workflow_uuid = uuid_of(event.path)
        what = event.path[-1]
        data: dict[str, Any] = {}
        if workflow_uuid is not None and (name := self._name_of(workflow_uuid)) is not None:
            what, data = f"{name} {workflow_uuid}", {"name": name}
        words = WORDS.get(kind, "") if kind is not Kind.CRASHED else crash(event.exit)
        if isinstance(event.exit, Crashed):
            data |= {"error": type(event.exit.error).__name__}
        self.record(
            kind, f"{what} {words}", path=event.path, executor=executor, workflow_uuid=workflow_uuid, data=data or None
        )

    async def run(self, started: Callable[[], None]) -> None:
        """Writes what happens, until cancelled."""
        started()
        while True:
            await self._something.wait()
            await asyncio.sleep(GATHER_SECONDS)
            if not await self._write_all():
                await asyncio.sleep(AGAIN_SECONDS)

    async def flush(self) -> None:
        """Writes what is there, before the process ends; not for long, and raises nothing."""
        try:
            async with asyncio.timeout(FLUSH_SECONDS):
                await self._write_all()
        except TimeoutError:
            logger.debug("%d events were not written", len(self._pending))

    async def _write_all(self) -> bool:
        """True if nothing is left."""
        async with self._writing:
            while self._pending or self._dropped:
                if self._dropped and len(self._pending) < PENDING_MAX:
                    dropped, self._dropped = self._dropped, 0
                    self.record(Kind.DROPPED, f"{dropped} events were dropped while the database was away")
                batch = [self._pending[n] for n in range(min(BATCH_MAX, len(self._pending)))]
                try:
                    await self._database.ask(writing(batch), patience_seconds=0.0)
                    await self._prune(len(batch))
                except Exception as error:
                    self._complain(error)
                    if is_weather(error):
                        return False
                # Written, or of no use. Others may have been appended and dropped meanwhile.
                written = set(map(id, batch))
                while self._pending and id(self._pending[0]) in written:
                    self._pending.popleft()
            self._something.clear()
            return True

    async def _prune(self, written: int) -> None:
        """Keeps the table bounded also in a storm, which would not wait for the hourly sweep."""
        self._unpruned += written
        if self._unpruned >= PRUNE_EVERY:
            self._unpruned = 0
            await self._database.ask(supervision.prune, patience_seconds=0.0)

    def _complain(self, error: Exception) -> None:
        """Once: the database's absence is told of by others."""
        if not self._complained:
            self._complained = True
            logger.warning("events cannot be written: %s: %s", type(error).__name__, error)

    def __repr__(self) -> str:
        return f"<EventLog: {len(self._pending)} to be written, {self._dropped} dropped>"


def writing(batch: Sequence[Entry]) -> Callable[[Connection], Any]:
    """The question that writes these."""
    now = time.monotonic()
    rows = [
        Happened(
            now - entry.at,
            entry.executor,
            entry.workflow_uuid,
            SEVERITIES.get(entry.kind, Severity.INFO),
            entry.kind.value,
            entry.path,
            clean(entry.text),
            None if entry.data is None else clean(msgspec.json.encode(entry.data).decode()),
        )
        for entry in batch
    ]
    return lambda connection: supervision.write(connection, rows)


def clean(text: str) -> str:
    """A text that Postgres takes."""
    return text.replace("\x00", "").encode("utf-8", "replace").decode()


def crash(exit: Exit | None) -> str:
    """A crash in words, in one line."""
    if not isinstance(exit, Crashed):
        return "crashed"
    message = " ".join(str(exit.error).split())
    return f"crashed with {type(exit.error).__name__}" + (f": {message[:300]}" if message else "")


def number_of(path: Sequence[str]) -> int | None:
    """The executor that a path of the tree leads through."""
    name = path[1] if len(path) > 1 else ""
    number = name.removeprefix("executor-")
    return int(number) if number != name and number.isdigit() else None


def uuid_of(path: Sequence[str]) -> UUID | None:
    """The workflow that a path of the tree leads to."""
    if len(path) < 5 or path[2] != "workflows":
        return None
    try:
        return UUID(path[4])
    except ValueError:
        return None
