"""Reading for authentication functions: one statement, which may look at everything and change nothing.

It runs on the runtime's own look-ups, so that logging in does not wait for a transaction pool that is busy. There are
few of those connections, so a slow question ends soon, and whatever a statement set is rolled back.
"""

from __future__ import annotations

from typing import Any

from operon.database.connection import Connection
from operon.database.pool import Pool
from operon.rows import Row
from operon.runtime.client import TransactionClient

PATIENCE_SECONDS = 10.0  # for a database that is away; the client of a request waits meanwhile
STATEMENT_SECONDS = 5.0


async def query(look_ups: Pool, statement: str, args: tuple[Any, ...]) -> list[Row]:
    """The rows. Raises DatabaseUnavailable, and Postgres' own error for a statement that is wrong or writes."""

    async def read(connection: Connection) -> list[Row]:
        # By an error it stays open, and the pool throws the connection away.
        await connection.execute("begin read only")
        records = await TransactionClient(connection).fetch(statement, *args, timeout=STATEMENT_SECONDS)
        await connection.execute("rollback")
        return [Row(tuple(record.keys()), tuple(record.values())) for record in records]

    return await look_ups.ask(read, PATIENCE_SECONDS)
