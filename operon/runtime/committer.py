"""The committer: group commit for every live workflow of an executor.

Actors append records and go on. While one batch is in flight the next one fills, so that a batch is one round trip,
one transaction and one fsync for whatever came up meanwhile, up to 128 records of unrelated workflows. There is no
timer: waiting for company makes it slower, the flight itself is the wait. One lane keeps each workflow's records in
order.

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
from collections import deque
from collections.abc import Callable, Sequence
from uuid import UUID

from operon.caller import NOBODY, Caller
from operon.database.batch import BYTES_MAX, RECORD_BYTES, Batch
from operon.database.connection import is_conflict, is_weather
from operon.database.lease import Lease
from operon.database.mail import Letter, Park
from operon.database.writer import Revoked, Writer
from operon.errors import Evicted, Fenced, StopActor
from operon.masking import masked_logger
from operon.runtime.callers import caller_columns
from operon.runtime.statements import Statement, run_statements
from operon.telemetry.observer import SILENT, Telemetry

logger = masked_logger("operon.committer")

BACKOFF_SECONDS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


class Committer:
    """Takes records from actors and makes them durable, in batches."""

    def __init__(
        self,
        writer: Writer,
        lease: Lease,
        on_fenced: Callable[[], None],
        on_mail: Callable[[Batch], None],
        on_revoked: Callable[[Sequence[UUID]], None] = lambda _: None,
        on_forgotten: Callable[[], None] = lambda: None,
        on_away: Callable[[float], None] = lambda _: None,
        telemetry: Telemetry = SILENT,
    ) -> None:
        self._writer = writer
        self._lease = lease
        self._on_fenced = on_fenced
        self._on_revoked = on_revoked  # called with workflows that somebody has cancelled
        self._on_forgotten = on_forgotten  # called when nothing of them is left: they may be claimed here again
        self._on_away = on_away  # called again and again while the database is away, with the seconds
        self._on_mail = on_mail  # called with each durable batch that has something for somebody else
        self._telemetry = telemetry
        self._queue: deque[Batch] = deque()
        self._current = Batch()
        self._idle: asyncio.Future[None] | None = None
        self._busy = False
        self._fenced = False
        self._broken: dict[UUID, Exception] = {}  # whose record was refused, until their actor starts again
        self._sealed: StopActor | None = None  # what an actor gets that still wants to append
        self._look_wanted = False
        self._number = 0
        # For operators: batches that landed at once, the records in them, and how long they took together.
        self.flushes = 0
        self.flushed = 0
        self.flush_seconds = 0.0

    # ------------------------------------------------------------------ appending: synchronous, called by actors

    def start(
        self,
        workflow_uuid: UUID,
        name: str,
        inputs: bytes,
        caller: Caller = NOBODY,
        parent: tuple[UUID, int] | None = None,
        *,
        keyed: bool = False,
        deadline: float | None = None,
    ) -> Batch:
        """Records that a workflow begins. `keyed`: its UUID was chosen by somebody, so it may be taken already."""
        batch = self._open(len(inputs))
        row = len(batch.s_uuid)
        batch.s_uuid.append(workflow_uuid)
        batch.s_name.append(name)
        batch.s_inputs.append(inputs)
        if keyed:
            batch.keyed.add(workflow_uuid)
        if caller is not NOBODY:
            batch.s_caller[row], batch.s_request[row] = caller_columns(caller)
        if parent is not None:
            batch.s_parent[row], batch.s_parent_step[row] = parent
        if deadline is not None:
            batch.s_deadline[row] = deadline
        return batch

    def checkpoint(
        self,
        workflow_uuid: UUID,
        step: int,
        kind: int,
        name: str,
        output: bytes | None,
        started: float,
        error: bytes | None = None,
        seen: str | None = None,
        attempts: int = 1,
    ) -> Batch:
        """Records the answer of a step: exactly one of output and error."""
        if self._broken:
            self._refuse_broken(workflow_uuid)
        batch = self._open(len(output) if output is not None else 0)
        batch.checkpoint(workflow_uuid, step, kind, name, output, started, error, seen, attempts)
        return batch

    def finish(
        self,
        workflow_uuid: UUID,
        status: int,
        output: bytes | None,
        error: bytes | None,
        begun: tuple[Batch, int] | None,
    ) -> Batch:
        """Records the outcome; `begun` is the batch and row of the start, which takes it along if it is still here."""
        if begun is not None and begun[0] is self._current:
            batch, row = begun
            batch.s_status[row] = status
            batch.s_output[row] = output
            if error is not None:
                batch.s_error[row] = error
            return batch
        if self._broken:
            self._refuse_broken(workflow_uuid)
        batch = self._open(len(output) if output is not None else 0)
        if batch.mail is not None:
            batch.mail.unparked.pop(workflow_uuid, None)  # its end says so too
        if status != 1:
            batch.f_status[len(batch.f_uuid)] = status
        if error is not None:
            batch.f_error[len(batch.f_uuid)] = error
        batch.f_uuid.append(workflow_uuid)
        batch.f_output.append(output)
        return batch

    def statement(self, statement: Statement) -> Batch:
        """Records a one-statement transaction, which runs in the batch that records it."""
        if self._broken:
            self._refuse_broken(statement.workflow_uuid)
        batch = self._open(0)
        batch.statements.append(statement)
        return batch

    def letter(self, letter: Letter) -> Batch:
        """Records that a message is sent; the database says in the letter what became of it."""
        if self._broken:
            self._refuse_broken(letter.sender)
        batch = self._open(len(letter.body))
        batch.letters().letters.append(letter)
        return batch

    def received(self, batch: Batch, workflow_uuid: UUID, sequence: int) -> None:
        """Removes a message from its mailbox, in the batch that records its receipt."""
        batch.letters().received.append((workflow_uuid, sequence))

    def event(self, batch: Batch, workflow_uuid: UUID, step: int, key: str, value: bytes) -> None:
        """Publishes an event, in the batch that records it."""
        batch.letters().events[workflow_uuid, key] = (step, value)

    def park(self, park: Park, begun: tuple[Batch, int] | None) -> None:
        """Records that a workflow only waits; the database says in the park whether it may leave memory.

        If its start is still here, and nobody can know it yet, it just begins so.
        """
        if begun is not None and not begun[0].sent and not park.targets:
            park.start, park.parked = begun, True
            begun[0].begin_parked(begun[1], park)
            return
        if self._broken:
            self._refuse_broken(park.workflow_uuid)
        self._open(0).letters().parks[park.workflow_uuid] = park

    def unpark(self, workflow_uuid: UUID, park: Park | None) -> Batch | None:
        """Records that a workflow goes on which the database has as parked, or is about to have, by this park."""
        if park is not None and park.start is not None and not park.start[0].sent:
            park.start[0].begin_running(park.start[1])
            return None
        batch = self._open(-RECORD_BYTES)  # of no weight: a few bytes, which only ever come along with another record
        mail = batch.letters()
        mail.parks.pop(workflow_uuid, None)
        mail.unparked[workflow_uuid] = None
        return batch

    def ring(self, batch: Batch | None, bell: str) -> None:
        """A notification, `channel payload`, that goes out when the batch commits; without one, with the next."""
        if self._sealed is None:
            (batch or self._open(0)).bells.add(bell)

    def look(self) -> None:
        """Flushes even if there is nothing to record: the database has something to say to this executor."""
        self._look_wanted = True
        self._wake()

    def drop(self, workflow_uuid: UUID) -> None:
        """Forgets what an actor had appended and is not in flight: its coroutine is gone, and will be replayed."""
        for batch in (*self._queue, self._current):
            batch.drop(workflow_uuid)

    def mend(self, workflow_uuid: UUID) -> None:
        """A fresh coroutine takes over from what is recorded: the workflow may append again."""
        self._broken.pop(workflow_uuid, None)

    def _refuse_broken(self, workflow_uuid: UUID) -> None:
        # A branch of a coroutine that has run ahead of a record that was refused: what it appends would leave a hole.
        if (error := self._broken.get(workflow_uuid)) is not None:
            raise Evicted(f"an earlier record could not be stored: {error}") from error

    def _open(self, size: int) -> Batch:
        if self._sealed is not None:
            raise self._sealed
        batch = self._current
        if batch.weight > BYTES_MAX:
            self._queue.append(batch)
            batch = self._current = Batch()
        batch.weight += size + RECORD_BYTES
        if self._idle is not None:
            self._wake()
        return batch

    def _wake(self) -> None:
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)
        self._idle = None

    # ------------------------------------------------------------------ flushing: one task

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
            batch = self._take()
            if batch is None:
                self._busy = False
                self._idle = asyncio.get_running_loop().create_future()
                await self._idle
                # One turn of the loop more: workflows that began in this one end in it too, if they have no steps, and
                # then begin and end in one record. It costs microseconds, once each time that nobody had anything.
                await asyncio.sleep(0)
                continue
            self._busy = True
            if self._telemetry.on:
                await self._telemetry.commit(batch.records, self._commit(batch))
            else:
                await self._commit(batch)

    def _take(self) -> Batch | None:
        if self._queue:
            batch = self._queue.popleft()
        elif self._current.records or self._current.bells or self._current.waiters or self._look_wanted:
            batch, self._current = self._current, Batch()
            self._look_wanted = False
        else:
            return None
        batch.sent = True
        return batch

    async def _commit(self, batch: Batch) -> None:
        try:
            await self._flush(batch)
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

    async def _flush(self, batch: Batch) -> None:
        failures = 0
        began = time.monotonic()
        while True:
            self._number += 1
            try:
                if batch.statements:
                    await run_statements(self._writer, batch)
                await self._writer.flush(self._lease.incarnation, self._number, batch)
                if batch.statements:
                    await self._writer.commit()
                self.flushes += 1
                self.flushed += batch.records
                self.flush_seconds += time.monotonic() - began
                return
            except Fenced:
                raise
            except Revoked as revoked:
                await self._writer.rollback()
                await self._revoke(batch, revoked)
            except Exception as error:
                if is_conflict(error) and not batch.statements:
                    failures += 1  # two executors that wake the same workflows: one of them goes first
                elif is_weather(error) and not (batch.statements and self._writer.usable):
                    if await self._landed(batch, error, failures, began):
                        batch.taken = batch.keyed
                        return
                    failures += 1
                else:
                    await self._writer.rollback()
                    await self._isolate(batch, error)
                    return

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

    async def _landed(self, batch: Batch, error: Exception, failures: int, began: float) -> bool:
        """Asks, for as long as it takes, whether the batch is durable although its acknowledgement was lost."""
        while True:
            pause = BACKOFF_SECONDS[min(failures, len(BACKOFF_SECONDS) - 1)]
            self._on_away(time.monotonic() - began)
            logger.warning("a flush was interrupted (%s); looking whether it landed", type(error).__name__)
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311
            try:
                return await self._writer.landed(self._lease.incarnation, self._number, batch)
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

    def seal(self) -> None:
        """Takes no more records: what was appended is still made durable, actors that go on are stopped."""
        if self._sealed is None:
            self._sealed = Evicted("the executor stops")

    def __repr__(self) -> str:
        state = "fenced" if self._fenced else "flushing" if self._busy else "idle"
        return f"<Committer {state}: {self._current.records} records waiting, {self.flushes} flushes>"
