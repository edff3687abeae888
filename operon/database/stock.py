"""Private databases for the tests of this process, in stock: taking one costs a look, giving one back nothing.

Making a database out of the migrated template takes Postgres some 25 ms, removing one as long and, with fsync, several
times that. Both happen here beside the tests: one connection, in a thread of its own, which outlives the event loops
that come and go with them. Who takes a second database will take more: from then on one is made ahead.

What was made here is removed by the end of the process, and nothing else ever is. A process that is killed leaves its
last databases behind.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import logging
import secrets
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from operon.database.connection import Connection, connect
from operon.database.testbed import check, migrated_template

T = TypeVar("T")

logger = logging.getLogger("operon.testing")

END_SECONDS = 30.0


class Stock:
    """The test databases of one server."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._made: set[str] = set()
        self._taken = 0
        self._spare: asyncio.Task[str] | None = None
        self._connection: Connection | None = None
        self._lock = asyncio.Lock()
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

    async def removed(self) -> None:
        """Waits until everything that was given back so far is gone."""
        await self._there(self._removals_done())

    def close(self) -> None:
        """Removes what is left. At the end of the process."""
        atexit.unregister(self.close)
        with contextlib.suppress(Exception):  # a server that is gone takes its databases along
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
        async with self._lock:
            connection = await self._connected()
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
            async with self._lock:
                connection = await self._connected()
                await connection.execute(f'drop database if exists "{check(name)}" with (force)')
            self._made.discard(name)
        except Exception as error:
            logger.warning("%s was not removed: %s", name, error)

    async def _removals_done(self) -> None:
        await asyncio.gather(*self._removals)

    async def _clear(self) -> None:
        if self._spare is not None:
            await asyncio.gather(self._spare, return_exceptions=True)
        await self._removals_done()
        for name in list(self._made):
            await self._remove(name)
        if self._connection is not None:
            await self._connection.close()

    async def _connected(self) -> Connection:
        if self._connection is None or self._connection.is_closed():
            self._connection = await connect(self._server)
        return self._connection

    def __repr__(self) -> str:
        return f"<Stock: {len(self._made)} databases>"


_stocks: dict[str, Stock] = {}


def stock_of(server: str) -> Stock:
    """The stock of a server, one for each process."""
    if server not in _stocks:
        _stocks[server] = Stock(server)
    return _stocks[server]
