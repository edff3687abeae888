"""Private databases for the tests of this process, in stock: taking one costs a look, giving one back nothing.

Making a database out of the migrated template takes Postgres some 50 ms of a processor, and removing one waits for the
disk. Both happen here beside the tests, on two connections, in a thread of its own, which outlives the event loops that
come and go with them. Who takes a second database will take more: from then on one is made ahead.

What was made here is removed by the end of the process, and nothing else ever is. A process that is killed leaves its
last databases behind.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import secrets
import threading
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from operon.database.connection import Connection, close, connect
from operon.database.testbed import check, migrated_template
from operon.masking import masked_logger

T = TypeVar("T")

logger = masked_logger("operon.testing")

END_SECONDS = 120.0  # each removal waits for a checkpoint: milliseconds, or seconds where others write a lot


class Line:
    """A connection that statements take in turns, opened when it is needed."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._connection: Connection | None = None
        self._lock = asyncio.Lock()

    @asynccontextmanager
    async def connection(self) -> AsyncGenerator[Connection]:
        """The connection, for one user at a time."""
        async with self._lock:
            if self._connection is None or self._connection.is_closed():
                self._connection = await connect(self._server)
            yield self._connection

    async def close(self) -> None:
        """Closes the connection, if there is one."""
        await close(self._connection)


class Stock:
    """The test databases of one server."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._made: set[str] = set()
        self._taken = 0
        self._spare: asyncio.Task[str] | None = None
        self._making = Line(server)
        self._removing = Line(server)
        self._removals: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="operon-test-databases", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    async def take(self) -> str:
        """The name of a migrated database that nobody else has."""
        return await self._there(self._take())

    async def copy(self, name: str) -> str:
        """The name of a copy of a database, which nobody may be connected to."""
        return await self._there(self._make(check(name)))

    def give_back(self, name: str) -> None:
        """Removes a database, with whoever is connected to it, and does not wait."""
        self._loop.call_soon_threadsafe(self._remove_later, name)

    async def rest(self) -> None:
        """Waits until nothing is being made, and all that was given back so far is gone."""
        await self._there(self._rested())

    def close(self) -> None:
        """Removes what is left. At the end of the process."""
        atexit.unregister(self.close)
        with contextlib.suppress(Exception):  # nobody is left to tell
            asyncio.run_coroutine_threadsafe(self._clear(), self._loop).result(END_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(END_SECONDS)
        if not self._thread.is_alive():
            self._loop.close()

    async def _there(self, work: Coroutine[Any, Any, T]) -> T:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    # ------------------------------------------------------------------ in the thread

    async def _take(self) -> str:
        self._taken += 1
        spare, self._spare = self._spare, None
        name = None
        if spare is not None:
            with contextlib.suppress(Exception):  # then it is tried again, and the caller hears of it
                name = await spare
        if name is None:
            name = await self._make(None)
        if self._taken > 1:
            self._spare = self._loop.create_task(self._make(None))
        return name

    async def _make(self, template: str | None) -> str:
        name = f"operon_test_{secrets.token_hex(6)}"
        self._made.add(name)
        async with self._making.connection() as connection:
            source = template or await migrated_template(connection, self._server)
            await connection.execute(f'create database "{name}" template "{source}"')
        return name

    def _remove_later(self, name: str) -> None:
        self._removals.add(task := self._loop.create_task(self._remove(name)))
        task.add_done_callback(self._removals.discard)

    async def _remove(self, name: str) -> None:
        if name not in self._made:
            return
        try:
            async with self._removing.connection() as connection:
                await connection.execute(f'drop database if exists "{check(name)}" with (force)')
            self._made.discard(name)
        except OSError as error:  # a server that is gone: a test's own, which took its databases along
            self._made.discard(name)
            logger.debug("%s is gone with its server: %s", name, error)
        except Exception as error:
            logger.warning("%s was not removed: %s", name, error)

    async def _rested(self) -> None:
        if self._spare is not None:
            await asyncio.wait({self._spare})
        await asyncio.gather(*self._removals)

    async def _clear(self) -> None:
        await self._rested()
        for name in list(self._made):
            await self._remove(name)
        await self._making.close()
        await self._removing.close()

    def __repr__(self) -> str:
        return f"<Stock: {len(self._made)} databases>"


_stocks: dict[str, Stock] = {}


def stock_of(server: str) -> Stock:
    """The stock of a server, one for each process."""
    if server not in _stocks:
        _stocks[server] = Stock(server)
    return _stocks[server]
