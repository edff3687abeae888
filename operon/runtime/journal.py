"""The journal of one live workflow: it numbers steps, answers from what was recorded, and finds nondeterminism.

A step gets its number when it is called. If a checkpoint of that number was loaded, its answer comes from there, after
a check that the code asks for the same step as the one recorded. Otherwise the step runs, its answer is appended to the
committer, and the workflow goes on at once: it runs ahead. Before anything leaves the workflow (a communicator is
called, a transaction begins, a handle or a result goes out) everything appended before is durable: the output-commit
rule, `durable()`. A fresh workflow has no history and never asks the database whether a step exists.

Steps that run concurrently answer in an order that the clock decided. So that a replay numbers the later steps alike,
each step that was called while others were under way records which answers the workflow had been given, and when;
`Interleaving` gives them out again in that order. A communicator that is called then is *announced*: the record of its
call is durable before it is made, because its idempotency key is its number, and must not go to another call after a
crash. A workflow that does one thing at a time records nothing of the kind and pays nothing.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from enum import IntEnum
from uuid import UUID

from operon.database.batch import Batch
from operon.database.checkpoints import Checkpoint
from operon.database.mail import Park
from operon.errors import Evicted, InvocationError, NondeterminismError, OperonInternalError, StopActor
from operon.masking import masked_logger
from operon.runtime.committer import Committer
from operon.runtime.interleaving import Interleaving, Wave, recorded_plan

logger = masked_logger("operon.workflows")


class StepKind(IntEnum):
    """What a checkpoint is of; the number is what the database holds."""

    TRANSACTION = 0
    COMMUNICATOR = 1
    CHILD = 2
    RESULT = 3
    STATUS = 4
    NOW = 5
    UUID4 = 6
    RANDOM = 7
    SQL = 8
    CALL = 9  # the announcement of a communicator; its step is a negative number, see `announcement`
    SEND = 10
    RECV = 11
    SET_EVENT = 12
    GET_EVENT = 13
    SLEEP = 14
    WAIT = 15  # the announcement of a wait that has a deadline
    CANCEL = 16
    RESUME = 17
    MONITOR = 18
    DEMONITOR = 19
    VALUE = 20  # of the runtime's own


NOTHING_RECORDED: dict[int, Checkpoint] = {}  # one for all, as most live workflows are in their first life

TIMED = (StepKind.RECV, StepKind.GET_EVENT, StepKind.RESULT)


def announcement(number: int) -> int:
    """The step under which the call of a step is recorded: 0 is -1, 1 is -2; and the other way round."""
    return -1 - number


class Step:
    """A numbered call, and what was recorded of it, if it was: that it was made, and its answer."""

    __slots__ = ("announced", "kind", "name", "number", "recorded", "seen")

    def __init__(
        self,
        kind: StepKind,
        name: str,
        number: int,
        seen: str | None,
        recorded: Checkpoint | None,
        announced: Checkpoint | None,
    ) -> None:
        self.kind = kind
        self.name = name
        self.number = number
        self.seen = seen
        self.recorded = recorded
        self.announced = announced


class Journal:
    """The steps of one live workflow."""

    __slots__ = (
        "_calls",
        "_committer",
        "_events",
        "_interleaving",
        "_next",
        "_outstanding",
        "_quiet",
        "_recorded",
        "_seen",
        "_ticket",
        "closed",
        "grown",
        "halted",
        "parked",
        "parking",
        "stopped",
        "workflow_name",
        "workflow_uuid",
    )

    def __init__(
        self,
        committer: Committer,
        workflow_uuid: UUID,
        workflow_name: str,
        recorded: Sequence[Checkpoint],
        ticket: Batch | None,
        parked: bool = False,
    ) -> None:
        self.workflow_uuid = workflow_uuid
        self.workflow_name = workflow_name
        self.stopped: NondeterminismError | None = None
        self.halted: StopActor | None = None  # what every call raises from now on
        self.closed = False
        self.parked = parked  # the database has it as parked, or will: the next record has to say that it goes on
        self.parking: Park | None = None  # ... because this was appended, and not answered yet
        self.grown = False  # something was recorded in this life
        self._events: set[str] | None = None  # the keys that were set so far
        self._committer = committer
        self._calls = self._recorded = NOTHING_RECORDED
        if recorded:
            self._calls = {announcement(call.step): call for call in recorded if call.step < 0}
            self._recorded = {checkpoint.step: checkpoint for checkpoint in recorded if checkpoint.step >= 0}
        plan = recorded_plan(recorded)
        self._interleaving = Interleaving(self._gave, plan) if plan else None
        self._next = 0
        self._outstanding = 0
        self._quiet = 0  # the last step that was called when nothing was under way
        self._seen: list[Wave] = []  # the answers given since then
        self._ticket = ticket

    @property
    def called(self) -> int:
        """How many steps were called so far in this life."""
        return self._next

    def call(self, kind: StepKind, name: str) -> Step:
        """Numbers a step. Raises NondeterminismError if another one was recorded under this number."""
        if self.halted is not None:
            raise self.halted
        if self.closed:
            raise InvocationError(
                f"{self.workflow_name!r} {self.workflow_uuid}: {name} was called after the workflow had ended",
                hint="a task that the workflow started outlived it; await it, or use a task group",
            )
        if self.stopped is not None:
            raise self.stopped
        number = self._next
        seen: str | None = None
        if self._outstanding == 0:
            if self._seen:
                if len(self._seen) > 1 or len(self._seen[0].numbers) > 1:
                    seen = f"{self._quiet}:{';'.join(map(str, self._seen))}"
                self._seen.clear()
            self._quiet = number
        else:
            seen = f"{self._quiet}:{';'.join(map(str, self._seen))}"
            if self._interleaving is None:
                self._interleaving = Interleaving(self._gave, calls=number)
        recorded = self._recorded.get(number) if self._recorded else None
        if recorded is not None and (recorded.kind != kind or recorded.name != name):
            raise self._diverged(number, recorded, f"{StepKind(kind).name.lower()} {name!r}")
        announced = self._calls.get(number) if self._calls else None
        if announced is not None and not announces(announced, kind, name):
            raise self._diverged(number, announced, f"{StepKind(kind).name.lower()} {name!r}")
        self._next = number + 1
        if self._interleaving is not None:
            self._interleaving.called(number, alone=self._outstanding == 0)
        self._outstanding += 1
        return Step(kind, name, number, seen, recorded, announced)

    def delivered(self, step: Step) -> None:
        """The workflow has the answer of a step, or gave up waiting for it."""
        self._outstanding -= 1
        interleaving = self._interleaving
        if interleaving is None:
            if self._outstanding or self._seen:  # or else the next call is made when nothing is under way, and is alone
                self._seen.append(Wave((step.number,), self._next))
            return
        if (
            step.number not in interleaving.given
        ):  # it took no turn: a value that costs no wait, or a caller that gave up
            self._gave(Wave((step.number,), self._next))
        interleaving.delivered(step.number, alone=self._outstanding == 0)

    def _gave(self, wave: Wave) -> None:
        self._seen.append(wave)

    async def turn(self, step: Step) -> None:
        """Waits until it is the turn of this answer, in the order that was recorded."""
        if self._interleaving is not None and not await self._interleaving.turn(step.number):
            raise self._stop(
                f"the recorded order of answers cannot be met: step {step.number} waits for others that are not called"
            )

    @property
    def replayed(self) -> int:
        """How many steps were recorded before this life began."""
        return len(self._recorded)

    def ends_with(self, recorded: Checkpoint) -> bool:
        """Whether this is the last of the recorded steps."""
        return recorded.step == max(self._recorded)

    @property
    def outstanding(self) -> int:
        """How many steps were called and have not answered."""
        return self._outstanding

    @property
    def overlapping(self) -> bool:
        """Whether answers have to wait for their turn."""
        return self._interleaving is not None

    def record(
        self,
        step: Step,
        kind: StepKind,
        name: str,
        output: bytes | None,
        started: float,
        error: bytes | None = None,
        attempts: int = 1,
    ) -> None:
        """Appends the answer of a step and does not wait."""
        self.going_on()
        self._ticket = self._committer.checkpoint(
            self.workflow_uuid, step.number, kind, name, output, started, error, step.seen, attempts
        )

    def going_on(self) -> None:
        """Something is about to be recorded. A workflow that the database has as parked is not any more."""
        if self.closed:
            raise self.halted or Evicted("this life of the workflow is over")
        self.grown = True
        if self.parked:
            batch = self._committer.unpark(self.workflow_uuid, self.parking)
            self._ticket = batch or self._ticket
            self.parked, self.parking = False, None

    def announce(self, step: Step, name: str) -> None:
        """Records that a communicator is about to be called, where others are under way."""
        if step.seen is None or step.announced:
            return
        self.going_on()
        self._ticket = self._committer.checkpoint(
            self.workflow_uuid, announcement(step.number), StepKind.CALL, name, b"", clock(), seen=step.seen
        )

    def announce_wait(self, step: Step, name: str, deadline: float) -> None:
        """Records until when a step waits: after a crash it waits for the rest of the time."""
        self.going_on()
        self._ticket = self._committer.checkpoint(
            self.workflow_uuid,
            announcement(step.number),
            StepKind.WAIT,
            name,
            repr(deadline).encode(),
            clock(),
            seen=step.seen,
        )

    def received(self, sequence: int) -> Batch:
        """The answer that was just recorded came from this message, which goes with it."""
        batch = self._ticket
        if batch is None:
            raise OperonInternalError("a message without a record of its receipt")
        self._committer.received(batch, self.workflow_uuid, sequence)
        return batch

    def sets(self, key: str) -> bool:
        """Notes that the workflow sets an event; whether it did so before."""
        if self._events is None:
            self._events = set()
        again = key in self._events
        self._events.add(key)
        return again

    def publish(self, step: Step, key: str, value: bytes) -> Batch:
        """What was just recorded is an event, which becomes visible with it."""
        batch = self._ticket
        if batch is None:
            raise OperonInternalError("an event without its record")
        self._committer.event(batch, self.workflow_uuid, step.number, key, value)
        return batch

    def wait_for(self, ticket: Batch) -> None:
        """Something of this workflow was appended elsewhere: the next effect waits for it too."""
        self._ticket = ticket

    @property
    def pending(self) -> bool:
        """Whether something of this workflow is not durable yet."""
        ticket = self._ticket
        return self.parked or (
            ticket is not None and (not ticket.done or ticket.failed is not None or ticket.error is not None)
        )

    async def durable(self) -> None:
        """Output commit: waits until everything recorded so far is durable."""
        if self.parked:
            self.going_on()
        if self._ticket is None:
            return
        try:
            await self._ticket.durable(self.workflow_uuid)
        except Exception as error:
            # Refused by the database. Not an error of the workflow's, so not one that it may catch: this coroutine has
            # run ahead of what is recorded, and is replayed from there.
            if self.halted is not None:  # told to go before that: nothing has crashed
                raise self.halted from self.halted.__cause__
            raise self.evict(Evicted(f"a record could not be stored: {error}")) from error

    def evict(self, evicted: Evicted) -> StopActor:
        """This coroutine is not to go on, whatever it makes of the error: what there is to it is recorded."""
        if self.halted is None:
            self.halted, self.closed = evicted, True
        return self.halted

    def close(self) -> None:
        """This life is over: nothing is recorded any more, and nobody waits for a turn."""
        self.closed = True
        if self._interleaving is not None:
            self._interleaving.close()

    def finished(self) -> None:
        """The body has returned: refuses what comes later, and a history that goes on where the code does not."""
        if self._outstanding and self.stopped is None:
            logger.warning(
                "%s %s ended with %d steps that were called and not awaited",
                self.workflow_name,
                self.workflow_uuid,
                self._outstanding,
            )
        if not (self._recorded or self._calls):
            return
        left = [number for number in (*self._recorded, *self._calls) if number >= self._next]
        if left and self.stopped is None:
            first = min(left)
            self._diverged(first, self._recorded.get(first) or self._calls[first], "the end of the workflow")

    def _diverged(self, number: int, recorded: Checkpoint, asked: str) -> NondeterminismError:
        kind = StepKind(recorded.kind)
        word = (
            "communicator" if kind is StepKind.CALL else "a timed wait" if kind is StepKind.WAIT else kind.name.lower()
        )
        was = f"{word} {recorded.name!r}"
        return self._stop(f"step {number} is now {asked}, but was recorded as {was}")

    def _stop(self, what: str) -> NondeterminismError:
        self.stopped = NondeterminismError(
            f"{self.workflow_name!r} {self.workflow_uuid}: {what}",
            hint="the code changed while this workflow was running, or it decides by something that is not recorded: "
            "finish old workflows before deploying, or register the new version under another name; "
            "take the time, random numbers and UUIDs from the context",
        )
        return self.stopped

    def __repr__(self) -> str:
        return f"<Journal {self.workflow_uuid}: step {self._next}, {len(self._recorded)} recorded>"


def announces(announced: Checkpoint, kind: StepKind, name: str) -> bool:
    """Whether the announcement of a call is one of this call."""
    kinds = (StepKind.COMMUNICATOR,) if announced.kind == StepKind.CALL else TIMED
    return kind in kinds and announced.name == name


def clock() -> float:
    """When a step began, for its checkpoint: seconds since the epoch on this machine. Nothing is decided by it."""
    return time.time()
