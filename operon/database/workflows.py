"""Workflows in the database: claimed, looked up, ended. Starts and finishes go through the committer's flush."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import msgspec

from operon.database.arrays import uuids
from operon.database.connection import Connection
from operon.database.sql import statements

SQL = statements("workflows.sql")


class Claimed(msgspec.Struct, frozen=True):
    """A workflow that this executor owns from now on, as it has to be started again."""

    workflow_uuid: UUID
    epoch: int
    name: str
    inputs: bytes
    authenticated_user: str | None
    authenticated_roles: list[str] | None
    assumed_role: str | None
    request: bytes | None
    traceparent: str | None
    parent: UUID | None
    deadline: float | None
    parked: bool
    wait_topics: list[str] | None
    crash_count: int
    crash_step: int  # how many steps it had recorded when it crashed last


class Candidate(NamedTuple):
    """A workflow that may be claimed or, where it is this executor's own, brought back; now or at `wake_at`."""

    workflow_uuid: UUID
    mine: bool
    wake_at: float | None
    suspect: bool  # its process died three times while it got nowhere: it is run beside no other one like it
    name: str


class Aside(msgspec.Struct, frozen=True):
    """What a look for work says besides."""

    suspended: dict[str, float | None] | None
    overdue: dict[UUID, str] | None


class Found(NamedTuple):
    """What a look for work found."""

    candidates: list[Candidate]
    now: float  # the database's time
    revoked: bool  # workflows of this executor were cancelled
    suspended: Mapping[str, float | None]  # names, and when one of each is tried
    overdue: Mapping[UUID, str]  # workflows whose time is over, and their names


class Crashes(NamedTuple):
    """How often a workflow has crashed in a row without progress, after how many steps, and when it is run again."""

    in_a_row: int
    step: int
    wake_at: float


class Finished(NamedTuple):
    """A workflow that has ended, as it began and as it ended."""

    row: Claimed
    status: int
    output: bytes | None
    error: bytes | None
    ended_at: float


class Outcome(msgspec.Struct, frozen=True):
    """What is known of a workflow: its status, and its result or error once it is finished."""

    name: str
    status: int
    owner: int | None
    output: bytes | None
    error: bytes | None
    authenticated_user: str | None
    inputs: bytes = b""
    epoch: int = 0  # where it was asked for, like the next
    lived: bool = False  # it has recorded something, or is parked


class StatusRow(msgspec.Struct, frozen=True):
    """Everything that `get_status` tells."""

    workflow_uuid: UUID
    status: int
    name: str
    authenticated_user: str | None
    assumed_role: str | None
    authenticated_roles: list[str] | None
    request: bytes | None
    created_at: datetime
    updated_at: datetime
    epoch: int
    error: bytes | None
    wait_what: str | None
    host: str | None
    pid: int | None
    owner: int | None


async def candidates(
    connection: Connection, incarnation: int, names: list[str], limit: int, ahead_seconds: float, *, suspects: bool
) -> Found:
    """Work for this executor, the database's time, and what else an executor has to know of."""
    rows = await connection.fetch(SQL["candidates"], incarnation, names, limit, ahead_seconds, suspects)
    *found, (_, revoked, now, _, said) = rows
    aside = msgspec.json.decode(said, type=Aside)
    return Found([Candidate(*row) for row in found], now, revoked, aside.suspended or {}, aside.overdue or {})


async def claim(connection: Connection, incarnation: int, workflows: Iterable[UUID]) -> list[Claimed]:
    """Takes those of them that are still there to take."""
    return [Claimed(*row) for row in await connection.fetch(SQL["claim"], incarnation, list(workflows))]


async def running(connection: Connection, incarnation: int) -> dict[UUID, str]:
    """What an executor runs, as far as the database knows: the names of these workflows."""
    return dict(await connection.fetch(SQL["running"], incarnation))


async def load(
    connection: Connection, incarnation: int, workflows: Collection[UUID], names: list[str]
) -> list[Claimed]:
    """Those of these workflows that are ours and parked."""
    return [Claimed(*row) for row in await connection.fetch(SQL["load"], uuids(workflows), incarnation, names)]


async def next_wake(connection: Connection, moment: float) -> float | None:
    """When the first parked workflow is woken whose time comes after a moment, in seconds since the epoch."""
    wake_at: float | None = await connection.fetchval(SQL["next_wake"], moment)
    return wake_at


async def finished(connection: Connection, names: list[str], limit: int) -> list[Finished]:
    """The latest workflows that ended by themselves or were cancelled."""
    rows = [tuple(row) for row in await connection.fetch(SQL["finished"], names, limit)]
    return [Finished(Claimed(*row[:-4]), *row[-4:]) for row in rows]


async def outcomes(connection: Connection, workflows: Iterable[UUID]) -> dict[UUID, Outcome]:
    """What is known of these workflows; unknown ones are absent."""
    rows = await connection.fetch(SQL["outcomes"], list(workflows))
    return {row[0]: Outcome(*tuple(row)[1:]) for row in rows}


async def attach(connection: Connection, workflow_uuid: UUID) -> Outcome | None:
    """What a second start needs to know of the first."""
    row = await connection.fetchrow(SQL["attach"], workflow_uuid)
    return None if row is None else Outcome(*row)


async def status(connection: Connection, workflow_uuid: UUID) -> StatusRow | None:
    """Everything that `get_status` tells; None for an unknown UUID."""
    row = await connection.fetchrow(SQL["status"], workflow_uuid)
    return None if row is None else StatusRow(*row)


async def crashed(
    connection: Connection,
    incarnation: int,
    workflow_uuid: UUID,
    error: bytes,
    wait_kind: int,
    jitter: float,
    longest: float,
) -> Crashes | None:
    """Parks a workflow of ours whose actor crashed, for `jitter` of a pause that grows; None if it is not ours."""
    row = await connection.fetchrow(SQL["crashed"], workflow_uuid, incarnation, error, wait_kind, jitter, longest)
    return None if row is None else Crashes(*row)


async def let_go(connection: Connection, incarnation: int, workflows: Iterable[UUID], wait_kind: int) -> None:
    """Makes workflows of ours ready for whoever has room; those that are not ours, or have ended, stay as they are."""
    await connection.execute(SQL["let_go"], incarnation, list(workflows), wait_kind)


async def die(connection: Connection, incarnation: int, workflow_uuid: UUID, error: bytes, reason: bytes) -> list[UUID]:
    """Stops a workflow for good; it stays visible and can be resumed. Gives parked ones of ours that waited for it.

    Its children that shall not outlive it are cancelled with it, for this reason.
    """
    return await connection.fetchval(SQL["die"], workflow_uuid, incarnation, error, reason) or []


async def cancel(connection: Connection, workflow_uuid: UUID, reason: bytes) -> list[UUID]:
    """Cancels a workflow and its children; those that were. Nothing of them commits after that."""
    return await connection.fetchval(SQL["cancel"], workflow_uuid, reason) or []


async def resume(connection: Connection, workflow_uuid: UUID) -> list[UUID]:
    """Lets a cancelled or dead workflow go on, and its cancelled children; those that do."""
    return await connection.fetchval(SQL["resume"], workflow_uuid) or []


async def ring(connection: Connection, channel: str, bell: str) -> None:
    """Rings at another executor, or at all of them."""
    await connection.execute(SQL["ring"], channel, bell)
