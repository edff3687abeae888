"""Starts workflows: encodes their inputs, makes the start durable, spawns the actor, gives a handle.

A UUID that nobody chose cannot be taken, so its body may begin while the start is under way; without steps the whole
workflow is then one record. A chosen UUID may be taken: then the start is made durable first, and who comes second
attaches to what is there. Of any number of starts with one UUID one begins it, in this process or another.
"""

from __future__ import annotations

import asyncio
from itertools import count
from typing import TYPE_CHECKING, Any
from uuid import UUID

from operon.caller import Caller
from operon.catalog import Catalog
from operon.database import workflows
from operon.database.batch import Batch
from operon.database.mail import Letter, Park
from operon.database.uuid7 import FastUUID
from operon.errors import NonExistentWorkflowError, WorkflowConflictError
from operon.handles import WorkflowHandle
from operon.masking import masked_logger
from operon.operations import Operation
from operon.runtime.callers import traced
from operon.runtime.crowds import Places
from operon.runtime.patience import PATIENCE_SECONDS
from operon.runtime.results import Results
from operon.runtime.waits import WaitKind
from operon.runtime.workflow_actor import WorkflowActor
from operon.status import Status, WorkflowStatus

if TYPE_CHECKING:
    from operon.runtime.incarnation import Incarnation

logger = masked_logger("operon.workflows")

STOPPED = (Status.CANCELLED, Status.DEAD)


class Spawner:
    """Starts workflows in one incarnation of an executor."""

    def __init__(self, incarnation: Incarnation, catalog: Catalog, results: Results) -> None:
        self.catalog = catalog
        self.results = results
        self._incarnation = incarnation
        self.telemetry = incarnation.telemetry
        self._starting: dict[UUID, asyncio.Task[bool]] = {}
        self.held: dict[UUID, str] = {}  # starts that have to wait and are being recorded, and their names
        self._lanes = count(1)  # of messages from outside: nobody's UUID, and each its own
        self._news = False  # whether some of those are the first of their name

    async def start(
        self,
        operation: Operation[..., Any],
        caller: Caller,
        chosen: UUID | None,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        deadline: float | None = None,
        fresh: UUID | None = None,
    ) -> WorkflowHandle[Any]:
        """A handle once the start is durable. Raises InputError before anything ran, WorkflowConflictError,
        DatabaseUnavailable.

        fresh: the UUID if none was chosen; nobody knows it yet.
        """
        inputs, args, kwargs = operation.signature.settle(args, kwargs)
        incarnation = self._incarnation
        incarnation.admit()
        if self.telemetry.tracer is not None:
            caller = traced(caller, self.telemetry, operation.name)
        if chosen is not None:
            return await self._start_chosen(operation, caller, chosen, inputs, deadline)
        uuid = fresh or incarnation.new_uuid()
        if self._has_to_wait(operation.name):
            await self._confirmed(self._hold(operation, caller, uuid, inputs, deadline), uuid, uuid)
            return WorkflowHandle(self.results, uuid)
        actor = WorkflowActor(incarnation, operation, uuid, caller, inputs, deadline=deadline, new=True)
        actor.arguments = (args, kwargs)
        # First the actor, then the record: the actor's first turn comes before the committer's.
        incarnation.spawn(actor)
        batch = incarnation.committer.start(actor.workflow_uuid, operation.name, inputs, caller, deadline=deadline)
        actor.begun = (batch, len(batch.s_uuid) - 1)
        await self._confirmed(batch, uuid, uuid)
        return WorkflowHandle(StartedHere(actor, self.results), uuid)

    async def _confirmed(self, batch: Batch, lane: UUID, workflow_uuid: UUID) -> None:
        """Waits until what somebody from outside has said is durable. DatabaseUnavailable after a long outage."""
        if not batch.done:
            await self._incarnation.patience.of(batch.waiter(), workflow_uuid)
        batch.require(lane)

    def begin_child(
        self,
        operation: Operation[..., Any],
        caller: Caller,
        uuid: UUID,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        parent: tuple[UUID, int],
        deadline: float | None,
    ) -> None:
        """Starts a child and does not wait: its parent's checkpoint goes into the same batch."""
        inputs = operation.signature.encode(args, kwargs)
        if uuid in self._incarnation.live:  # of an earlier life of the parent, whose checkpoint was lost
            return
        if self.telemetry.tracer is not None:
            caller = traced(caller, self.telemetry, operation.name)
        if self._has_to_wait(operation.name):
            self._hold(operation, caller, uuid, inputs, deadline, parent)
            return
        actor = WorkflowActor(self._incarnation, operation, uuid, caller, inputs, deadline=deadline, new=True)
        self._incarnation.spawn(actor)
        batch = self._incarnation.committer.start(uuid, operation.name, inputs, caller, parent, deadline=deadline)
        actor.begun = (batch, len(batch.s_uuid) - 1)
        actor.gate = batch

    def _has_to_wait(self, name: str) -> bool:
        """Whether what is started under a name is only recorded: it is suspended, or there is no room."""
        return self._incarnation.suspensions.holds(name) or self._incarnation.crowds.closed(name)

    def _hold(
        self,
        operation: Operation[..., Any],
        caller: Caller,
        uuid: UUID,
        inputs: bytes,
        deadline: float | None,
        parent: tuple[UUID, int] | None = None,
        *,
        keyed: bool = False,
    ) -> Batch:
        """Records a start that has to wait. It begins as a parked one that is woken at once, by any executor."""
        committer, now = self._incarnation.committer, self._incarnation.clock.now()
        batch = committer.start(uuid, operation.name, inputs, caller, parent, keyed=keyed, deadline=deadline)
        batch.begin_parked(len(batch.s_uuid) - 1, Park(uuid, WaitKind.TIME, "its turn", (), now, ()))
        self.held[uuid] = operation.name
        crowds = self._incarnation.crowds
        if crowds.closed(operation.name) and operation.name not in crowds.wanted:
            crowds.wanted.add(operation.name)
            self._news = True
        return batch

    def recorded(self, batch: Batch) -> None:
        """Starts of this batch that have to wait are durable: whoever has room takes them."""
        failed, taken = batch.failed or (), batch.taken
        held = {uuid: self.held.pop(uuid) for park in batch.parked if (uuid := park.workflow_uuid) in self.held}
        ours = [uuid for uuid in held if uuid not in failed and uuid not in taken]
        if ours:
            ring, self._news = self._news, False
            self._incarnation.endings.let_go(ours, set(held.values()), ring=ring)

    def new_uuid(self) -> UUID:
        """One for a workflow whose UUID nobody chose."""
        return self._incarnation.new_uuid()

    def deadline_in(self, timeout: float | None) -> float | None:
        """When a workflow that starts now with this timeout is cancelled, in the database's clock."""
        return self._incarnation.deadline_in(timeout)

    async def post(
        self,
        caller: Caller,
        destination: UUID,
        topic: str | None,
        body: bytes,
        key: str | None,
        keep: bool,
        owner: str | None,
    ) -> Letter:
        """Sends a message from outside of any workflow; what became of it. Fenced: nothing did."""
        incarnation = self._incarnation
        incarnation.admit_message()
        lane: UUID = FastUUID(next(self._lanes).to_bytes(16, "big"))
        trace = self.telemetry.outgoing(caller.traceparent, destination)
        letter = Letter(lane, None, destination, topic, body, key, keep, None, None, trace, owner)
        await self._confirmed(incarnation.committer.letter(letter), lane, destination)
        return letter

    async def _start_chosen(
        self, operation: Operation[..., Any], caller: Caller, uuid: UUID, inputs: bytes, deadline: float | None
    ) -> WorkflowHandle[Any]:
        actor = self._incarnation.live.get(uuid)
        if actor is None:
            task = self._starting.get(uuid)
            if task is None:
                # A task of its own: a client that goes away must not leave a start without its actor.
                task = asyncio.get_running_loop().create_task(
                    self._begin_chosen(operation, caller, uuid, inputs, deadline)
                )
                self._starting[uuid] = task
                task.add_done_callback(lambda task: self._begun(uuid, task))
            await self._incarnation.patience.of(asyncio.shield(task), uuid)
            actor = self._incarnation.live.get(uuid)
        if actor is not None:
            self._check(uuid, operation, caller, inputs, actor.operation.name, actor.caller.user, actor.inputs)
            return WorkflowHandle(StartedHere(actor, self.results), uuid)
        row = await self._incarnation.look_ups.ask(lambda c: workflows.attach(c, uuid), PATIENCE_SECONDS)
        if row is None:
            raise NonExistentWorkflowError(f"workflow {uuid} was removed while it was being started")
        self._check(uuid, operation, caller, inputs, row.name, row.authenticated_user, row.inputs)
        return WorkflowHandle(self.results, uuid)

    @property
    def starting(self) -> int:
        """How many starts with chosen UUIDs are under way."""
        return len(self._starting)

    def _begun(self, uuid: UUID, task: asyncio.Task[bool]) -> None:
        del self._starting[uuid]
        if not task.cancelled():
            task.exception()  # seen, also when every client that waited has gone away

    async def _begin_chosen(
        self, operation: Operation[..., Any], caller: Caller, uuid: UUID, inputs: bytes, deadline: float | None
    ) -> bool:
        """Makes the start durable and spawns the actor; False when the UUID is taken."""
        if self._has_to_wait(operation.name):
            await self._hold(operation, caller, uuid, inputs, deadline, keyed=True).durable(uuid)
            return False
        with Places(self._incarnation.crowds) as places:
            places.take(operation.name)
            return await self._begin_in_place(operation, caller, uuid, inputs, deadline)

    async def _begin_in_place(
        self, operation: Operation[..., Any], caller: Caller, uuid: UUID, inputs: bytes, deadline: float | None
    ) -> bool:
        incarnation = self._incarnation
        batch = incarnation.committer.start(uuid, operation.name, inputs, caller, keyed=True, deadline=deadline)
        await batch.durable(uuid)
        if uuid in batch.taken:
            row = await incarnation.look_ups.ask(lambda connection: workflows.attach(connection, uuid))
            # Ours after all: the acknowledgement of the start was lost, not the start.
            # What was claimed, or has lived and left memory, is ours too, and is brought to life with its history.
            if row is None or row.owner != incarnation.number or row.epoch != 1 or row.status != 0 or row.lived:
                return False
            if uuid in incarnation.live or uuid in incarnation.endings.unsettled:
                return False
        incarnation.spawn(WorkflowActor(incarnation, operation, uuid, caller, inputs, deadline=deadline))
        return True

    def _check(
        self,
        uuid: UUID,
        operation: Operation[..., Any],
        caller: Caller,
        inputs: bytes,
        name: str,
        user: str | None,
        stored: bytes,
    ) -> None:
        if name != operation.name or user != caller.user:
            raise WorkflowConflictError(
                f"{operation.name!r} cannot be started as {uuid}: that UUID is in use",
                hint="a UUID, or an idempotency key, belongs to one operation and one user; choose another",
            )
        if stored != inputs:
            logger.warning("%s was started again as %s with other inputs; the stored ones count", operation.name, uuid)


class StartedHere:
    """Answers the handle of a workflow that lives in this process, without asking the database."""

    __slots__ = ("_actor", "_results")

    def __init__(self, actor: WorkflowActor, results: Results) -> None:
        self._actor = actor
        self._results = results

    async def result(self, workflow_uuid: UUID, timeout: float | None) -> Any:
        if timeout is not None and self._actor.ended is None:
            return await self._results.result(workflow_uuid, timeout)
        ended = await self._actor.wait()
        if ended is None or ended.status in STOPPED:  # it goes on elsewhere, or may have been resumed
            return await self._results.result(workflow_uuid, timeout)
        return ended.value(workflow_uuid, self._results.catalog)

    async def cancel(self, workflow_uuid: UUID) -> bool:
        return await self._results.cancel(workflow_uuid)

    async def resume(self, workflow_uuid: UUID) -> bool:
        return await self._results.resume(workflow_uuid)

    async def status(self, workflow_uuid: UUID) -> WorkflowStatus | None:
        if self._actor.ended is not None:
            await self._actor.settled()
        return await self._results.status(workflow_uuid)
