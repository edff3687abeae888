"""One connection that listens, for the whole executor, and whose end tells the peers that this process is gone.

NOTIFY is a doorbell, not a letter: what it announces is in the tables either way, so a lost notification costs one tick
of the safety poll and never a result. After each (re)connection the order is: LISTEN, its acknowledgement, *then* the
catch-up, or what happens in between would be missed.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Any

from operon.database.connection import Connection, close, connect, describe
from operon.database.executors import hold_session_lock
from operon.database.lease import Lease

logger = logging.getLogger("operon.notifier")

EVERYBODY = "operon_all"
RETRY_SECONDS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


def channel(incarnation: int) -> str:
    """The channel that only this executor listens to."""
    return f"operon_{int(incarnation)}"


class Notifier:
    """Hands every notification to `on_bell`, and says `on_connected` after each LISTEN that was acknowledged."""

    def __init__(
        self, url: str, lease: Lease, on_bell: Callable[[str], None], on_connected: Callable[[], None]
    ) -> None:
        self._url = url
        self._lease = lease
        self._on_bell = on_bell
        self._on_connected = on_connected
        self._bells: deque[str] = deque()
        self._rung = asyncio.Event()
        self.reconnects = -1

    async def run(self, started: Callable[[], None]) -> None:
        """Listens until cancelled; reconnects by itself."""
        failures = 0
        while True:
            connection: Connection | None = None
            try:
                connection = await connect(self._url)
                await self._listen(connection)
                failures = 0
                self.reconnects += 1
                self._on_connected()
                started()
                await self._serve(connection)
            except Exception as error:
                logger.warning("the listening connection was lost: %s", describe(error, self._url))
                await asyncio.sleep(RETRY_SECONDS[min(failures, len(RETRY_SECONDS) - 1)])
                failures += 1
            finally:
                self._lease.session_lock = False
                self._lease.nudge()
                if connection is not None:
                    connection.terminate() if connection.is_closed() else await close(connection)

    async def _listen(self, connection: Connection) -> None:
        connection.add_termination_listener(self._terminated)
        await connection.add_listener(channel(self._lease.incarnation), self._notified)
        await connection.add_listener(EVERYBODY, self._notified)
        await hold_session_lock(connection, self._lease.incarnation)
        self._lease.session_lock = True
        self._lease.nudge()

    async def _serve(self, connection: Connection) -> None:
        while not connection.is_closed():
            self._rung.clear()
            while self._bells:
                self._on_bell(self._bells.popleft())
            if connection.is_closed():
                return
            await self._rung.wait()
        raise ConnectionResetError("the server ended the session")

    def _notified(self, _connection: Any, _pid: int, _channel: str, payload: object) -> None:
        # Runs inside the driver's protocol callback: nothing but this.
        self._bells.append(str(payload))
        self._rung.set()

    def _terminated(self, _connection: Any) -> None:
        self._rung.set()
