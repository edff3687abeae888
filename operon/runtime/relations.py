"""The steps that are about other workflows: their results and states, to cancel and resume them, and monitors."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from operon.codec import Codec
from operon.contexts import InvokingContext
from operon.database import monitors
from operon.database.uuid7 import child_uuid
from operon.errors import DatabaseUnavailable
from operon.failures import encode_error
from operon.given import as_seconds
from operon.handles import WorkflowHandle
from operon.runtime.door import Door, answer, as_replayed
from operon.runtime.journal import Step, StepKind, clock
from operon.runtime.results import Owned, nonexistent
from operon.runtime.transactions import Work
from operon.status import WorkflowStatus

if TYPE_CHECKING:
    from operon.runtime.client import TransactionClient

T = TypeVar("T")

STATUS: Codec[WorkflowStatus | None] = Codec(WorkflowStatus | None, "get_status()")
RESULT: Codec[tuple[str, str]] = Codec(tuple[str, str], "the result of another workflow")
CONTROL: Codec[bool] = Codec(bool, "cancel() or resume()")
SAID: Codec[str] = Codec(str, "monitor()")


class Relations(Door):
    """What a live workflow asks of others, and does to them."""

    __slots__ = ()

    def retrieve(self, ctx: InvokingContext, workflow_uuid: UUID, *, owned: bool = False) -> WorkflowHandle[Any]:
        """A handle whose answers are recorded."""
        return WorkflowHandle(RecordedResults(self, owned), workflow_uuid)

    def result_of(self, workflow_uuid: UUID, timeout: float | None, owned: bool) -> Coroutine[Any, Any, Any]:
        """The result of another workflow, as a step."""
        timeout = as_seconds(timeout)
        step = self._journal.call(StepKind.RESULT, "get_result")
        given = self._answer(step, self._stored_result, self._result, workflow_uuid, timeout, owned)
        return self._children.hear(workflow_uuid, given) if workflow_uuid in self._children else given

    async def _result(self, step: Step, workflow_uuid: UUID, timeout: float | None, owned: bool) -> Any:
        journal = self._journal
        if journal.pending:
            await journal.durable()
        started = clock()
        try:
            if owned:
                await patiently(lambda: self._owned().require(workflow_uuid))
            ended = await self._messages.result(step, workflow_uuid, timeout)
            value = ended.value(workflow_uuid, self._incarnation.catalog)
        except Exception as error:
            stored = encode_error(error)
            journal.record(step, StepKind.RESULT, "get_result", None, started, stored)
            raise as_replayed(stored) from error
        stored = RESULT.encode((ended.name, (ended.output or b"").decode()))
        journal.record(step, StepKind.RESULT, "get_result", stored, started)
        return value

    def _stored_result(self, stored: bytes) -> Any:
        name, output = RESULT.decode(stored)
        return self._incarnation.catalog.result_codec(name).decode(output.encode())

    def _owned(self) -> Owned:
        return Owned(self._incarnation.results, self._actor.caller.user)

    def status_of(self, workflow_uuid: UUID, owned: bool) -> Coroutine[Any, Any, WorkflowStatus | None]:
        """The status of another workflow, as a step."""
        step = self._journal.call(StepKind.STATUS, "get_status")
        return self._answer(step, STATUS.decode, self._status, workflow_uuid, owned)

    async def _status(self, step: Step, workflow_uuid: UUID, owned: bool) -> WorkflowStatus | None:
        journal = self._journal
        if journal.pending:
            await journal.durable()
        started = clock()
        results = self._owned() if owned else self._incarnation.results
        status = await patiently(lambda: results.status(workflow_uuid))
        journal.record(step, StepKind.STATUS, "get_status", STATUS.encode(status), started)
        return status

    def control(self, kind: StepKind, workflow_uuid: UUID, owned: bool) -> Coroutine[Any, Any, bool]:
        """Cancels or resumes another workflow, as a step."""
        step = self._journal.call(kind, kind.name.lower())
        given = self._answer(step, CONTROL.decode, self._control, kind, workflow_uuid, owned)
        ends = kind is StepKind.CANCEL and workflow_uuid in self._children
        return self._children.hear(workflow_uuid, given) if ends else given

    async def _control(self, step: Step, kind: StepKind, workflow_uuid: UUID, owned: bool) -> bool:
        journal = self._journal
        if journal.pending:
            await journal.durable()
        results = self._owned() if owned else self._incarnation.results
        started = clock()
        try:
            if kind is StepKind.CANCEL:
                by = f"workflow {self._actor.operation.name!r} {self._actor.workflow_uuid}"
                done = await patiently(lambda: results.cancel(workflow_uuid, by))
            else:
                done = await patiently(lambda: results.resume(workflow_uuid))
        except Exception as error:
            stored = encode_error(error)
            journal.record(step, kind, kind.name.lower(), None, started, stored)
            raise as_replayed(stored) from error
        journal.record(step, kind, kind.name.lower(), CONTROL.encode(done), started)
        return done

    # ------------------------------------------------------------------ monitors

    def monitor(self, target: UUID, owned: bool) -> Coroutine[Any, Any, UUID]:
        """Has this workflow told of the end of another one."""
        step = self._journal.call(StepKind.MONITOR, "monitor")
        watcher, owner = self._actor.workflow_uuid, self._owner if owned else None
        ref = child_uuid(watcher, step.number)

        def read(said: str) -> UUID:
            if said == "unknown":
                raise nonexistent(target)
            return ref

        return self._link(step, SAID, lambda c: monitors.monitor(c, ref, target, watcher, owner), read)

    def demonitor(self, ref: UUID) -> Coroutine[Any, Any, bool]:
        """Takes a monitor of this workflow back."""
        step = self._journal.call(StepKind.DEMONITOR, "demonitor")
        watcher = self._actor.workflow_uuid
        return self._link(step, CONTROL, lambda c: monitors.demonitor(c, ref, watcher), bool)

    def _link(
        self,
        step: Step,
        codec: Codec[Any],
        act: Callable[[TransactionClient], Coroutine[Any, Any, Any]],
        read: Callable[[Any], Any],
    ) -> Coroutine[Any, Any, Any]:
        """A step in a transaction of its own: it locks what a flush that waited for it could not lock in order."""
        work = Work(
            (self._actor.workflow_uuid, self._incarnation.number, self._actor.epoch),
            step.number,
            step.seen,
            step.kind,
            step.name,
            clock(),
            "READ COMMITTED",
            False,
            act,
            codec.settle,
            lambda output, error: answer(output, error, codec.decode),
        )
        return self._answer(step, lambda stored: read(codec.decode(stored)), self._linked, work, read)

    async def _linked(self, step: Step, work: Work, read: Callable[[Any], Any]) -> Any:
        journal = self._journal
        if journal.pending:  # a child that was just started has to be there before it is monitored
            await journal.durable()
        said = await self._transact(step, work)
        self._actor.ring()  # of one that has ended before, the message is there already
        return read(said)


class RecordedResults:
    """What a handle asks inside a workflow: each answer is a step."""

    __slots__ = ("_invoker", "_owned")

    def __init__(self, invoker: Relations, owned: bool = False) -> None:
        self._invoker = invoker
        self._owned = owned

    def result(self, workflow_uuid: UUID, timeout: float | None) -> Coroutine[Any, Any, Any]:
        return self._invoker.result_of(workflow_uuid, timeout, self._owned)

    def status(self, workflow_uuid: UUID) -> Coroutine[Any, Any, WorkflowStatus | None]:
        return self._invoker.status_of(workflow_uuid, self._owned)

    def cancel(self, workflow_uuid: UUID) -> Coroutine[Any, Any, bool]:
        return self._invoker.control(StepKind.CANCEL, workflow_uuid, self._owned)

    def resume(self, workflow_uuid: UUID) -> Coroutine[Any, Any, bool]:
        return self._invoker.control(StepKind.RESUME, workflow_uuid, self._owned)


async def patiently(ask: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """In a workflow a lost database is weather: it waits."""
    while True:
        try:
            return await ask()
        except DatabaseUnavailable:
            continue
