"""Messages and events in the database: looked for here. They are written and removed by the committer's flush."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import msgspec

from operon.database.connection import Connection
from operon.database.sql import statements

SQL = statements("notifications.sql")
BURY_MAX = 1_000  # as in the statement


class EventRow(msgspec.Struct, frozen=True):
    """An event, if it was set, and the workflow that sets it."""

    status: int
    owner: int | None
    value: bytes | None


async def oldest(
    connection: Connection, asked: Sequence[tuple[UUID, str | None, int]]
) -> list[list[tuple[int, bytes, str | None]]]:
    """Sequence, body and trace of the oldest messages, for each destination, topic and limit that is asked for."""
    found: list[list[tuple[int, bytes, str | None]]] = [[] for _ in asked]
    for row in await connection.fetch(SQL["oldest"], *zip(*asked, strict=True)):
        number: int = row[0]
        found[number - 1].append((row[1], row[2], row[3]))
    return found


async def waiting(connection: Connection, asked: Sequence[tuple[UUID, str | None]]) -> list[UUID]:
    """Of these workflows, each with a topic that it waits for, those that have a message."""
    rows = await connection.fetch(SQL["waiting"], [uuid for uuid, _ in asked], [topic for _, topic in asked])
    return [row[0] for row in rows]


async def event(connection: Connection, workflow_uuid: UUID, key: str, owner: str | None) -> EventRow | None:
    """An event; None when there is no such workflow of this owner."""
    row = await connection.fetchrow(SQL["event"], workflow_uuid, key, owner)
    return None if row is None else EventRow(*row)


async def events(connection: Connection, asked: Sequence[tuple[UUID, str]]) -> list[tuple[UUID, str]]:
    """Those of these events that were set."""
    rows = await connection.fetch(SQL["events"], [uuid for uuid, _ in asked], [key for _, key in asked])
    return [(row[0], row[1]) for row in rows]


async def bury(connection: Connection) -> bool:
    """Some of the messages that finished workflows never received become dead letters; True: there may be more."""
    return await connection.execute(SQL["bury"]) == f"INSERT 0 {BURY_MAX}"
