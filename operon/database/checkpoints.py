"""Checkpoints in the database: read for replay, looked up when an acknowledgement was lost.

They are written in two places only: by the committer's flush, and by a user's transaction as its last statement. How
the attempts of a call have failed is kept with its announcement, which is no answer.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import NamedTuple
from uuid import UUID

from operon.database.arrays import uuids
from operon.database.connection import Connection
from operon.database.sql import statements

SQL = statements("checkpoints.sql")
PARAMETER = re.compile(r"\$(\d+)")


class Checkpoint(NamedTuple):
    """A recorded step. Exactly one of output and error is there."""

    step: int
    kind: int
    name: str
    output: bytes | None
    error: bytes | None
    seen: str | None


class Recorded(NamedTuple):
    """What stands where a transaction's checkpoint should be."""

    token: int | None
    output: bytes | None
    error: bytes | None


async def history(connection: Connection, workflows: Collection[UUID]) -> dict[UUID, list[Checkpoint]]:
    """The recorded steps of a batch of workflows, in order."""
    found: dict[UUID, list[Checkpoint]] = {}
    for uuid, *fields in await connection.fetch(SQL["history"], uuids(workflows)):
        found.setdefault(uuid, []).append(Checkpoint(*fields))
    return found


async def recorded(connection: Connection, workflow_uuid: UUID, step: int) -> Recorded | None:
    """The checkpoint of a step, if there is one."""
    row = await connection.fetchrow(SQL["recorded"], workflow_uuid, step)
    return None if row is None else Recorded(*row)


async def keep_attempts(
    connection: Connection,
    incarnation: int,
    workflow_uuid: UUID,
    epoch: int,
    call: int,
    kind: int,
    name: str,
    attempts: bytes,
) -> bool:
    """Keeps how the attempts of a call have failed so far; False if the workflow is not this life's any more."""
    kept = await connection.fetchval(
        SQL["keep_attempts"], incarnation, workflow_uuid, epoch, call, kind, name, attempts
    )
    return kept is True


async def prepare_checkpoint(connection: Connection) -> None:
    """Makes `operon_checkpoint` known to a session of the pool."""
    await connection.execute(f"prepare operon_checkpoint as {SQL['checkpoint']}")


def commit_with_checkpoint(
    workflow_uuid: UUID,
    step: int,
    owner: int,
    epoch: int,
    name: str,
    token: int,
    output: bytes,
    started: float,
    seen: str | None,
    attempts: int | None,
    kind: int,
    *,
    prepared: bool,
) -> str:
    """The last message of a user's transaction: its checkpoint and its COMMIT in one round trip.

    The simple-query protocol has no parameters, so only hexadecimal digits and numbers of our own making stand in it.
    prepared: whether the session knows `operon_checkpoint`. Where sessions are shared it is told the statement each
    time, which costs the server a plan.
    """
    seen_hex = "null" if seen is None else f"convert_from('\\x{seen.encode().hex()}', 'UTF8')"
    tried = "null" if attempts is None else f"{attempts:d}"
    values = (
        f"'{workflow_uuid.hex}'",
        f"{step:d}",
        f"{owner:d}",
        f"{epoch:d}",
        f"'\\x{name.encode().hex()}'",
        f"{token:d}",
        f"'\\x{output.hex()}'",
        f"{started:.6f}",
        seen_hex,
        tried,
        f"{kind:d}",
    )
    if prepared:
        return f"execute operon_checkpoint ({', '.join(values)}); commit"
    return PARAMETER.sub(lambda parameter: values[int(parameter[1]) - 1], SQL["checkpoint"]) + "; commit"
