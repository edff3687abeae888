"""Messages that nobody received: to a workflow that had ended, or never read before it did.

The rule: a dead letter is kept until somebody decides. It is sent again once, or it is purged.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from operon.database.connection import Connection
from operon.database.sql import statements
from operon.errors import WorkflowFinishedError
from operon.status import Status

SQL = statements("dead_letters.sql")

ENDED = "OP410"


class DeadLetter(msgspec.Struct, frozen=True):
    """One message, and what is known of the workflow that it was for. The body is JSON text, as stored."""

    destination: UUID
    sequence: int
    topic: str | None
    reason: str
    detail: str | None
    sender: UUID | None
    sent_at: datetime
    died_at: datetime
    name: str | None  # of the operation; None when the workflow is gone
    status: Status | None
    body: str


async def page(
    connection: Connection, destination: UUID | None, reason: str | None, before: int | None, limit: int
) -> list[DeadLetter]:
    """The dead letters, newest first."""
    return [letter(row) for row in await connection.fetch(SQL["page"], destination, reason, before, limit)]


def letter(row: Any) -> DeadLetter:
    values: dict[str, Any] = {**row, "status": None if row["status"] is None else Status.from_code(row["status"])}
    return DeadLetter(**values)


async def requeue(connection: Connection, destination: UUID, sequence: int) -> bool:
    """Sends a dead letter again; False when there is none. WorkflowFinishedError when nobody can receive it."""
    try:
        sent: bool = await connection.fetchval(SQL["requeue"], destination, sequence)
    except asyncpg.PostgresError as error:
        if error.sqlstate == ENDED:
            raise WorkflowFinishedError(
                f"workflow {destination} has ended, or is unknown: nobody would receive it",
                hint="resume the workflow first if it is CANCELLED or DEAD, or start another one",
            ) from None
        raise
    return sent


async def purge(connection: Connection, destination: UUID | None, reason: str | None, before: datetime) -> int:
    """Deletes dead letters that died before; how many."""
    deleted: int = await connection.fetchval(SQL["purge"], destination, reason, before)
    return deleted


async def last_error(connection: Connection, workflow_uuid: UUID) -> bytes | None:
    """What a workflow crashed with last, as it is stored; None where its process died."""
    stored: bytes | None = await connection.fetchval(SQL["last_error"], workflow_uuid)
    return stored


async def set_aside(
    connection: Connection,
    incarnation: int,
    workflow_uuid: UUID,
    epoch: int,
    step: int,
    topic: str | None,
    body: bytes,
    times: int,
    detail: str,
    wait_kind: int,
) -> bool | None:
    """Takes back the receipt that a workflow of ours crashed at so many times, and parks it.

    False if it has got further than that, and keeps it; None if it is not ours any more.
    """
    done: bool | None = await connection.fetchval(
        SQL["set_aside"], incarnation, workflow_uuid, epoch, step, topic, body, times, detail, wait_kind
    )
    return done
