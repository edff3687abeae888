"""One connection that listens, for the whole executor.

NOTIFY is a doorbell, not a letter: what it announces is in the tables either way, so a lost notification costs one tick
of the safety poll and never a result. Three rules follow:

- After each (re)connection the order is LISTEN, its acknowledgement, *then* the catch-up, or what happens in between
  would be missed.
- A connection that looks well may hear nothing: half open, or a pooler's, which gives its sessions to others between
  transactions. So the listener rings at itself now and then and expects to hear it. The first of these pings goes over
  a connection of another kind, as the bells of others will: what a session says to itself reaches it also where
  nothing else does, behind a pooler in transaction mode or in another database. Only after that may the lease take the
  executor's session lock, for a pooled session would keep it after this process is gone.
- While nothing, or nothing for certain, is heard, the safety poll goes faster: `poll_seconds` says how fast.

    off                  notify=off: no connection, and no session lock, only polls
    down -> doubtful     LISTEN was acknowledged; the catch-up is under way
    doubtful -> healthy  a ping was heard
    healthy -> doubtful  a ping is overdue
    -> down              the connection ended, or a ping was not heard in time: the next one is opened
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from operon.database import workflows
from operon.database.connection import Connection, close, connect, describe
from operon.database.lease import Lease
from operon.database.pool import Pool
from operon.masking import masked_logger

logger = masked_logger("operon.notifier")

EVERYBODY = "operon_all"
PING = "ping:"
RETRY_SECONDS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
UNHEARD_POLL_SECONDS = 0.1  # ten looks a second while it hears nothing: what was announced comes 50 ms late
OFF_POLL_SECONDS = 0.25  # a quarter of those, for it is no outage but a choice: an answer comes 125 ms late
SLICE = 256  # bells handed over before the event loop gets its turn; some 1 ms
BELLS_MAX = 50_000  # bells that wait to be handed over; beyond, the oldest are dropped and everybody looks
MEAN_WEIGHT = 0.2  # of the newest ping in the mean

UNHEARD = (
    "it rang at itself and heard nothing for {:g} s; if that goes on: does it listen through a pooler in transaction "
    "mode, or in another database? Set direct_url, or notify=off"
)


def channel(incarnation: int) -> str:
    """The channel that only this executor listens to."""
    return f"operon_{int(incarnation)}"


class Hearing(StrEnum):
    """How well an executor hears."""

    OFF = "off"
    DOWN = "down"
    DOUBTFUL = "doubtful"
    HEALTHY = "healthy"


@dataclass(frozen=True, slots=True)
class NotifierGauges:
    """What a dashboard shows of a notifier."""

    state: Hearing
    ping_seconds: float | None  # how long the last ping took to be heard
    ping_mean_seconds: float | None  # exponentially weighted
    reconnects: int
    heard: int  # notifications, without our own pings
    found_by_poll: int  # what no notification had announced


class Notifier:
    """Hands every notification to `on_bell`, and says `on_connected` after each LISTEN that was acknowledged.

    url: where to listen, past any pooler in transaction mode; None for notify=off.
    pooled: it leads through a pooler, of whole sessions.
    on_doubt: called when a healthy listener is not certain to hear any more; whoever polls looks now, and asks
        `poll_seconds` how long to pause.
    look_ups: where the first ping of each connection goes out; the connection itself if there is none.
    ping_seconds: from one ping to the next. doubt_seconds: when a ping is overdue. answer_seconds: when the connection
        is given up for one that is not heard.
    """

    def __init__(
        self,
        url: str | None,
        lease: Lease,
        on_bell: Callable[[str], None],
        on_connected: Callable[[], None],
        *,
        on_doubt: Callable[[], None] = lambda: None,
        look_ups: Pool | None = None,
        ping_seconds: float = 5.0,
        doubt_seconds: float = 1.0,
        answer_seconds: float = 5.0,
        pooled: bool = False,
    ) -> None:
        self._url = url
        self._pooled = pooled
        self._lease = lease
        self._on_bell = on_bell
        self._on_connected = on_connected
        self._on_doubt = on_doubt
        self._look_ups = look_ups
        self._ping_seconds = ping_seconds
        self._doubt_seconds = doubt_seconds
        self._answer_seconds = answer_seconds
        self._state = Hearing.OFF if url is None else Hearing.DOWN
        self._line: Line | None = None
        self._bells: deque[str] = deque(maxlen=BELLS_MAX)
        self._rung = asyncio.Event()
        self._connections = 0
        self._failures = 0
        self._complaint = ""
        self._pings = 0
        self._ping_took: float | None = None
        self._ping_mean: float | None = None
        self._heard = 0
        self._found_by_poll = 0

    async def run(self, started: Callable[[], None]) -> None:
        """Listens until cancelled; reconnects by itself. It counts as started after one attempt: polls cover for it."""
        if self._url is None:
            started()
            await asyncio.Event().wait()
            return
        async with asyncio.TaskGroup() as group:
            group.create_task(self._hand_over())
            while True:
                try:
                    await self._listen(self._url, started)
                except Exception as error:
                    self._complain(describe(error, self._url))
                started()
                await asyncio.sleep(RETRY_SECONDS[min(self._failures, len(RETRY_SECONDS) - 1)])
                self._failures += 1

    @property
    def healthy(self) -> bool:
        """Whether notifications are heard: listening, and the last ping was heard, or is not overdue yet."""
        return self._state is Hearing.HEALTHY

    def poll_seconds(self, normal: float, *, waiting: bool = True) -> float:
        """How long the safety poll may pause: `normal` while notifications are heard, else less.

        waiting: whether anybody here waits for what a notification would announce. With notify=off, an executor where
        nobody does keeps to `normal`: it would ask four times a second for ever, and for nothing.
        """
        match self._state:
            case Hearing.HEALTHY:
                return normal
            case Hearing.OFF:
                return min(normal, OFF_POLL_SECONDS) if waiting else normal
            case Hearing.DOWN | Hearing.DOUBTFUL:
                return min(normal, UNHEARD_POLL_SECONDS)

    def missed(self, count: int) -> None:
        """Says that a poll found something that no notification had announced."""
        self._found_by_poll += count

    def gauges(self) -> NotifierGauges:
        """How it is now, and counts since the start."""
        return NotifierGauges(
            state=self._state,
            ping_seconds=self._ping_took,
            ping_mean_seconds=self._ping_mean,
            reconnects=max(0, self._connections - 1),
            heard=self._heard,
            found_by_poll=self._found_by_poll,
        )

    # ------------------------------------------------------------------ one connection

    async def _listen(self, url: str, started: Callable[[], None]) -> None:
        """From one connection to its end, which is an exception."""
        connection = await connect(url, pooled=self._pooled)
        line = self._line = Line(connection)
        try:
            async with asyncio.timeout(self._answer_seconds):
                connection.add_termination_listener(line.terminated)
                await connection.add_listener(channel(self._lease.incarnation), self._notified)
                await connection.add_listener(EVERYBODY, self._notified)
            self._connections += 1
            self._become(Hearing.DOUBTFUL)
            self._on_connected()
            started()
            await self._ping(line, self._ring_from_elsewhere if self._look_ups is not None else line.ring)
            self._lease.may_lock()
            while True:
                await line.rest(self._ping_seconds)
                await self._ping(line, line.ring)
        except Exception:
            connection.terminate()  # a polite end would wait for the answer of a server that may be out of reach
            raise
        finally:
            self._line = None
            self._become(Hearing.DOWN)
            await close(connection)

    async def _ping(self, line: Line, ring: Callable[[str, str, float], Awaitable[None]]) -> None:
        """Returns when a notification of our own was heard; any error means that this connection is of no use."""
        self._pings += 1
        bell = line.expect(f"{PING}{self._pings}")
        overdue = asyncio.get_running_loop().call_later(self._doubt_seconds, self._become, Hearing.DOUBTFUL)
        began = time.monotonic()
        try:
            await ring(channel(self._lease.incarnation), bell, self._answer_seconds)
            await line.hear(self._answer_seconds)
        except TimeoutError:
            raise TimeoutError(UNHEARD.format(self._answer_seconds)) from None
        finally:
            overdue.cancel()
        took = time.monotonic() - began
        self._ping_took = took
        self._ping_mean = took if self._ping_mean is None else self._ping_mean + MEAN_WEIGHT * (took - self._ping_mean)
        self._failures = 0
        if self._complaint:
            logger.info("executor %d hears again", self._lease.incarnation)
            self._complaint = ""
        self._become(Hearing.HEALTHY)

    async def _ring_from_elsewhere(self, channel: str, bell: str, _seconds: float) -> None:
        """As another executor would; for as long as it takes, since it says nothing of the listening connection."""
        if self._look_ups is not None:
            await self._look_ups.ask(lambda connection: workflows.ring(connection, channel, bell))

    def _become(self, state: Hearing) -> None:
        before, self._state = self._state, state
        if before is Hearing.HEALTHY and state is not Hearing.HEALTHY:
            self._on_doubt()

    def _complain(self, complaint: str) -> None:
        """Once for each reason: while a server is away, the same would be said every second."""
        level = logging.DEBUG if complaint == self._complaint else logging.WARNING
        self._complaint = complaint
        logger.log(level, "executor %d does not hear notifications: %s", self._lease.incarnation, complaint)

    # ------------------------------------------------------------------ bells

    def _notified(self, _connection: Any, _pid: int, _channel: str, payload: object) -> None:
        # Runs inside the driver's protocol callback: nothing but this.
        self._bells.append(str(payload))
        self._rung.set()

    async def _hand_over(self) -> None:
        while True:
            await self._rung.wait()
            self._rung.clear()
            flooded = False
            while self._bells:
                flooded = flooded or len(self._bells) == BELLS_MAX
                for _ in range(min(SLICE, len(self._bells))):
                    self._tell(self._bells.popleft())
                await asyncio.sleep(0)
            if flooded:
                self._on_connected()

    def _tell(self, bell: str) -> None:
        if bell.startswith(PING):
            if self._line is not None:
                self._line.heard(bell)
            return
        self._heard += 1
        try:
            self._on_bell(bell)
        except Exception:  # anybody who may connect may ring; the poll finds what this was about
            logger.exception("a notification that cannot be understood: %.200r", bell)

    def __repr__(self) -> str:
        took = "" if self._ping_took is None else f", ping {self._ping_took * 1000:.1f} ms"
        return f"<Notifier of executor {self._lease.incarnation}: {self._state}{took}>"


class Line:
    """One listening connection: the ping that it should hear, and whether it has ended."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._expected = ""
        self._echo = asyncio.Event()
        self._ended = asyncio.Event()

    async def ring(self, channel: str, bell: str, seconds: float) -> None:
        """Rings at itself: one round trip, of the simple protocol, which a pooler cannot misunderstand."""
        await self.connection.execute(f"notify {channel}, '{bell}'", timeout=seconds)

    def expect(self, bell: str) -> str:
        """From now on, this is the bell to hear."""
        self._expected = bell
        self._echo.clear()
        return bell

    def heard(self, bell: str) -> None:
        """A ping came in; one of an earlier connection says nothing of this one."""
        if bell == self._expected:
            self._echo.set()

    async def hear(self, seconds: float) -> None:
        """Waits for the expected bell. TimeoutError: it does not come. ConnectionResetError: the connection ended."""
        self._require_open()
        async with asyncio.timeout(seconds):
            await self._echo.wait()
        self._require_open()

    async def rest(self, seconds: float) -> None:
        """Waits. ConnectionResetError as soon as the connection ends."""
        try:
            await asyncio.wait_for(self._ended.wait(), seconds)
        except TimeoutError:
            return
        self._require_open()

    def terminated(self, _connection: object) -> None:
        """The driver says that the connection ended."""
        self._ended.set()
        self._echo.set()

    def _require_open(self) -> None:
        if self._ended.is_set():
            raise ConnectionResetError("the server ended the session")
