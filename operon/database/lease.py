"""The lease of an executor, kept by a thread of its own on a connection of its own.

A thread, so that a long computation in the application does not cost the lease; but it renews only while the event loop
ticks, because a process whose loop is stuck must lose its workflows. The lease is believed until some time before it
ends in the database, counted from when the renewal was *sent* and on a clock that runs on while the machine sleeps: so
this process always stops believing before anybody else may.

    trusted -> doubtful     no renewal in time: no new communicator starts, nothing is claimed; checkpoints are still
                            tried, for the database decides
    doubtful -> trusted     a renewal went through; nothing is lost, whatever the outage lasted
    -> fenced               somebody declared this executor dead; final

Peers do not always wait for that. The session of this connection holds a lock, and where that is free for a time, the
grace, its process is gone. But a process may live and have lost the session, and not know yet. So it is *certain* that
it is alive to the others only while the grace cannot have passed since it last saw that it held the lock; and only then
is a communicator called. The thread looks when somebody wants to be certain, and goes on for some seconds, so that
those who come next, in however busy an event loop, need not wait.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable

from operon.database import executors
from operon.database.connection import Connection, close, connect, describe
from operon.masking import masked_logger

logger = masked_logger("operon.lease")

RENEW_SECONDS = 1.5  # how long one renewal may take
TICK_SECONDS = 0.5  # how often the event loop shows that it lives
MARGIN = 0.25  # of the lease, and of the grace: believed that much shorter than others do
GRACE_SECONDS = 0.75  # that a session lock is free before its process is gone
LOOKS = 3  # at the lock in each grace, while somebody wants to be certain
WANTED_SECONDS = 5.0  # how long that goes on
AGAIN_SECONDS = 0.2  # after a renewal that failed

# Counts while the machine is suspended, which CLOCK_MONOTONIC does not.
CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def boottime() -> float:
    return time.clock_gettime(CLOCK)


class Lease:
    """The right of this incarnation to run workflows."""

    def __init__(
        self,
        url: str,
        incarnation: int,
        lease_seconds: float,
        heartbeat_seconds: float,
        on_fenced: Callable[[], None],
        on_stuck: Callable[[int], object] = lambda _: None,
        *,
        grace_seconds: float = GRACE_SECONDS,
        pooled: bool = False,
    ) -> None:
        """on_stuck: called from the lease's thread with the number of the loop's, while the loop does not tick.

        grace_seconds: how long its session lock has to be free before this executor is taken for gone.
        """
        self.incarnation = incarnation
        self.grace_seconds = grace_seconds
        self.fenced = False
        self.lockable = False  # whether a session here is ours alone
        self.session_lock = False  # whether our session held the lock when it was last asked
        self.snapshot: bytes | None = None  # written by the pulse: goes along with the next renewal
        self._url = url
        self._pooled = pooled
        self._seconds = lease_seconds
        self._heartbeat = heartbeat_seconds
        self._on_fenced = on_fenced
        self._on_stuck = on_stuck
        self._loop_thread = threading.get_ident()
        self._loop = asyncio.get_running_loop()
        self._until = boottime() + lease_seconds * (1 - MARGIN)
        self._watched = False  # whether peers may go by our session lock
        self._held_until = 0.0  # so long nobody can have found it free for the whole grace
        self._wanted_until = 0.0  # so long somebody may want to be certain
        self._nudged = False
        self._complaint = ""
        self._unbroken_since = boottime()
        self._failed = False
        self._last_tick = time.monotonic()
        self._tick_handle: asyncio.TimerHandle | None = None
        self._assured = asyncio.Event()
        self._wake = threading.Event()
        self._stop = False
        self._thread = threading.Thread(target=self._run, name=f"operon-lease-{incarnation}", daemon=True)

    def start(self) -> None:
        """Starts renewing; the lease was granted by `register`."""
        self._tick()
        self._thread.start()

    @property
    def trusted(self) -> bool:
        """Whether this process may still believe that it is alive to the others."""
        return not self.fenced and boottime() < self._until

    @property
    def certain(self) -> bool:
        """Whether nobody can have declared this executor dead. Only then is a communicator called."""
        return self.trusted and (not self._watched or boottime() < self._held_until)

    @property
    def age(self) -> float:
        """Seconds since the last renewal that went through was sent."""
        return boottime() - (self._until - self._seconds * (1 - MARGIN))

    @property
    def seasoned(self) -> bool:
        """Whether every renewal of a whole lease went through. Only then may this executor say that another's lease ran
        out: after an outage of the database everybody's has."""
        return self.trusted and boottime() - self._unbroken_since >= self._seconds

    @property
    def steady(self) -> bool:
        """Whether no renewal failed of late, so that what looks gone is not merely out of our own sight."""
        return self.trusted and (not self._failed or self.seasoned)

    def shaken(self) -> None:
        """The database was away: for a whole lease, what this executor sees of the others proves nothing."""
        self._failed = True
        self._unbroken_since = boottime()

    async def wait_certain(self) -> None:
        """Waits until this executor is beyond doubt; for ever if it is fenced, because then nobody goes on."""
        while not self.certain:
            self._assured.clear()
            self._wanted_until = boottime() + WANTED_SECONDS
            self._wake.set()
            await self._assured.wait()

    def may_lock(self) -> None:
        """What this process does with a session stays with that session: it is no pooler's. Said by the notifier."""
        if not self.lockable:
            self.lockable = True
            self.nudge()

    def nudge(self) -> None:
        """Renews now."""
        self._nudged = True
        self._wake.set()

    async def close(self) -> None:
        """Stops the thread; the lease is left to run out or to be given up by the caller."""
        self._stop = True
        self._wake.set()
        if self._tick_handle is not None:
            self._tick_handle.cancel()
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join, RENEW_SECONDS + 3)

    def _tick(self) -> None:
        self._last_tick = time.monotonic()
        self._tick_handle = self._loop.call_later(TICK_SECONDS, self._tick)

    @property
    def _loop_is_stuck(self) -> bool:
        return time.monotonic() - self._last_tick > self._seconds / 2

    def _run(self) -> None:
        asyncio.run(self._keep())

    async def _keep(self) -> None:
        connection: Connection | None = None
        warned = False
        due = renew_at = boottime()
        while not self._stop and not self.fenced:
            now = boottime()
            # As long as this thread was not let run either, nobody in the loop is to blame: the process was stopped.
            self._last_tick += max(0.0, now - due)
            if self._loop_is_stuck:
                if not warned:
                    logger.warning("the event loop is stuck; the lease is not renewed until it goes on")
                warned = True
                self._on_stuck(self._loop_thread)
                renew_at = now + self._heartbeat_after(failed=False)
            else:
                warned = False
                if self._nudged or now >= renew_at or (connection is not None and connection.is_closed()):
                    self._nudged = False
                    connection = await self._renew(connection, now)
                    renew_at = now + self._heartbeat_after(failed=connection is None)
                elif connection is not None and self.session_lock and now < self._wanted_until:
                    connection = await self._look(connection)
                    renew_at = renew_at if connection is not None else now
                if (took := boottime() - now) > RENEW_SECONDS + TICK_SECONDS:  # it was stopped in the middle of that
                    self._last_tick += took
            look_at = now + self.grace_seconds / LOOKS if self.session_lock and now < self._wanted_until else renew_at
            due = max(min(renew_at, look_at), boottime())
            await asyncio.to_thread(self._wake.wait, due - boottime())
            self._wake.clear()
        await close(connection)

    def _heartbeat_after(self, *, failed: bool) -> float:
        return min(AGAIN_SECONDS, self._heartbeat) if failed or boottime() >= self._until else self._heartbeat

    async def _renew(self, connection: Connection | None, sent: float) -> Connection | None:
        try:
            async with asyncio.timeout(RENEW_SECONDS):
                if connection is not None and connection.is_closed():
                    self.shaken()
                    connection = None
                if connection is None:
                    self.session_lock = False
                    connection = await connect(self._url, pooled=self._pooled)
                    connection.add_termination_listener(lambda _: self._wake.set())
                if self.lockable and not self.session_lock:
                    # Without waiting for the end of our last session, which the server may not have noticed yet.
                    # It proves nothing before the renewal has gone through: peers may have found it free before.
                    self.session_lock = await executors.hold_session_lock(connection, self.incarnation)
                self._watched = self._watched or self.session_lock  # from when they may be told that it is held
                snapshot, self.snapshot = self.snapshot, None
                asked = boottime()
                alive = await executors.renew(connection, self.incarnation, self._seconds, self.session_lock, snapshot)
        except Exception as error:
            self._lost(connection, error)
            return None
        self._complaint = ""
        if not alive:
            self.fenced = True
            self._call(self._on_fenced)
            return connection
        if sent > self._until:  # the machine slept, or the loop was stuck
            self._failed = True
            self._unbroken_since = sent
        self._until = sent + self._seconds * (1 - MARGIN)
        self._watched = self.session_lock  # until they have been told that it is not
        self._answered(asked)
        return connection

    async def _look(self, connection: Connection) -> Connection | None:
        """Sees that the session that holds the lock is alive."""
        asked = boottime()
        try:
            async with asyncio.timeout(RENEW_SECONDS):
                await executors.hold_session_lock(connection, self.incarnation)
        except Exception as error:
            self._lost(connection, error)
            return None
        self._answered(asked)
        return connection

    def _answered(self, asked: float) -> None:
        """Our session lives, and if it holds the lock, it did when it was asked."""
        self._held_until = asked + self.grace_seconds * (1 - MARGIN)
        self._call(self._assured.set)

    def _lost(self, connection: Connection | None, error: Exception) -> None:
        complaint = describe(error, self._url)
        level = logging.DEBUG if complaint == self._complaint else logging.WARNING  # an outage is said once
        logger.log(level, "a heartbeat failed: %s", complaint)
        self._complaint = complaint
        if connection is not None:
            connection.terminate()
        self.session_lock = False
        self.shaken()

    def _call(self, callback: Callable[[], None]) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(callback)

    def __repr__(self) -> str:
        state = "fenced" if self.fenced else "trusted" if self.trusted else "doubtful"
        return f"<Lease of executor {self.incarnation}: {state}, {self._until - boottime():.1f} s left>"
