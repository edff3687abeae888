"""The committer: group commit for every live workflow of an executor.

Actors append records and go on. While one batch is in flight the next one fills, so that a batch is one round trip,
one transaction and one fsync for whatever came up meanwhile, up to 128 records of unrelated workflows. There is no
timer: waiting for company makes it slower, the flight itself is the wait. A batch that is full by then is sent on a
second connection, and lands after the first one or not at all: so each workflow's records keep their order.

What can go wrong with a flush, and what is done about it:

    weather      the server is away or busy: try again, for as long as it takes; nobody's fault, nothing is lost
    unknown      the connection was lost in flight: ask by the batch's number whether it landed, then decide
    fenced       this executor was declared dead: every actor in it stops, nothing of the batch counts
    refused      some record cannot be stored: the batch is split until that workflow is alone; it fails its own actor
                 and nobody else's, and what that actor had appended since is dropped with it

Only here and in the transaction runner are writing connections touched. An actor waits on a future, so cancelling it
cannot tear a commit apart.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from contextvars import Context
from uuid import UUID

from operon.database.batch import Batch
from operon.database.connection import is_conflict, is_weather
from operon.database.lease import Lease
from operon.database.writer import OutOfOrder, Revoked, Writer
from operon.errors import Fenced
from operon.masking import masked_logger
from operon.runtime.intake import Intake
from operon.runtime.statements import run_statements
from operon.telemetry.observer import SILENT, Telemetry

logger = masked_logger("operon.committer")

BACKOFF_SECONDS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


class Ahead:
    """A batch that was sent while the one before it was in flight."""

    __slots__ = ("after", "batch", "dropped", "flight", "number")

    def __init__(self, batch: Batch, number: int, after: int, flight: asyncio.Task[None]) -> None:
        self.batch = batch
        self.number = number
        self.after = after  # the number of the one before it, as that was in flight then
        self.flight = flight
        self.dropped: set[UUID] = set()  # to be taken out of it, should it be sent anew

    def lose(self, error: BaseException) -> None:
        """It does not matter any more what becomes of it."""
        self.batch.settle(error)
        self.flight.add_done_callback(lambda flight: flight.cancelled() or flight.exception())
        self.flight.cancel()


class Committer(Intake):
    """Takes records from actors and makes them durable, in batches."""

    def __init__(
        self,
        writers: tuple[Writer, Writer],
        lease: Lease,
        on_fenced: Callable[[], None],
        on_mail: Callable[[Batch], None],
        on_revoked: Callable[[Sequence[UUID]], None] = lambda _: None,
        on_forgotten: Callable[[], None] = lambda: None,
        on_away: Callable[[float], None] = lambda _: None,
        telemetry: Telemetry = SILENT,
    ) -> None:
        super().__init__()
        self._writer, self._other = writers
        self._lease = lease
        self._on_fenced = on_fenced
        self._on_revoked = on_revoked  # called with workflows that somebody has cancelled
        self._on_forgotten = on_forgotten  # called when nothing of them is left: they may be claimed here again
        self._on_away = on_away  # called again and again while the database is away, with the seconds
        self._on_mail = on_mail  # called with each durable batch that has something for somebody else
        self._telemetry = telemetry
        self._underway: int | None = None  # the number of the batch in flight, while another may be sent after it
        self._ahead: Ahead | None = None
        self._last = 0  # the number under which the last batch landed
        self._busy = False
        self._fenced = False
        self._number = 0
        # For operators: batches that landed at once, the records in them, and how long they took together.
        self.flushes = 0
        self.flushed = 0
        self.flush_seconds = 0.0

    def drop(self, workflow_uuid: UUID) -> None:
        """As in the intake, and what was sent ahead, should that have to be sent anew."""
        super().drop(workflow_uuid)
        if self._ahead is not None:
            self._ahead.dropped.add(workflow_uuid)

    def _filled(self) -> None:
        self._send_ahead()

    async def run(self, started: Callable[[], None]) -> None:
        """Flushes batch after batch until cancelled or fenced."""
        started()
        try:
            await self._run()
        except BaseException:
            self._lose(Fenced("the committer was stopped"))  # who waits for what is left would wait for ever
            raise

    async def _run(self) -> None:
        while not self._fenced:
            ahead, self._ahead = self._ahead, None
            batch = self._take() if ahead is None else ahead.batch
            if batch is None:
                self._busy = False
                self._idle = asyncio.get_running_loop().create_future()
                await self._idle
                # One turn of the loop more: workflows that began in this one end in it too, if they have no steps, and
                # then begin and end in one record; and whoever was just given an answer goes on to its next record. It
                # costs microseconds, once each time that nobody had anything.
                await asyncio.sleep(0)
                continue
            self._busy = True
            if ahead is not None:
                self._writer, self._other = self._other, self._writer
            commit = self._commit(batch, ahead)
            await (self._telemetry.commit(batch.records, commit) if self._telemetry.on else commit)

    def _send_ahead(self) -> None:
        """Sends the next batch while one is in flight, if it is full and neither runs statements of its own.

        The server takes it up when the first one has committed, and not when the answer to that has been read between
        two turns of a busy loop.
        """
        if self._ahead is not None or self._underway is None or not self._queue or self._queue[0].statements:
            return
        batch = self._queue.popleft()
        batch.sent = True
        after, self._number = self._underway, self._number + 1
        flight = self._other.flush(self._lease.incarnation, self._number, batch, after)
        self._ahead = Ahead(
            batch, self._number, after, asyncio.get_running_loop().create_task(flight, context=Context())
        )

    async def _commit(self, batch: Batch, ahead: Ahead | None) -> None:
        try:
            await self._flush(batch, ahead, leading=not batch.statements)
        except Fenced as fenced:
            self._fence(fenced, batch)
        except Exception as error:
            # A bug of ours. Nobody knows what stands, so this incarnation ends, and the next one reads what does.
            logger.exception("the committer failed; its executor starts again")
            self._fence(Fenced(f"the committer failed: {error}"), batch)
        except BaseException:
            batch.settle(Fenced("the committer was stopped"))
            raise
        else:
            batch.settle()
            if batch.mail is not None or batch.woken or batch.parked:
                self._on_mail(batch)
            batch.release()

    async def _flush(self, batch: Batch, ahead: Ahead | None = None, *, leading: bool = False) -> None:
        """ahead: it was sent already. leading: the next one may be sent after it, for as long as this one can land."""
        failures = 0
        began = time.monotonic()
        while True:
            if ahead is None:
                self._number += 1
            number = self._number if ahead is None else ahead.number
            # What follows on a flight that cannot land could not land either, and so on without end.
            self._underway = number if leading and (ahead is None or ahead.after == self._last) else None
            self._send_ahead()
            leading = False
            try:
                if batch.statements:
                    await run_statements(self._writer, batch)
                flight = self._writer.flush(self._lease.incarnation, number, batch) if ahead is None else ahead.flight
                try:
                    await flight
                finally:
                    self._underway = None
                if batch.statements:
                    await self._writer.commit()
                self._last = number
                self.flushes += 1
                self.flushed += batch.records
                self.flush_seconds += time.monotonic() - began
                return
            except Fenced:
                raise
            except OutOfOrder:
                leading = True  # it was faster than the one before it, or that one was sent anew; it is through by now
            except Revoked as revoked:
                await self._writer.rollback()
                await self._revoke(batch, revoked)
            except Exception as error:
                if is_conflict(error) and not batch.statements:
                    failures += 1  # two executors that wake the same workflows: one of them goes first
                elif is_weather(error) and not (batch.statements and self._writer.usable):
                    if await self._landed(batch, number, error, failures, began):
                        batch.taken, self._last = batch.keyed, number
                        return
                    failures += 1
                else:
                    await self._writer.rollback()
                    if ahead is None or not ahead.dropped:
                        await self._isolate(batch, error)
                        return
            if ahead is not None:
                for workflow_uuid in ahead.dropped:
                    batch.drop(workflow_uuid)
                ahead = None

    async def _revoke(self, batch: Batch, revoked: Revoked) -> None:
        """Takes out what there is of workflows that were cancelled; then the note that says so."""
        batch.forget_added()  # first: they are the last ones in the batch only as long as nothing is taken out of it
        for uuid in revoked.workflows:
            self._broken[uuid] = revoked
            self.drop(uuid)
            batch.drop(uuid)
            batch.failed = {**(batch.failed or {}), uuid: revoked}
        self._on_revoked(revoked.workflows)
        try:
            await self._writer.forget_revoked(self._lease.incarnation, revoked.workflows)
        except Exception as error:
            if not is_weather(error):
                raise
            logger.warning("a note about cancelled workflows stays for now: %s", error)  # the next flush finds it again
        else:
            self._on_forgotten()

    async def _landed(self, batch: Batch, number: int, error: Exception, failures: int, began: float) -> bool:
        """Asks, for as long as it takes, whether the batch is durable although its acknowledgement was lost."""
        while True:
            pause = BACKOFF_SECONDS[min(failures, len(BACKOFF_SECONDS) - 1)]
            self._on_away(time.monotonic() - began)
            logger.warning("a flush was interrupted (%s); looking whether it landed", type(error).__name__)
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311
            try:
                return await self._writer.landed(self._lease.incarnation, number, batch)
            except Fenced:
                raise
            except Exception as again:
                if not is_weather(again):
                    raise
                error = again
                failures += 1

    async def _isolate(self, batch: Batch, error: Exception) -> None:
        """Halves a refused batch until the workflow that Postgres refuses is alone."""
        if batch.statements:
            await self._isolate_statements(batch)
            return
        workflows = batch.workflows()
        if len(workflows) <= 1:
            self._fail(batch, workflows, error)
            return
        half = len(workflows) // 2
        for part in (workflows[:half], workflows[half:]):
            piece = batch.only(part)
            await self._flush(piece)
            batch.taken = [*batch.taken, *piece.taken]
            batch.woken = [*batch.woken, *piece.woken]
            if piece.failed:
                batch.failed = {**(batch.failed or {}), **piece.failed}

    async def _isolate_statements(self, batch: Batch) -> None:
        """Flushes what the statements stand on. Their workflows then run each as a transaction of its own."""
        batch.forget_added()  # the statements have run and were rolled back: their checkpoints say what did not happen
        statements, batch.statements = batch.statements, []
        rest = batch.only(batch.workflows())
        if rest.records:
            await self._flush(rest)
            batch.taken, batch.woken, batch.failed = rest.taken, rest.woken, rest.failed
        for statement in statements:
            statement.moved = True

    def _fail(self, batch: Batch, workflows: Sequence[UUID], error: Exception) -> None:
        logger.error("the database refused a record of workflow %s: %s", workflows[0] if workflows else None, error)
        batch.failed = dict.fromkeys(workflows, error)
        for uuid in workflows:
            self._broken[uuid] = error
            self.drop(uuid)

    def _fence(self, fenced: Fenced, batch: Batch) -> None:
        self._fenced = True
        batch.settle(fenced)
        self._lose(fenced)
        self._on_fenced()

    def _lose(self, fenced: Fenced) -> None:
        """Nothing that was appended and is not in flight will be durable, and nothing more is taken."""
        self._sealed = fenced
        if self._ahead is not None:
            self._ahead.lose(fenced)
            self._ahead = None
        for lost in (*self._queue, self._current):
            lost.settle(fenced)
        self._queue.clear()

    @property
    def idle(self) -> bool:
        """Whether nothing is being made durable, and nothing waits to be."""
        return not (self._busy or self._queue or self._current.records)

    async def drained(self) -> None:
        """Waits until everything that was appended so far is durable, or never will be."""
        if not self._fenced and not self.idle:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._current.waiters.append(waiter)
            self._wake()
            await waiter

    def __repr__(self) -> str:
        state = "fenced" if self._fenced else "flushing" if self._busy else "idle"
        return f"<Committer {state}: {self._current.records} records waiting, {self.flushes} flushes>"
