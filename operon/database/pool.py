"""The connections that user transactions and look-ups run on: last in, first out, and never reset.

asyncpg's own pool sends a reset after each use, which costs as much as a statement. A connection here is only given
back idle, between transactions; after any doubt (an error on the wire, a cancellation) it is terminated instead, so
nothing of one transaction can reach the next.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from operon.database.connection import SESSION, Connection, close, connect, is_weather
from operon.errors import DatabaseUnavailable

ACQUIRE_SECONDS = 30.0
ASK_AGAIN_SECONDS = 0.1

T = TypeVar("T")


class Pool:
    """At most `size` connections, opened as they are needed.

    prepare: what to do with a new connection first; nothing is left in the session of a pooler.
    pooled: they lead through a pooler, which may be in transaction mode.
    """

    def __init__(
        self,
        url: str,
        size: int,
        prepare: Callable[[Connection], Awaitable[object]] | None = None,
        *,
        session: dict[str, str] = SESSION,
        pooled: bool = False,
    ) -> None:
        self.pooled = pooled
        self._session = session
        self._url = url
        self._size = size
        self._prepare = prepare
        self._idle: list[Connection] = []
        self._used: set[Connection] = set()
        self._opening = 0
        self._waiters: deque[asyncio.Future[Connection | None]] = deque()
        self._closed = False

    async def acquire(self, timeout: float = ACQUIRE_SECONDS) -> Connection:
        """An idle connection, not in a transaction. DatabaseUnavailable after `timeout` seconds without one."""
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed():
                self._used.add(connection)
                return connection
        if self._closed:
            raise DatabaseUnavailable("the connection pool is closed")
        if len(self._used) + self._opening < self._size:
            return await self._open()
        waiter: asyncio.Future[Connection | None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout(timeout):
                granted = await waiter
        except BaseException as error:
            if waiter.done() and not waiter.cancelled():  # served in the same moment, and cannot take it
                self._pass_on(waiter.result())
            if not isinstance(error, TimeoutError):
                raise
            raise DatabaseUnavailable(
                f"none of {self._size} database connections was free for {timeout} s",
                hint="raise pool_size, or look for transactions that wait for something else than the database",
            ) from None
        return granted if granted is not None else await self.acquire(timeout)

    def release(self, connection: Connection) -> None:
        """Gives a connection back. One that is closed or still in a transaction is terminated."""
        self._used.discard(connection)
        if self._closed or connection.is_closed() or connection.is_in_transaction():
            connection.terminate()
            self._grant(None)
            return
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                self._used.add(connection)
                waiter.set_result(connection)
                return
        self._idle.append(connection)

    def discard(self, connection: Connection) -> None:
        """Terminates a connection whose state is in doubt."""
        connection.terminate()
        self.release(connection)

    @asynccontextmanager
    async def connection(self) -> AsyncGenerator[Connection]:
        """A connection for one or more autocommit statements; terminated if the block is left by an error."""
        connection = await self.acquire()
        try:
            yield connection
        except BaseException:
            self.discard(connection)
            raise
        self.release(connection)

    async def ask(self, query: Callable[[Connection], Awaitable[T]], patience_seconds: float | None = None) -> T:
        """The answer to a question that changes nothing, or nothing twice; asked again while the database is away.

        patience_seconds: how long to go on asking before DatabaseUnavailable; None for as long as it takes.
        """
        begun = asyncio.get_running_loop().time()
        while True:
            try:
                async with self.connection() as connection:
                    return await query(connection)
            except Exception as error:
                if self._closed or not is_weather(error):
                    raise
                if patience_seconds is not None and asyncio.get_running_loop().time() - begun > patience_seconds:
                    raise DatabaseUnavailable(
                        f"the database has not answered for {patience_seconds:g} s ({type(error).__name__})",
                        hint="nothing is lost; try again",
                    ) from error
            await asyncio.sleep(ASK_AGAIN_SECONDS)

    async def close(self) -> None:
        """Closes what is idle, terminates what is still used."""
        self._closed = True
        for connection in self._used:
            connection.terminate()
        while self._waiters:
            self._grant(None)
        await asyncio.gather(*(close(connection) for connection in self._idle))
        self._idle.clear()

    async def _open(self) -> Connection:
        self._opening += 1
        connection: Connection | None = None
        try:
            connection = await connect(self._url, self._session, pooled=self.pooled)
            if self._prepare is not None and not self.pooled:
                await self._prepare(connection)
        except BaseException:
            if connection is not None:
                connection.terminate()
            self._grant(None)
            raise
        finally:
            self._opening -= 1
        self._used.add(connection)
        return connection

    def _pass_on(self, granted: Connection | None) -> None:
        """What a waiter was given and cannot take, for the next one: a connection, or the right to open one."""
        if granted is None:
            self._grant(None)
        else:
            self.release(granted)

    def _grant(self, connection: Connection | None) -> None:
        """Wakes one waiter, which finds that it may open a connection."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return

    def __repr__(self) -> str:
        return f"<Pool {len(self._used)} used, {len(self._idle)} idle of {self._size}, {len(self._waiters)} waiting>"
