"""A workflow actor: one workflow, alive in this process.

Its state is its journal. A crash ends it, and a fresh actor replays; a half-broken object is never resumed. What
crashes an actor is a broken runtime: a record that cannot be stored, no memory, an endless loop, a bug of ours. The
workflow's own exception is a result like any other: it is recorded and given to whoever asks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, cast
from uuid import UUID

from actors import DynamicChild, Exit
from operon.caller import Caller
from operon.contexts import WorkflowContext
from operon.database.batch import Batch
from operon.database.checkpoints import Checkpoint
from operon.errors import (
    Cancelled,
    Evicted,
    Fenced,
    OperonInternalError,
    StopActor,
    WorkflowCancelledError,
)
from operon.failures import encode_error
from operon.operations import Operation, Workflow
from operon.runtime.invoke import StepInvoker
from operon.runtime.journal import Journal
from operon.runtime.mailbox import Mailbox
from operon.runtime.outcome import Ended, timed_out
from operon.runtime.waits import Bell, Wait, Waits
from operon.status import Status
from operon.telemetry.hidden import hide

if TYPE_CHECKING:
    from operon.runtime.communicators import Attempts
    from operon.runtime.incarnation import Incarnation
    from operon.runtime.transactions import Work

SUCCESS = Status.SUCCESS.code
ERROR = Status.ERROR.code
CANCELLED = Status.CANCELLED.code


class WorkflowActor:
    """One live workflow, and everyone in this process who waits for it."""

    __slots__ = (
        "_calls",
        "_crash_step",
        "_crashes",
        "_finished_in",
        "_history",
        "_incarnation",
        "_mailbox",
        "_new",
        "_parked",
        "_resting",
        "_waiters",
        "arguments",
        "begun",
        "caller",
        "deadline",
        "ended",
        "epoch",
        "gate",
        "inputs",
        "journal",
        "operation",
        "over",
        "rung",
        "under_way",
        "waits",
        "workflow_uuid",
    )

    def __init__(
        self,
        incarnation: Incarnation,
        operation: Operation[..., Any],
        workflow_uuid: UUID,
        caller: Caller,
        inputs: bytes,
        epoch: int = 1,
        history: list[Checkpoint] | None = None,
        *,
        deadline: float | None = None,
        new: bool = False,
        parked: bool = False,
        mailbox: Mailbox | None = None,
        crashes: int = 0,
        crash_step: int = 0,
    ) -> None:
        """`new`: nobody but its starter can know it yet. `parked`: that is what the database has it as."""
        self._incarnation = incarnation
        self.operation = operation
        self.workflow_uuid = workflow_uuid
        self.caller = caller
        self.inputs = inputs
        self.epoch = epoch
        self._history: Sequence[Checkpoint] = history or ()
        self._crashes = crashes
        self._crash_step = crash_step
        self.begun: tuple[Batch, int] | None = None  # where its start is recorded, if this process began it
        self.gate: Batch | None = None  # a start that may turn out to be taken: the body waits for it
        self.arguments: tuple[tuple[Any, ...], dict[str, Any]] | None = None  # as `inputs` decode; of the first life
        self.ended: Ended | None = None
        self.over = False  # nothing more will be heard of it here, whether it ended or goes on elsewhere
        self._finished_in: Batch | None = None
        self.deadline = deadline  # in the database's clock
        self.journal: Journal | None = None  # of the present life
        self.waits: Waits | None = None
        self.rung = False  # while it was leaving memory: it has to come back
        self._new = new
        self._parked = parked
        self._mailbox = mailbox
        self._resting: set[Bell] | None = None
        self._calls: set[asyncio.Task[Any]] | None = None  # that may be interrupted
        self._waiters: list[asyncio.Future[None]] | None = None
        self.under_way: dict[Attempts | Work, None] | None = None  # what it calls now, in order, for those who ask

    async def run(self) -> None:
        """One life of the actor: replays what is recorded, goes on from there, records the outcome."""
        incarnation = self._incarnation
        history, self._history = self._history, ()
        journal = self.journal = Journal(
            incarnation.committer,
            self.workflow_uuid,
            self.operation.name,
            history,
            self.begun and self.begun[0],
            self._parked,
        )
        timer = None if self.deadline is None else incarnation.timers.at(self.deadline, self._expired)
        try:
            if self.gate is not None:
                await journal.durable()
                if self.workflow_uuid in self.gate.taken:
                    raise Fenced(f"workflow {self.workflow_uuid} was started before")
            status, output, error = await self.outcome(journal)
            if status != CANCELLED:
                journal.finished()
            if journal.stopped is not None:
                await incarnation.endings.die(self, journal.stopped)
                return
            if journal.parked:
                journal.going_on()
            journal.closed = True
            await self._finish(journal, status, output, error)
        except Evicted as evicted:
            if evicted.__cause__ is None:
                # Told to go. Its frames refer to it in a circle; as an ordinary end nothing waits for the collector.
                evicted.__traceback__ = None
                return
            raise_crash(self, evicted)
        except BaseExceptionGroup as group:  # out of a task group of the workflow's
            if (stopped := group.subgroup(StopActor)) is None:
                raise
            raise_crash(self, first_of(stopped))
        finally:
            journal.close()
            self.waits = None
            if timer is not None:
                timer.cancel()

    async def told(self) -> None:
        """`run`, with a span and counts."""
        with self._incarnation.telemetry.life(
            self.workflow_uuid,
            self.operation.name,
            self.caller.traceparent,
            body=isinstance(self.operation, Workflow),
            fresh=self._crashes == 0 and self.epoch == 1 and not self._parked,
            crashed=self._crashes > 0 or (self.epoch > 1 and not self._parked),
            epoch=self.epoch,
            argument_bytes=len(self.inputs),
        ) as life:
            try:
                await self.run()
            finally:
                if self.journal is not None:
                    life.ended(self.ended and self.ended.status.value, self.journal.halted, self.journal.replayed)

    async def outcome(self, journal: Journal) -> tuple[int, bytes | None, bytes | None]:
        """Runs the body to its end: status, output and error, as they are stored."""
        incarnation = self._incarnation
        operation = self.operation
        invoker = self.door(journal)
        ctx = WorkflowContext(invoker, self.workflow_uuid, self.caller, incarnation.application, operation.name)
        try:
            if self.arguments is not None:
                (args, kwargs), self.arguments = self.arguments, None
            else:
                args, kwargs = operation.signature.decode(self.inputs)
            if operation.masks:
                hide(operation.signature.secrets(args, kwargs))
            if isinstance(operation, Workflow):
                try:
                    value = await operation.fn(ctx, *args, **kwargs)
                except MemoryError:  # a crash, and no end
                    raise
                except (Exception, SystemExit):
                    if invoker.leaves_children and journal.halted is None:
                        await invoker.close_children()
                    raise
                if invoker.leaves_children:
                    await invoker.close_children()
            else:  # a single transaction or communicator is a workflow of one step
                value = await invoker.invoke(operation, ctx, args, kwargs)
            if journal.halted is not None:  # it swallowed that
                raise journal.halted
            return SUCCESS, operation.signature.result.encode(value), None
        except BaseException as error:
            if isinstance(journal.halted, Cancelled):
                return CANCELLED, None, encode_error(journal.halted.error)
            if journal.halted is not None:
                # Its cause says whether this life was refused, or told to go.
                raise journal.halted from journal.halted.__cause__
            # An exit is the workflow's own business, not the process'; that there is no memory left is not.
            if isinstance(error, Exception | SystemExit) and not isinstance(error, MemoryError):
                self._incarnation.telemetry.failed(error)
                return ERROR, None, encode_error(error)
            raise

    def door(self, journal: Journal) -> StepInvoker:
        """What the calls of the body go through; a replay for a test has one that runs nothing."""
        return StepInvoker(self._incarnation, self, journal)

    async def _finish(self, journal: Journal, status: int, output: bytes | None, error: bytes | None) -> None:
        committer = self._incarnation.committer
        pending = journal.pending
        batch = committer.finish(self.workflow_uuid, status, output, error, self.begun)
        self._incarnation.tell(batch, self.workflow_uuid, forget=True)
        if pending:
            # The outcome follows from what is recorded, so only that has to be durable before anybody hears of it.
            journal.wait_for(batch)
            await journal.durable()
        self._finished_in = batch
        self.end(Ended(self.operation.name, Status.from_code(status), output, error))
        if not pending:
            journal.wait_for(batch)
            await journal.durable()

    async def settled(self) -> None:
        """Waits until the end is in the database, after it was told."""
        if self._finished_in is not None:
            await self._finished_in.durable(self.workflow_uuid)

    def entered(self, call: Attempts | Work) -> None:
        """It calls a communicator, or runs a transaction."""
        if self.under_way is None:
            self.under_way = {}
        self.under_way[call] = None

    def left(self, call: Attempts | Work) -> None:
        """That has answered."""
        if self.under_way is not None:
            self.under_way.pop(call, None)
            if not self.under_way:
                self.under_way = None

    # ------------------------------------------------------------------ waiting

    @property
    def idle(self) -> bool:
        """Whether all its branches wait for what can be waited for outside of memory, and none has to look again.

        A bell may ring in the turn of the loop in which the database answers that the workflow is parked. Whoever was
        rung for then looks first: evicted, it would have heard a bell that rings no more.
        """
        return (
            self.journal is not None
            and self.waits is not None
            and self.journal.halted is None
            and 0 < len(self.waits) == self.journal.outstanding
            and not self.waits.unheard
        )

    @property
    def leaving(self) -> bool:
        """Whether this life was told to end, and has not yet."""
        return self.journal is not None and self.journal.halted is not None

    @property
    def resting(self) -> bool:
        """Whether all its branches wait, durably or between the attempts of a communicator, and nobody has rung."""
        if self.journal is None or self.journal.halted is not None:
            return False
        waits, pauses = self.waits, self._resting or ()
        waiting = len(pauses) + (0 if waits is None else len(waits))
        rung = any(bell.unheard for bell in pauses) or (waits is not None and waits.unheard)
        return 0 < waiting == self.journal.outstanding and not rung

    @property
    def crashed(self) -> bool:
        """Whether an earlier life of it crashed."""
        return self._crashes > 0

    @property
    def crashes_here(self) -> int:
        """How often it crashed in a row where its records end."""
        return self._crashes if self.journal is not None and self.journal.replayed == self._crash_step else 0

    @property
    def awaited_topics(self) -> set[str | None]:
        """The topics whose messages it waits for."""
        return set() if self.waits is None else self.waits.topics

    def pause(self, wait: Wait) -> Coroutine[Any, Any, None]:
        """Waits until somebody rings. Raises what the workflow was halted with meanwhile, while it still looked."""
        if self.journal is not None and self.journal.halted is not None:
            raise self.journal.halted
        if self.begun is not None and self.begun[0].done:
            self.begun = None  # or whoever waits would keep the records of everybody who began with it
        if self.waits is None:
            self.waits = Waits(self._incarnation.timers, self._waits_changed)
        return self.waits.pause(wait)

    def _waits_changed(self) -> None:
        self._incarnation.parker.changed(self)

    @property
    def messages_known(self) -> int:
        """How many messages for it are in memory."""
        return 0 if self._mailbox is None else self._mailbox.known

    def open_mailbox(self) -> Mailbox:
        """What is known of its mailbox."""
        if self._mailbox is None:
            self._mailbox = Mailbox(self.workflow_uuid, empty=self._new)
        return self._mailbox

    def ring(self) -> None:
        """Something may have come, or happened, that it waits for."""
        if self.journal is not None and self.journal.halted is not None:
            self.rung = True
            return
        self.open_mailbox().ring()
        if self.waits is not None:
            self.waits.ring_all()

    def push(self, topic: str | None, sequence: int, body: bytes, traceparent: str | None) -> None:
        """A message has come, and is the only one."""
        if self.journal is not None and self.journal.halted is not None:
            self.rung = True
            return
        self.open_mailbox().push(topic, sequence, body, traceparent)
        if self.waits is not None:
            self.waits.rung_for(topic)

    def halt(self, error: StopActor) -> None:
        """Takes the coroutine down, at its next step or where it waits. Evicted: nothing more of it is recorded."""
        if self.journal is None or self.journal.halted is not None:
            return
        if isinstance(error, Evicted):
            self.journal.evict(error)
        else:
            self.journal.halted = error
        if self.waits is not None:
            self.waits.stop(error)
        for bell in self._resting or ():
            bell.stop(error)
        for call in self._calls or ():
            call.cancel()

    def revoked(self) -> None:
        """Somebody has cancelled it; the database knows already."""
        cancelled = WorkflowCancelledError(f"{self.operation.name!r} {self.workflow_uuid} was cancelled")
        self.end(Ended(self.operation.name, Status.CANCELLED, None, encode_error(cancelled)))
        self.halt(Evicted("cancelled"))

    async def rest(self, seconds: float) -> None:
        """A pause in memory, between attempts: it ends when the workflow is taken down."""
        bell = Bell()
        self._resting = {*(self._resting or ()), bell}
        timer = self._incarnation.timers.at(self._incarnation.clock.now() + seconds, bell.ring)
        try:
            await bell.rung()
        finally:
            timer.cancel()
            self._resting.discard(bell)

    async def interruptibly(self, call: Coroutine[Any, Any, Any]) -> Any:
        """The value of a call that is cancelled when the workflow is."""
        task = asyncio.get_running_loop().create_task(call)
        self._calls = {*(self._calls or ()), task}
        try:
            return await task
        except asyncio.CancelledError:
            if self.journal is not None and self.journal.halted is not None:
                raise self.journal.halted from self.journal.halted.__cause__
            task.cancel()
            raise
        finally:
            self._calls.discard(task)

    def _expired(self) -> None:
        """Its time is over."""
        self.halt(Cancelled(timed_out(self.operation.name, self.workflow_uuid)))

    # ------------------------------------------------------------------ the end

    def exited(self, child: DynamicChild, exit: Exit) -> None:
        """Its life is over, and so is this actor; a next life has an actor of its own."""
        self._incarnation.exited(self, exit)

    def end(self, ended: Ended | None) -> None:
        """Tells everyone who waits here; None: it goes on elsewhere, look there."""
        self.ended = ended
        self.over = True
        for waiter in self._waiters or ():
            if not waiter.done():
                waiter.set_result(None)
        self._waiters = None
        self._incarnation.results.ring(self.workflow_uuid)

    @property
    def waiting(self) -> int:
        """How many in this process wait for its end."""
        return len(self._waiters or ())

    async def wait(self) -> Ended | None:
        """Waits for the end; None when this process will not see it."""
        if not self.over:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            waiting = self._waiters = self._waiters or []
            waiting.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter in waiting:
                    waiting.remove(waiter)
                raise
        return self.ended

    def __repr__(self) -> str:
        return f"<WorkflowActor {self.operation.name} {self.workflow_uuid} epoch {self.epoch}>"


def raise_crash(actor: WorkflowActor, stopped: BaseException) -> NoReturn:
    """A coroutine that was stopped because a record of it was refused has crashed; one that was told to go has not."""
    if isinstance(stopped, Evicted) and stopped.__cause__ is not None:
        raise OperonInternalError(f"{actor!r} is replayed: {stopped}") from stopped.__cause__
    raise stopped


def first_of(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
    return error
