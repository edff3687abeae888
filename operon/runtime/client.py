"""What a transaction function gets as `tx.client`: the open transaction, and nothing that could end it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from operon.database.connection import Connection
from operon.errors import InvocationError


class TransactionClient:
    """asyncpg's query methods inside the open transaction. Remembers the last error, also one that was caught."""

    __slots__ = ("_connection", "failure")

    def __init__(self, connection: Connection) -> None:
        self._connection: Connection | None = connection
        self.failure: Exception | None = None

    def close(self) -> None:
        """The transaction is over: later calls are refused."""
        self._connection = None

    async def execute(self, statement: str, *args: Any, timeout: float | None = None) -> str:
        """Runs a statement; gives its status, `UPDATE 1`."""
        try:
            status: str = await self._open().execute(statement, *args, timeout=timeout)
            return status
        except Exception as error:
            raise self._noted(error)  # noqa: B904

    async def executemany(self, statement: str, args: Iterable[Sequence[Any]], *, timeout: float | None = None) -> None:
        """Runs a statement once for each sequence of arguments."""
        try:
            await self._open().executemany(statement, args, timeout=timeout)
        except Exception as error:
            raise self._noted(error)  # noqa: B904

    async def fetch(self, statement: str, *args: Any, timeout: float | None = None) -> list[Any]:
        """All rows, as asyncpg records."""
        try:
            rows: list[Any] = await self._open().fetch(statement, *args, timeout=timeout)
            return rows
        except Exception as error:
            raise self._noted(error)  # noqa: B904

    async def fetchrow(self, statement: str, *args: Any, timeout: float | None = None) -> Any:
        """The first row, or None."""
        try:
            return await self._open().fetchrow(statement, *args, timeout=timeout)
        except Exception as error:
            raise self._noted(error)  # noqa: B904

    async def fetchval(self, statement: str, *args: Any, column: int = 0, timeout: float | None = None) -> Any:
        """One column of the first row, or None."""
        try:
            return await self._open().fetchval(statement, *args, column=column, timeout=timeout)
        except Exception as error:
            raise self._noted(error)  # noqa: B904

    def cursor(self, statement: str, *args: Any, prefetch: int | None = None) -> Any:
        """The rows one after another: `async for row in tx.client.cursor(...)`."""
        return self._open().cursor(statement, *args, prefetch=prefetch)

    def _open(self) -> Connection:
        if self._connection is None:
            raise InvocationError(
                "tx.client was used after its transaction had ended",
                hint="return what is needed from the transaction; do not keep its client",
            )
        return self._connection

    def _noted(self, error: Exception) -> Exception:
        if not isinstance(error, InvocationError):
            self.failure = error
        return error
