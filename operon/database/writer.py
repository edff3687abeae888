"""The one connection that batches are written on.

A flush is one round trip and one transaction. When the connection is lost in the middle of one, nobody knows whether
it landed: `landed` asks, on a new connection, and waits for the old transaction if it is still under way, because both
lock the executor's row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import asyncpg

from operon.database import executors
from operon.database.batch import Batch
from operon.database.connection import WRITER, Connection, close, connect, sqlstate
from operon.errors import Fenced

FLUSH = "select operon.flush(" + ", ".join(f"${n}" for n in range(1, 28)) + ")"

FENCED = ("OP001", "OP002")


class Writer:
    """Owns the writing connection of an executor; used by its committer alone."""

    def __init__(self, url: str, version: str) -> None:
        self._url = url
        self._version = version
        self._connection: Connection | None = None
        self._flush: Any = None
        self.shapes: dict[Any, Any] = {}  # what the server said of one-statement steps, by statement

    async def open(self) -> Connection:
        """The connection, opened anew if it was lost."""
        if self._connection is None or self._connection.is_closed():
            self._connection = await connect(self._url, WRITER)
            self._flush = await self._connection.prepare(FLUSH)
        return self._connection

    async def flush(self, incarnation: int, number: int, batch: Batch) -> Sequence[UUID]:
        """Makes a batch durable; gives the starts whose UUID was taken. Raises Fenced, or asyncpg's error."""
        await self.open()
        try:
            taken: Sequence[UUID] | None = await self._flush.fetchval(
                incarnation, number, self._version, *batch.columns()
            )
        except asyncpg.PostgresError as error:
            if sqlstate(error) in FENCED:
                raise Fenced(str(error)) from error
            raise
        return taken or ()

    async def begin(self) -> Connection:
        """Opens a transaction for one-statement steps, which the next `flush` and `commit` are part of."""
        connection = await self.open()
        await connection.execute("begin")
        return connection

    async def commit(self) -> None:
        await (await self.open()).execute("commit")

    async def rollback(self) -> None:
        """Ends a failed transaction, with the connection if need be."""
        if self._connection is None or not self.usable:
            return
        try:
            await self._connection.execute("rollback")
        except Exception:
            self.discard()

    @property
    def usable(self) -> bool:
        """Whether the connection survived the last error."""
        return self._connection is not None and not self._connection.is_closed()

    async def landed(self, incarnation: int, number: int) -> bool:
        """Whether a batch is durable, asked after its acknowledgement was lost. Raises Fenced if we are dead."""
        self.discard()
        last, dead = await executors.last_batch(await self.open(), incarnation)
        if dead and last < number:
            raise Fenced(f"executor {incarnation} was declared dead")
        return last >= number

    def discard(self) -> None:
        """Drops the connection; the next use opens another."""
        if self._connection is not None:
            self._connection.terminate()
        self._connection = None

    async def close(self) -> None:
        await close(self._connection)
        self._connection = None
