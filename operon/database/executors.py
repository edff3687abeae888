"""Executors: who is alive. An executor registers a new incarnation at each start; a dead one never comes back."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

import msgspec

from operon.database.connection import Connection
from operon.database.sql import statements

SQL = statements("executors.sql")

# The first of the two keys of an executor's session lock; the second is its incarnation.
SESSION_LOCK = 0x6F70


class Other(msgspec.Struct, frozen=True):
    """Another executor as the database sees it now."""

    incarnation: int
    lease_until: datetime
    expired: bool
    gone: bool  # its session lock is free
    grace_seconds: float  # for how long that has to be so before its process is


async def register(
    connection: Connection, version: str, lease_seconds: float, grace_seconds: float
) -> tuple[int, float]:
    """A new incarnation, alive for one lease; and the database's time."""
    host, pid = socket.gethostname(), os.getpid()
    row = await connection.fetchrow(SQL["register"], host, pid, version, lease_seconds, grace_seconds)
    return row[0], row[1]


async def clock(connection: Connection) -> float:
    """The database's time, in seconds since the epoch."""
    now: float = await connection.fetchval(SQL["clock"])
    return now


async def renew(
    connection: Connection, incarnation: int, lease_seconds: float, session_lock: bool, snapshot: bytes | None = None
) -> bool:
    """Renews the lease; False when somebody declared this executor dead, which is final.

    snapshot: what the executor says of itself; None leaves what it said last.
    """
    return await connection.fetchval(SQL["renew"], incarnation, lease_seconds, session_lock, snapshot) is not None


async def hold_session_lock(connection: Connection, incarnation: int) -> bool:
    """Takes the lock that ends with this session, or has it: to peers, its end is the end of the process.

    False while the server still sees an earlier session of this executor that holds it.
    """
    return await connection.fetchval(SQL["hold_session_lock"], SESSION_LOCK, incarnation) is True


async def landed(connection: Connection, incarnation: int, batch: int) -> tuple[bool, str | None, bool]:
    """Whether a batch landed, what its messages were answered, and whether its executor is alive.

    Waits for a batch that is under way. One that has not landed never will.
    """
    landed, answers, alive = await connection.fetchrow(SQL["landed"], incarnation, batch)
    return landed, answers, alive


async def others(connection: Connection, incarnation: int) -> list[Other]:
    """Every other executor that counts as alive."""
    rows = await connection.fetch(SQL["others"], incarnation, SESSION_LOCK)
    return [
        Other(row["incarnation"], row["lease_until"], row["expired"], row["gone"], row["grace_seconds"]) for row in rows
    ]


async def declare_dead(connection: Connection, incarnation: int, lease_until: datetime) -> bool:
    """Declares an executor dead unless it has renewed its lease since; True if this call did it."""
    return await connection.fetchval(SQL["declare_dead"], incarnation, lease_until) is not None


async def kill(connection: Connection, incarnation: int) -> None:
    """For tests: as if somebody else had declared this executor dead."""
    await connection.execute(SQL["kill"], incarnation)


async def leave(connection: Connection, incarnation: int) -> int:
    """The end of an orderly shutdown; gives how many workflows are now ready for others."""
    released: int = await connection.fetchval(SQL["leave"], incarnation)
    return released


async def forget_revoked(connection: Connection, incarnation: int, workflows: Iterable[UUID]) -> None:
    """Says that these have been dropped."""
    await connection.execute(SQL["forget_revoked"], incarnation, list(workflows))


async def forget(connection: Connection) -> None:
    """Removes executors that are long dead and own nothing."""
    await connection.execute(SQL["forget"])
