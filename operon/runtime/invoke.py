"""The single door: every operation that anybody calls comes through here, and only here it is decided: replay or run.

`StepInvoker` is the door of a live workflow: each call is a numbered step whose answer comes from the journal if it is
recorded, and is recorded if it is not (`door`). Here are the steps that run operations and statements, and those that
only take the time; messages and events are in `correspondence`, other workflows in `relations`. Whoever calls from
outside of a workflow comes in by `entry.py`, and starts one.

Checklist: a new kind of step needs a name in `StepKind`, a method, and a name in the view `readable_checkpoints`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID, uuid4

from operon.authorization import authorized, judge, refuse
from operon.caller import Caller
from operon.codec import Codec
from operon.contexts import InvokingContext, TransactionContext
from operon.database.uuid7 import child_uuid
from operon.errors import Evicted, InvocationError, NotAuthorizedError, UnknownOperationError
from operon.failures import encode_error
from operon.given import as_seconds
from operon.handles import WorkflowHandle
from operon.invokers import ParentClose
from operon.operations import Communicator, Operation, Transaction, Workflow
from operon.runtime import statements
from operon.runtime.backoff import Backoff
from operon.runtime.children import read_child, write_child
from operon.runtime.communicators import Attempts
from operon.runtime.correspondence import Correspondence
from operon.runtime.door import answer, as_replayed
from operon.runtime.journal import Step, StepKind, clock
from operon.runtime.relations import RecordedResults, Relations
from operon.runtime.statements import Statement
from operon.runtime.transactions import Work
from operon.telemetry.hidden import hide

if TYPE_CHECKING:
    from operon.runtime.client import TransactionClient

T = TypeVar("T")

NOW: Codec[datetime] = Codec(datetime, "now()")
UUID4: Codec[UUID] = Codec(UUID, "uuid4()")
RANDOM: Codec[float] = Codec(float, "random()")
SLEEP: Codec[float] = Codec(float, "sleep()")


class StepInvoker(Correspondence, Relations):
    """The door of one live workflow."""

    __slots__ = ()

    def invoke(
        self, operation: Operation[..., Any], ctx: InvokingContext, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Coroutine[Any, Any, Any]:
        """Numbers a step and gives the coroutine that answers it."""
        incarnation = self._incarnation
        incarnation.catalog.require(operation)
        if incarnation.draining:
            raise self._journal.evict(Evicted("the executor stops"))
        if operation.masks:
            hide(operation.signature.secrets(args, kwargs))
        called: Any = operation
        name = operation.name
        caller = self._actor.caller
        if operation.required_roles:
            verdict = judge(name, operation.required_roles, caller)
            if isinstance(verdict, NotAuthorizedError):
                return refuse(verdict)  # no step: every life refuses it here
            caller = verdict
        match operation.kind:
            case "communicator":
                step = self._journal.call(StepKind.COMMUNICATOR, name)
                return self._answer(
                    step, operation.signature.result.decode, self._communicator, called, caller, args, kwargs
                )
            case "transaction":
                step = self._journal.call(StepKind.TRANSACTION, name)
                return self._answer(
                    step, operation.signature.result.decode, self._transaction, called, caller, args, kwargs
                )
            case "workflow":
                step = self._journal.call(StepKind.CHILD, name)
                given = self._answer(step, read_child, self._child, called, caller, ctx, args, kwargs)
                return self._child_handle(step.number, given)
            case _:
                raise TypeError(f"{operation!r} is not an operation")

    # ------------------------------------------------------------------ operations

    async def _communicator(
        self,
        step: Step,
        operation: Communicator[..., Any],
        caller: Caller,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        journal, actor, incarnation = self._journal, self._actor, self._incarnation
        if step.seen is not None:
            journal.announce(step, operation.name)
        if journal.pending:
            await journal.durable()
        attempts = Attempts(
            operation,
            incarnation.lease,
            incarnation.threads,
            actor.workflow_uuid,
            step.number,
            caller,
            incarnation.application,
            Backoff(incarnation, actor, journal, step),
        )
        started = clock()
        incarnation.effects += 1
        actor.entered(attempts)
        try:
            call = attempts.running = attempts.run(args, kwargs)
            returned = await (actor.interruptibly(call) if operation.cancellable else call)
            output, value = operation.signature.result.settle(returned)
        except MemoryError as error:  # says nothing of the call: a crash, and no answer
            raise journal.evict(Evicted("out of memory")) from error
        except Exception as error:
            stored = encode_error(error)
            journal.record(step, StepKind.COMMUNICATOR, operation.name, None, started, stored, attempts.made)
            raise as_replayed(stored) from error
        finally:
            actor.left(attempts)
            incarnation.effect_ended()
        journal.record(step, StepKind.COMMUNICATOR, operation.name, output, started, attempts=attempts.made)
        return value

    async def _transaction(
        self,
        step: Step,
        operation: Transaction[..., Any],
        caller: Caller,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        journal, actor, application = self._journal, self._actor, self._incarnation.application
        codec = operation.signature.result

        async def body(client: TransactionClient) -> Any:
            ctx = TransactionContext(actor.workflow_uuid, caller, application, client, operation.name)
            return await operation.fn(ctx, *args, **kwargs)

        if journal.pending:
            await journal.durable()
        return await self._transact(
            step,
            Work(
                (actor.workflow_uuid, self._incarnation.number, actor.epoch),
                step.number,
                step.seen,
                StepKind.TRANSACTION,
                operation.name,
                clock(),
                operation.isolation,
                operation.read_only,
                body,
                lambda value: codec.settle(value),
                lambda output, error: answer(output, error, codec.decode),
            ),
        )

    async def _child(
        self,
        step: Step,
        operation: Workflow[..., Any],
        caller: Caller,
        ctx: InvokingContext,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> tuple[UUID, ParentClose]:
        journal, actor, spawner = self._journal, self._actor, self._incarnation.spawner
        started = clock()
        try:
            uuid = ctx.options.workflow_uuid
            deadline = earliest(self._incarnation.deadline_in(ctx.options.timeout), actor.deadline)
            if uuid is None:
                # The child's start and this checkpoint are in one batch: both are durable, or neither is.
                uuid = child_uuid(actor.workflow_uuid, step.number)
                parent = (actor.workflow_uuid, step.number)
                spawner.begin_child(operation, caller, uuid, args, kwargs, parent, deadline)
            else:
                await spawner.start(operation, caller, uuid, args, kwargs, deadline)
        except Exception as error:
            stored = encode_error(error)
            journal.record(step, StepKind.CHILD, operation.name, None, started, stored)
            raise as_replayed(stored) from error
        close = ctx.options.parent_close
        journal.record(step, StepKind.CHILD, operation.name, write_child(uuid, close), started)
        return uuid, close

    def child_of(self, ctx: InvokingContext, name: str, inputs: bytes) -> Coroutine[Any, Any, WorkflowHandle[Any]]:
        """Starts a child by its recorded name, with inputs as they are stored. A replay needs neither any more."""
        if self._incarnation.draining:
            raise self._journal.evict(Evicted("the executor stops"))
        step = self._journal.call(StepKind.CHILD, name)
        return self._child_handle(step.number, self._answer(step, read_child, self._child_by_name, ctx, name, inputs))

    async def _child_by_name(
        self, step: Step, ctx: InvokingContext, name: str, inputs: bytes
    ) -> tuple[UUID, ParentClose]:
        started = clock()
        try:
            operation: Any = self._incarnation.catalog.operations.get(name)
            if operation is None:
                raise UnknownOperationError(
                    f"{name!r} is not an operation of this application", hint="pass its module or class to Operon(...)"
                )
            caller = authorized(name, operation.required_roles, self._actor.caller)
            args, kwargs = operation.signature.decode(inputs)
        except Exception as error:
            stored = encode_error(error)
            self._journal.record(step, StepKind.CHILD, name, None, started, stored)
            raise as_replayed(stored) from error
        return await self._child(step, operation, caller, ctx, args, kwargs)

    async def _child_handle(
        self, number: int, answer: Coroutine[Any, Any, tuple[UUID, ParentClose]]
    ) -> WorkflowHandle[Any]:
        uuid, close = await answer
        if close != "abandon":
            self._children.started(number, uuid, close)
        return WorkflowHandle(RecordedResults(self), uuid)

    @property
    def leaves_children(self) -> bool:
        """Whether something is to be done about children when the body has ended."""
        return len(self._children) > 0

    async def close_children(self) -> None:
        """Cancels the children that the workflow leaves behind, or waits for them, as it said when it started them."""
        await self._children.close(self)

    # ------------------------------------------------------------------ one-statement transactions

    def sql(self, mode: str, statement: str, args: tuple[Any, ...]) -> Coroutine[Any, Any, Any]:
        """A one-statement transaction, committed together with its checkpoint."""
        step = self._journal.call(StepKind.SQL, statements.name_of(statement))
        return self._answer(step, partial(statements.decode, mode), self._sql, mode, statement, args)

    async def _sql(self, step: Step, mode: str, sql: str, args: tuple[Any, ...]) -> Any:
        journal, actor = self._journal, self._actor
        journal.going_on()
        statement = Statement(actor.workflow_uuid, step.number, step.seen, mode, sql, args, clock())
        journal.wait_for(self._incarnation.committer.statement(statement))
        await journal.durable()
        if statement.moved:
            return await self._transact(step, self._statement_work(statement))
        return statement.value

    def _statement_work(self, s: Statement) -> Work:
        """The statement as an ordinary transaction: its batch could not take it along."""
        decode = partial(statements.decode, s.mode)
        return Work(
            (s.workflow_uuid, self._incarnation.number, self._actor.epoch),
            s.step,
            s.seen,
            StepKind.SQL,
            s.name,
            s.started,
            "READ COMMITTED",
            False,
            s.run_alone,
            lambda value: value,
            lambda output, error: answer(output, error, decode),
        )

    # ------------------------------------------------------------------ time

    def sleep(self, duration: float) -> Coroutine[Any, Any, None]:
        """Waits so many seconds."""
        wanted = as_seconds(duration) or 0.0
        return self._sleep(self._journal.call(StepKind.SLEEP, "sleep"), lambda: self._incarnation.clock.now() + wanted)

    def sleep_until(self, when: datetime) -> Coroutine[Any, Any, None]:
        """Waits until a time has come."""
        if when.tzinfo is None:
            raise InvocationError(f"sleep_until({when!r}): a time without a zone", hint="datetime.now(UTC) has one")
        return self._sleep(self._journal.call(StepKind.SLEEP, "sleep"), when.timestamp)

    async def _sleep(self, step: Step, until: Callable[[], float]) -> None:
        """The one step that is recorded when it begins: nothing is found out by it but when it ends."""
        journal = self._journal
        try:
            if step.recorded is not None:
                deadline = answer(step.recorded.output, step.recorded.error, SLEEP.decode)
            else:
                deadline = until()
                journal.record(step, StepKind.SLEEP, "sleep", SLEEP.encode(deadline), clock())
            await self._messages.sleep(step, deadline)
            if journal.overlapping:
                await journal.turn(step)
        finally:
            self._delivered(step)

    # ------------------------------------------------------------------ deterministic helpers: no wait

    def now(self) -> datetime:
        """The time, recorded."""
        return self._recorded_value(
            StepKind.NOW, NOW, lambda: datetime.fromtimestamp(self._incarnation.clock.now(), UTC)
        )

    def uuid4(self) -> UUID:
        """A random UUID, recorded."""
        return self._recorded_value(StepKind.UUID4, UUID4, uuid4)

    def random(self) -> float:
        """A random number, recorded."""
        return self._recorded_value(StepKind.RANDOM, RANDOM, random.random)

    def value(self, name: str, codec: Codec[T], make: Callable[[], T]) -> T:
        """A value of the runtime's own that a replay has to see as it was."""
        return self._recorded_value(StepKind.VALUE, codec, make, name)


def earliest(*deadlines: float | None) -> float | None:
    return min((deadline for deadline in deadlines if deadline is not None), default=None)
