"""Reading for authentication functions: one statement, which may look at everything and change nothing.

It runs on the runtime's own look-ups, so that logging in does not wait for a transaction pool that is busy. There are
few of those connections, so a slow question ends soon, and whatever a statement set is rolled back.
"""

from __future__ import annotations

from typing import Any

from operon.database.connection import READ_ANYTHING, Connection
from operon.database.pool import Pool
from operon.errors import InvocationError
from operon.rows import Row
from operon.runtime.client import TransactionClient

PATIENCE_SECONDS = 10.0  # for a database that is away; the client of a request waits meanwhile
STATEMENT_SECONDS = 5.0
READ_ONLY = "25006"  # for anyone else this is weather: a server that has become a standby


async def query(look_ups: Pool, statement: str, args: tuple[Any, ...]) -> list[Row]:
    """The rows. Raises InvocationError for a statement that writes, DatabaseUnavailable, and Postgres' own errors."""

    async def read(connection: Connection) -> list[Row]:
        # By an error it stays open, and the pool throws the connection away.
        await connection.execute(READ_ANYTHING)
        try:
            records = await TransactionClient(connection).fetch(statement, *args, timeout=STATEMENT_SECONDS)
        except Exception as error:
            if getattr(error, "sqlstate", None) != READ_ONLY:
                raise
            raise InvocationError(
                f"ctx.query only reads, and this writes: {statement.strip()[:40]}",
                hint="write in a transaction of the application, from a handler or a workflow",
            ) from error
        await connection.execute("rollback")
        return [Row(tuple(record.keys()), tuple(record.values())) for record in records]

    return await look_ups.ask(read, PATIENCE_SECONDS)
