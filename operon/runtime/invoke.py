"""The single door: every operation that anybody calls comes through here, and only here it is decided: replay or run.

`StepInvoker` is the door of a live workflow: each call is a numbered step whose answer comes from the journal if it is
recorded, and is recorded if it is not. Whoever calls from outside of a workflow comes in by `entry.py`, and starts one.

Checklist: a new kind of step needs a name in `StepKind`, a method here, and a name in the view `readable_checkpoints`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID, uuid4

from operon.authorization import judge, refuse
from operon.codec import Codec
from operon.contexts import Caller, InvokingContext, TransactionContext, as_seconds
from operon.database.mail import NO_USER
from operon.database.uuid7 import child_uuid
from operon.errors import DatabaseUnavailable, Evicted, InvocationError, NotAuthorizedError
from operon.failures import decode_error, encode_error
from operon.handles import WorkflowHandle
from operon.operations import Communicator, Operation, Transaction, Workflow
from operon.runtime import messages, statements
from operon.runtime.communicators import Attempts
from operon.runtime.journal import Journal, Step, StepKind, clock
from operon.runtime.messages import Messages
from operon.runtime.results import Owned
from operon.runtime.statements import Statement
from operon.runtime.transactions import Failed, Work
from operon.status import WorkflowStatus
from operon.telemetry.hidden import hide
from operon.topics import EventKey, Key, Received, Topic, codec_for, event_name, key_text, name_of

if TYPE_CHECKING:
    from operon.runtime.client import TransactionClient
    from operon.runtime.incarnation import Incarnation
    from operon.runtime.workflow_actor import WorkflowActor

T = TypeVar("T")
Decode = Callable[[bytes], Any]

NOW: Codec[datetime] = Codec(datetime, "now()")
UUID4: Codec[UUID] = Codec(UUID, "uuid4()")
RANDOM: Codec[float] = Codec(float, "random()")
STATUS: Codec[WorkflowStatus | None] = Codec(WorkflowStatus | None, "get_status()")
RESULT: Codec[tuple[str, str]] = Codec(tuple[str, str], "the result of another workflow")
CHILD: Codec[UUID] = Codec(UUID, "the UUID of a child")
CONTROL: Codec[bool] = Codec(bool, "cancel() or resume()")
SLEEP: Codec[float] = Codec(float, "sleep()")


class StepInvoker:
    """The door of one live workflow."""

    __slots__ = ("_actor", "_incarnation", "_journal", "_messages", "_telemetry")

    def __init__(self, incarnation: Incarnation, actor: WorkflowActor, journal: Journal) -> None:
        self._incarnation = incarnation
        self._telemetry = incarnation.telemetry
        self._actor = actor
        self._journal = journal
        self._messages = Messages(incarnation, actor, journal)

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
                return self._answer(step, self._child_handle, self._child, called, caller, ctx, args, kwargs)
            case _:
                raise TypeError(f"{operation!r} is not an operation")

    async def _answer(
        self, step: Step, decode: Decode, run: Callable[..., Coroutine[Any, Any, Any]], *arguments: Any
    ) -> Any:
        """Replay or run: a recorded step is answered by its record, any other runs. Overlapping ones answer in turn."""
        journal = self._journal
        try:
            if (recorded := step.recorded) is not None:
                if journal.overlapping:
                    await journal.turn(step)
                return answer(recorded.output, recorded.error, decode)
            try:
                value = await (self._told(step, run(step, *arguments)) if self._telemetry.on else run(step, *arguments))
            except Exception:
                if journal.overlapping:
                    await journal.turn(step)
                raise
            if journal.overlapping:
                await journal.turn(step)
            return value
        finally:
            self._delivered(step)

    def _told(self, step: Step, run: Coroutine[Any, Any, Any]) -> Coroutine[Any, Any, Any]:
        return self._telemetry.step(step.kind.name.lower(), step.name, self._actor.workflow_uuid, step.number, run)

    def _delivered(self, step: Step) -> None:
        if self._journal.halted is not None:  # it was not answered, and nothing follows from it
            return
        self._journal.delivered(step)
        hook = self._incarnation.on_checkpoint
        if hook is not None and step.recorded is None and hook():
            raise self._journal.evict(Evicted("crashed, for a test"))

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
            actor.rest,
        )
        started = clock()
        incarnation.effects += 1
        try:
            call = attempts.run(args, kwargs)
            returned = await (actor.interruptibly(call) if operation.cancellable else call)
            output, value = operation.signature.result.settle(returned)
        except MemoryError as error:  # says nothing of the call: a crash, and no answer
            raise journal.evict(Evicted("out of memory")) from error
        except Exception as error:
            stored = encode_error(error)
            journal.record(step, StepKind.COMMUNICATOR, operation.name, None, started, stored, attempts.made)
            raise as_replayed(stored) from error
        finally:
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

    async def _transact(self, step: Step, work: Work) -> Any:
        kind = StepKind(work.kind)
        try:
            value = await self._incarnation.transactions.run(work)
        except Failed as failed:
            if isinstance(failed.error, MemoryError):
                raise self._journal.evict(Evicted("out of memory")) from failed.error
            self._journal.record(step, kind, work.name, None, work.started, failed.stored)
            raise as_replayed(failed.stored) from failed.error
        if work.read_only:
            self._journal.record(step, kind, work.name, work.output, work.started)
        return value

    async def _child(
        self,
        step: Step,
        operation: Workflow[..., Any],
        caller: Caller,
        ctx: InvokingContext,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> WorkflowHandle[Any]:
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
        journal.record(step, StepKind.CHILD, operation.name, CHILD.encode(uuid), started)
        return WorkflowHandle(RecordedResults(self), uuid)

    def _child_handle(self, stored: bytes) -> WorkflowHandle[Any]:
        return WorkflowHandle(RecordedResults(self), CHILD.decode(stored))

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

    # ------------------------------------------------------------------ messages, events and time

    def send(
        self,
        ctx: InvokingContext,
        destination: UUID,
        message: Any,
        topic: Topic[Any] | str | None,
        key: Key | None,
        ignore_finished: bool,
        owned: bool,
    ) -> Coroutine[Any, Any, None]:
        """Sends a message, exactly once."""
        name = name_of(topic)
        body = codec_for(topic).encode(message)
        key_or_none = None if key is None else key_text(key)
        step = self._journal.call(StepKind.SEND, name or "")
        decode = messages.replayed(destination)
        owner = self._owner if owned else None
        return self._answer(
            step, decode, self._messages.send, destination, name, body, key_or_none, ignore_finished, owner
        )

    def recv(self, topic: Topic[Any] | str | None, timeout: float | None, required: bool) -> Coroutine[Any, Any, Any]:
        """The next message under a topic."""
        name = name_of(topic)
        timeout = as_seconds(timeout)
        step = self._journal.call(StepKind.RECV, name or "")
        decode = or_nothing(codec_for(topic).decode)
        return self._answer(step, decode, self._receive, (name,), name or "", timeout, required, decode)

    def recv_any(
        self, topics: Sequence[Topic[Any] | str], timeout: float | None, required: bool
    ) -> Coroutine[Any, Any, Any]:
        """The next message under any of these topics."""
        by_name = {name_of(topic): topic for topic in topics}
        if len(by_name) < 2:
            raise InvocationError("recv_any takes two topics or more", hint="for one there is recv(topic)")
        timeout = as_seconds(timeout)
        name = ", ".join(str(each) for each in by_name)
        step = self._journal.call(StepKind.RECV, name)

        @or_nothing
        def decode(stored: bytes) -> Received[Any]:
            which, body = messages.read_any(stored)
            topic = by_name[which]
            return Received(topic, codec_for(topic).decode(body))

        return self._answer(step, decode, self._receive, tuple(by_name), name, timeout, required, decode)

    async def _receive(
        self, step: Step, topics: messages.Topics, name: str, timeout: float | None, required: bool, decode: Decode
    ) -> Any:
        return answer(*await self._messages.receive(step, topics, name, timeout, required), decode)

    def set_event(self, key: EventKey[Any] | str, value: Any, replace: bool) -> Coroutine[Any, Any, None]:
        """Publishes a value under a key."""
        name = event_name(key)
        body = codec_for(key).encode(value)
        step = self._journal.call(StepKind.SET_EVENT, name)
        duplicate = name in self._journal.events and not replace
        self._journal.events.add(name)
        return self._answer(step, nothing, self._set_event, name, body, duplicate)

    async def _set_event(self, step: Step, name: str, body: bytes, duplicate: bool) -> None:
        answer(*self._messages.set_event(step, name, body, duplicate), nothing)

    def get_event(
        self,
        ctx: InvokingContext,
        workflow_uuid: UUID,
        key: EventKey[Any] | str,
        timeout: float | None,
        owned: bool,
    ) -> Coroutine[Any, Any, Any]:
        """An event of another workflow, as a step."""
        name = event_name(key)
        timeout = as_seconds(timeout)
        step = self._journal.call(StepKind.GET_EVENT, name)
        decode = or_nothing(codec_for(key).decode)
        owner = self._owner if owned else None
        return self._answer(step, decode, self._get_event, workflow_uuid, name, timeout, owner, decode)

    async def _get_event(
        self, step: Step, workflow_uuid: UUID, name: str, timeout: float | None, owner: str | None, decode: Decode
    ) -> Any:
        journal = self._journal
        if journal.pending:  # a child that was just started has to be there before it is asked for
            await journal.durable()
        started = clock()
        try:
            output = await self._messages.get_event(step, workflow_uuid, name, timeout, owner)
        except Exception as error:
            stored = encode_error(error)
            journal.record(step, StepKind.GET_EVENT, name, None, started, stored)
            raise as_replayed(stored) from error
        journal.record(step, StepKind.GET_EVENT, name, output, started)
        return decode(output)

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

    def _recorded_value(self, kind: StepKind, codec: Codec[T], make: Callable[[], T]) -> T:
        step = self._journal.call(kind, kind.name.lower())
        try:
            if step.recorded is not None:
                replayed: T = answer(step.recorded.output, step.recorded.error, codec.decode)
                return replayed
            value = make()
            self._journal.record(step, kind, kind.name.lower(), codec.encode(value), clock())
            return value
        finally:
            self._delivered(step)

    # ------------------------------------------------------------------ other workflows

    def retrieve(self, ctx: InvokingContext, workflow_uuid: UUID, *, owned: bool = False) -> WorkflowHandle[Any]:
        """A handle whose answers are recorded."""
        return WorkflowHandle(RecordedResults(self, owned), workflow_uuid)

    def result_of(self, workflow_uuid: UUID, timeout: float | None, owned: bool) -> Coroutine[Any, Any, Any]:
        """The result of another workflow, as a step."""
        timeout = as_seconds(timeout)
        step = self._journal.call(StepKind.RESULT, "get_result")
        return self._answer(step, self._stored_result, self._result, workflow_uuid, timeout, owned)

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

    @property
    def _owner(self) -> str:
        return self._actor.caller.user or NO_USER

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
        return self._answer(step, CONTROL.decode, self._control, kind, workflow_uuid, owned)

    async def _control(self, step: Step, kind: StepKind, workflow_uuid: UUID, owned: bool) -> bool:
        journal = self._journal
        if journal.pending:
            await journal.durable()
        results = self._owned() if owned else self._incarnation.results
        started = clock()
        try:
            ask = results.cancel if kind is StepKind.CANCEL else results.resume
            done = await patiently(lambda: ask(workflow_uuid))
        except Exception as error:
            stored = encode_error(error)
            journal.record(step, kind, kind.name.lower(), None, started, stored)
            raise as_replayed(stored) from error
        journal.record(step, kind, kind.name.lower(), CONTROL.encode(done), started)
        return done


class RecordedResults:
    """What a handle asks inside a workflow: each answer is a step."""

    __slots__ = ("_invoker", "_owned")

    def __init__(self, invoker: StepInvoker, owned: bool = False) -> None:
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


def nothing(stored: bytes) -> None:
    """The answer of a step that has none."""


def or_nothing(decode: Decode) -> Decode:
    """Reads a value, or that none came in time."""
    return lambda stored: None if stored == messages.NOTHING else decode(stored)


def earliest(*deadlines: float | None) -> float | None:
    return min((deadline for deadline in deadlines if deadline is not None), default=None)


async def patiently(ask: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """In a workflow a lost database is weather: it waits."""
    while True:
        try:
            return await ask()
        except DatabaseUnavailable:
            continue


def as_replayed(stored: bytes) -> Exception:
    """An error as a replay will give it: a workflow that looks at one must see the same in every life."""
    return decode_error(stored)


def answer(output: bytes | None, error: bytes | None, decode: Decode) -> Any:
    """What a checkpoint says: its value, or its error raised."""
    if error is not None:
        raise decode_error(error)
    return decode(output if output is not None else b"null")
