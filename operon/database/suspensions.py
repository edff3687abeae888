"""Names that are suspended in the database, so that all executors agree: counted up, tried, lifted."""

from __future__ import annotations

from typing import NamedTuple
from uuid import UUID

from operon.database.connection import Connection
from operon.database.sql import statements

SQL = statements("suspensions.sql")

WINDOW_SECONDS = 60.0  # within which workflows of one name crash
FIRST_PAUSE_SECONDS = 5.0  # until one is tried; twice as much each time
LONGEST_PAUSE_SECONDS = 300.0


class Counted(NamedTuple):
    """How many workflows of a name crashed within the window; and if that suspends it, when one is tried."""

    crashes: int
    until: float | None


class Trial(NamedTuple):
    """Who has got past this step has passed; if nobody says so, the next one is tried then."""

    step: int
    until: float


async def count_crash(connection: Connection, workflow_uuid: UUID, many: int) -> Counted:
    """Counts a workflow that crashed. Its name is suspended when it is one of `many` within the window."""
    return Counted(
        *await connection.fetchrow(SQL["count_crash"], workflow_uuid, many, WINDOW_SECONDS, FIRST_PAUSE_SECONDS)
    )


async def try_one(connection: Connection, name: str) -> Trial | None:
    """The right to try one workflow of a suspended name, which one executor gets at a time; None for all others."""
    row = await connection.fetchrow(SQL["try_one"], name, FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS)
    return None if row is None else Trial(*row)


async def lift(connection: Connection, name: str) -> bool:
    """Lets the workflows of a name be run again; False if it is not suspended."""
    return await connection.fetchval(SQL["lift"], name) is True
