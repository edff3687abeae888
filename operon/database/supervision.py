"""What executors say of themselves, and what happened to them: rows for operators, and the structs that are in them.

The rule: nothing here reads a whole table, however many workflows wait. What is parked is an estimate, and says so;
what is counted is counted so far and no further; lists have a limit.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from operon.database.connection import Connection
from operon.database.sql import statements
from operon.explain import Doing

SQL = statements("supervision.sql")

EVENTS_DAYS = 7
EVENTS_MAX = 100_000
CRASHERS_SECONDS = 3_600.0  # how long a crash is kept that suspended nothing; it counts for a minute
DEPTH_MAX = 100  # messages of one mailbox that are counted
READY_MAX = 10_000
LEFT_MAX = 100_000
EXECUTORS_MAX = 500
GONE_SECONDS = 600.0  # how long an executor that died is still shown


class Happened(msgspec.Struct, frozen=True):
    """An event as it is written. No text of it has a NUL or a lone surrogate."""

    age: float  # seconds since it happened
    executor: int | None
    workflow_uuid: UUID | None
    severity: int
    kind: str
    path: str
    text: str
    data: str | None  # JSON


class Recorded(msgspec.Struct, frozen=True):
    """An event as it was written."""

    id: int
    at: datetime
    executor: int | None
    workflow_uuid: UUID | None
    severity: int
    kind: str
    path: str
    text: str | None
    data: Any


class Node(msgspec.Struct, frozen=True, omit_defaults=True):
    """A supervisor or one of its children. Times are the database's, in seconds since the epoch."""

    name: str
    state: str
    kind: str = "child"  # supervisor, child, name
    strategy: str | None = None
    restart: str | None = None
    restarts: int = 0
    restarts_used: int | None = None  # within the last `window_seconds`
    restarts_allowed: int | None = None
    window_seconds: float | None = None
    since: float | None = None  # of the present life
    backoff_until: float | None = None
    last_exit: str | None = None
    last_error: str | None = None
    mailbox_depth: int | None = None
    running: int | None = None
    running_allowed: int | None = None  # of a name that has a limit
    restarting: int | None = None
    zombies: int | None = None
    children: tuple[Node, ...] = ()
    omitted: int = 0  # children that are not in `children`


class LiveActor(msgspec.Struct, frozen=True, omit_defaults=True):
    """One live workflow, as its executor sees it."""

    workflow_uuid: UUID
    name: str
    state: str = "running"  # running, waiting, restarting, zombie
    step: int | None = None  # the last step that was called; 0 is the first
    waits_for: str | None = None
    wait_kind: int | None = None
    wait_topics: tuple[str, ...] = ()
    target: UUID | None = None  # the workflow whose end or event it waits for
    since: float | None = None  # it waits
    until: float | None = None
    restarts: int = 0
    backoff_until: float | None = None
    last_error: str | None = None
    mailbox_known: int = 0  # messages that are in memory
    doing: Doing | None = None


class Listener(msgspec.Struct, frozen=True):
    """How an executor hears notifications."""

    state: str
    ping_ms: float | None
    reconnects: int
    found_by_poll: int


class Commits(msgspec.Struct, frozen=True):
    """Group commits of late: in one interval of the heartbeat."""

    batches: int
    records_mean: float | None
    ms_mean: float | None


class Said(msgspec.Struct, frozen=True):
    """What an executor says of itself at a moment."""

    at: float
    lease_seconds: float
    trusted: bool
    draining: bool
    live: int
    waiting: int
    parked: int  # that left memory since it began, and have not come back
    ready: int  # to be brought back
    max_live: int
    lag_p50_ms: float | None
    lag_p99_ms: float | None
    rss_bytes: int | None
    commits: Commits
    listener: Listener
    names: tuple[str, ...]  # of the operations that it can run
    names_omitted: int
    tree: Node
    actors: tuple[LiveActor, ...]  # in trouble first, then those that wait longest
    actors_omitted: int


class ExecutorRow(msgspec.Struct, frozen=True):
    """An executor as the database knows it."""

    incarnation: int
    host: str
    pid: int
    version: str
    state: int
    started_at: datetime
    died_at: datetime | None
    lease_until: datetime
    said_age: float | None  # seconds
    said: Said | None


class Suspension(msgspec.Struct, frozen=True):
    """Workflows of a name that are not run for now."""

    name: str
    since: datetime
    until: datetime | None
    crashes: int | None


class Numbers(msgspec.Struct, frozen=True):
    """All workflows together."""

    parked: int | None  # an estimate; None where the table was never analyzed
    analyzed_at: datetime | None
    ready: int  # that nobody runs; READY_MAX + 1 for more than that
    now: datetime


class SubjectRow(msgspec.Struct, frozen=True):
    """One workflow, with what it waits for."""

    workflow_uuid: UUID
    name: str
    version: str
    status: int
    owner: int | None
    epoch: int
    created_at: datetime
    updated_at: datetime
    deadline: datetime | None
    wait_kind: int | None
    wait_what: str | None
    wait_since: datetime | None
    wait_topics: list[str] | None
    wake_at: datetime | None
    crash_count: int
    crash_step: int | None
    error: bytes | None
    host: str | None
    pid: int | None
    owner_state: int | None
    lease_until: datetime | None
    parent: UUID | None
    target: UUID | None  # the workflow that it waits for while it is parked
    target_key: str | None
    due: bool | None  # what it waits for of that one has happened
    last_step: int | None
    last_name: str | None
    last_at: datetime | None
    last_failed: bool | None
    topics_there: list[str] | None  # of the messages that are there, '' for none; at most 101


async def write(connection: Connection, events: Sequence[Happened]) -> None:
    """Writes events, in one statement."""
    await connection.execute(SQL["write"], msgspec.json.encode(events).decode())


async def events(connection: Connection, limit: int, before: int | None = None) -> list[Recorded]:
    """What happened, the latest first; those that come after event `before` in that order."""
    rows = await connection.fetch(SQL["events"], before, limit)
    return [Recorded(**{**plain_row(row), "data": decoded(row["data"])}) for row in rows]


async def left_by(connection: Connection, incarnation: int) -> int:
    """How many workflows a dead executor ran; LEFT_MAX for that or more."""
    count: int = await connection.fetchval(SQL["left_by"], incarnation, LEFT_MAX)
    return count


async def sweep(connection: Connection) -> None:
    """Forgets old events, those that are too many, what executors said that are gone, and wake-ups for the ended."""
    await connection.execute(SQL["forget_old"], EVENTS_DAYS * 86_400.0)
    await prune(connection)
    await connection.execute(SQL["forget_snapshots"])
    await connection.execute(SQL["forget_crashers"], CRASHERS_SECONDS)
    await connection.execute(SQL["forget_wakes"])


async def prune(connection: Connection) -> None:
    """Forgets the oldest of too many events."""
    await connection.execute(SQL["forget_many"], EVENTS_MAX)


async def executors(connection: Connection) -> list[ExecutorRow]:
    """Every executor that is alive, and those that died of late."""
    rows = await connection.fetch(SQL["executors"], GONE_SECONDS, EXECUTORS_MAX)
    return [
        ExecutorRow(**{name: value for name, value in row.items() if name != "body"}, said=read(row["body"]))
        for row in rows
    ]


def read(body: bytes | None) -> Said | None:
    """What an executor said; None of one that is newer, or older, and says other things."""
    try:
        return None if body is None else msgspec.json.decode(body, type=Said)
    except msgspec.DecodeError:
        return None


async def numbers(connection: Connection) -> Numbers:
    """All workflows together."""
    return Numbers(*tuple(await connection.fetchrow(SQL["numbers"], READY_MAX + 1)))


async def now(connection: Connection) -> datetime:
    """The time by the server's clock."""
    time: datetime = await connection.fetchval(SQL["now"])
    return time


async def suspensions(connection: Connection) -> list[Suspension]:
    """The names that are suspended."""
    return [Suspension(*tuple(row)) for row in await connection.fetch(SQL["suspensions"])]


async def depths(connection: Connection, workflow_uuids: Collection[UUID]) -> dict[UUID, int]:
    """How many messages wait for each of these; DEPTH_MAX + 1 for more than that."""
    rows = await connection.fetch(SQL["depths"], list(workflow_uuids), DEPTH_MAX + 1)
    return {plain(row[0]): row[1] for row in rows}


async def subjects(connection: Connection, workflow_uuids: Collection[UUID]) -> dict[UUID, SubjectRow]:
    """What there is to say of these workflows."""
    rows = await connection.fetch(SQL["subjects"], list(workflow_uuids))
    found = [SubjectRow(**plain_row(row)) for row in rows]
    return {row.workflow_uuid: row for row in found}


async def ready_before(connection: Connection, workflow_uuid: UUID) -> int:
    """How many workflows that nobody runs are older; READY_MAX + 1 for more than that."""
    count: int = await connection.fetchval(SQL["ready_before"], workflow_uuid, READY_MAX + 1)
    return count


def decoded(data: bytes | None) -> Any:
    return None if data is None else msgspec.json.decode(data)


def plain_row(row: Any) -> dict[str, Any]:
    return {name: plain(value) for name, value in row.items()}


def plain(value: Any) -> Any:
    """A UUID that is not of the driver's own subclass."""
    return UUID(bytes=value.bytes) if isinstance(value, UUID) else value
