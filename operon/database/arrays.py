"""Arrays of UUIDs as they travel: as text, which Postgres reads as fast as their bytes.

asyncpg asks every element of an array twice whether it is an array itself, and who is a UUID says no. That takes 0.4 us
for each, five times what it takes to write them down.
"""

from __future__ import annotations

from collections.abc import Collection
from uuid import UUID


def uuids(column: Collection[UUID]) -> str:
    """The text of an array, for a parameter like `$1::text::uuid[]`."""
    return f"{{{','.join([uuid.hex for uuid in column])}}}"


def some_uuids(column: Collection[UUID]) -> str | None:
    """The same; None for an empty one."""
    return uuids(column) if column else None
