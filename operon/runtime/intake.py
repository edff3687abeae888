"""The intake: what live workflows append, in the batches in which it will be made durable.

Everything here is synchronous: an actor appends, and goes on. A record belongs to the batch that is open; what comes
after it is full goes into the next one. A workflow of which a record was refused appends nothing more, until a fresh
coroutine has taken over from what is recorded: it would leave a hole.
"""

from __future__ import annotations

import asyncio
from collections import deque
from uuid import UUID

from operon.caller import NOBODY, Caller
from operon.database.batch import BYTES_MAX, RECORD_BYTES, Batch
from operon.database.mail import Letter, Park
from operon.errors import Evicted, StopActor
from operon.runtime.callers import caller_columns
from operon.runtime.statements import Statement


class Intake:
    """Takes records from actors."""

    def __init__(self) -> None:
        self._queue: deque[Batch] = deque()  # of full ones
        self._current = Batch()
        self._idle: asyncio.Future[None] | None = None  # of whoever waits for something to do
        self._broken: dict[UUID, Exception] = {}  # whose record was refused, until their actor starts again
        self._sealed: StopActor | None = None  # what an actor gets that still wants to append
        self._look_wanted = False

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
        batch = self._open(-RECORD_BYTES)  # of no weight: a few bytes, which mostly come along with another record
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
            self._filled()
        batch.weight += size + RECORD_BYTES
        if self._idle is not None:
            self._wake()
        return batch

    def _filled(self) -> None:
        """A batch is full."""

    def _wake(self) -> None:
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)
        self._idle = None

    def _take(self) -> Batch | None:
        """The next batch to be made durable, if there is anything to record or to hear."""
        if self._queue:
            batch = self._queue.popleft()
        elif self._current.records or self._current.bells or self._current.waiters or self._look_wanted:
            batch, self._current = self._current, Batch()
            self._look_wanted = False
        else:
            return None
        batch.sent = True
        return batch

    def seal(self) -> None:
        """Takes no more records: what was appended is still made durable, actors that go on are stopped."""
        if self._sealed is None:
            self._sealed = Evicted("the executor stops")

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self._current.records} records waiting>"
