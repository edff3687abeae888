"""A workflow actor: one workflow, alive in this process.

Its state is its journal. A crash drops the coroutine and makes a fresh one that replays; a half-broken object is never
resumed. What crashes an actor is a broken runtime (a record that cannot be stored, a bug of ours). The workflow's own
exception is a result like any other: it is recorded and given to whoever asks.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NoReturn, cast
from uuid import UUID

from actors import ChildState, DynamicChild, Exit
from operon.contexts import Caller, WorkflowContext
from operon.database.batch import Batch
from operon.database.checkpoints import Checkpoint
from operon.errors import Evicted, Fenced, OperonInternalError, StopActor
from operon.failures import encode_error
from operon.operations import Operation, Workflow
from operon.runtime.invoke import StepInvoker
from operon.runtime.journal import Journal
from operon.runtime.outcome import Ended
from operon.status import Status

if TYPE_CHECKING:
    from operon.runtime.incarnation import Incarnation

SUCCESS = Status.SUCCESS.code
ERROR = Status.ERROR.code


class WorkflowActor:
    """One live workflow, and everyone in this process who waits for it."""

    __slots__ = (
        "_finished_in",
        "_history",
        "_incarnation",
        "_waiters",
        "arguments",
        "begun",
        "caller",
        "ended",
        "epoch",
        "gate",
        "inputs",
        "listeners",
        "operation",
        "over",
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
    ) -> None:
        self._incarnation = incarnation
        self.operation = operation
        self.workflow_uuid = workflow_uuid
        self.caller = caller
        self.inputs = inputs
        self.epoch = epoch
        self._history: list[Checkpoint] | None = history or []
        self.begun: tuple[Batch, int] | None = None  # where its start is recorded, if this process began it
        self.gate: Batch | None = None  # a start that may turn out to be taken: the body waits for it
        self.arguments: tuple[tuple[Any, ...], dict[str, Any]] | None = None  # as `inputs` decode; of the first life
        self.ended: Ended | None = None
        self.over = False  # nothing more will be heard of it here, whether it ended or goes on elsewhere
        self._finished_in: Batch | None = None
        self.listeners: set[int] | None = None  # executors that asked to be told
        self._waiters: list[asyncio.Future[None]] | None = None

    async def run(self) -> None:
        """One life of the actor: replays what is recorded, goes on from there, records the outcome."""
        history = await self._load()
        incarnation = self._incarnation
        journal = Journal(
            incarnation.committer, self.workflow_uuid, self.operation.name, history, self.begun and self.begun[0]
        )
        try:
            if self.gate is not None:
                await journal.durable()
                if self.workflow_uuid in self.gate.taken:
                    raise Fenced(f"workflow {self.workflow_uuid} was started before")
            status, output, error = await self._outcome(journal)
            journal.finished()
            if journal.stopped is not None:
                await incarnation.die(self, journal.stopped)
                return
            journal.closed = True
            await self._finish(journal, status, output, error)
        except Evicted as evicted:
            raise_crash(self, evicted)
        except BaseExceptionGroup as group:  # out of a task group of the workflow's
            if (stopped := group.subgroup(StopActor)) is None:
                raise
            raise_crash(self, first_of(stopped))
        finally:
            journal.close()

    async def _load(self) -> list[Checkpoint]:
        """The history that came with the claim; after a crash, what the database has now."""
        if self._history is None:
            self._incarnation.committer.drop(self.workflow_uuid)
            await self._incarnation.committer.drained()  # what is in flight of the last life may still land
            self._history, self.epoch = await self._incarnation.reload(self.workflow_uuid)
            self._incarnation.committer.mend(self.workflow_uuid)
            self.begun = self.gate = None
        history, self._history = self._history, None
        return history

    async def _outcome(self, journal: Journal) -> tuple[int, bytes | None, bytes | None]:
        incarnation = self._incarnation
        operation = self.operation
        invoker = StepInvoker(incarnation, self, journal)
        ctx = WorkflowContext(invoker, self.workflow_uuid, self.caller, incarnation.application)
        try:
            if self.arguments is not None:
                (args, kwargs), self.arguments = self.arguments, None
            else:
                args, kwargs = operation.signature.decode(self.inputs)
            if isinstance(operation, Workflow):
                value = await operation.fn(ctx, *args, **kwargs)
            else:  # a single transaction or communicator is a workflow of one step
                value = await invoker.invoke(operation, ctx, args, kwargs)
            return SUCCESS, operation.signature.result.encode(value), None
        except (Exception, SystemExit) as error:  # an exit is the workflow's own business, not the process'
            return ERROR, None, encode_error(error)

    async def _finish(self, journal: Journal, status: int, output: bytes | None, error: bytes | None) -> None:
        committer = self._incarnation.committer
        pending = journal.pending
        batch = committer.finish(self.workflow_uuid, status, output, error, self.begun)
        for listener in self.listeners or ():
            committer.ring(batch, self._incarnation.bell_of(listener, self.workflow_uuid))
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

    def exited(self, child: DynamicChild, exit: Exit) -> None:
        """A life is over; if it was the last one, so is this actor."""
        if child.state is not ChildState.RESTARTING:
            self._incarnation.exited(self, exit)

    def end(self, ended: Ended | None) -> None:
        """Tells everyone who waits here; None: it goes on elsewhere, look there."""
        self.ended = ended
        self.over = True
        for waiter in self._waiters or ():
            if not waiter.done():
                waiter.set_result(None)
        self._waiters = None

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
