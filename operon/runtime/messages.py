"""The steps that wait, and those that end a wait: send, recv, set_event, get_event, sleep, and results of others.

Each runs behind the door in `invoke`, which has already decided that it is not a replay. A wait looks, and if what it
wants is not there, pauses until somebody rings; then it looks again. Its deadline is recorded when it begins to wait,
so that a restart waits for the rest of the time only; its answer, also "nothing came", is recorded like any other.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec

from operon.database.mail import Delivery, Letter
from operon.errors import (
    DuplicateEventError,
    MailboxFull,
    NonExistentWorkflowError,
    OperonInternalError,
    RecvTimeout,
    WorkflowFinishedError,
)
from operon.failures import decode_error, encode_error
from operon.runtime.journal import Journal, Step, StepKind, clock
from operon.runtime.outcome import Ended
from operon.runtime.results import FINISHED_FOR_GOOD, result_timeout
from operon.runtime.waits import Wait, WaitKind

if TYPE_CHECKING:
    from operon.runtime.incarnation import Incarnation
    from operon.runtime.workflow_actor import WorkflowActor

Topics = tuple[str | None, ...]
Stored = tuple[bytes | None, bytes | None]  # output and error, as a checkpoint holds them

NOTHING = b""  # nothing came in time. No JSON, so it cannot be taken for the message `null`, which may be a wrong one.

_read_any = msgspec.json.Decoder(tuple[str | None, msgspec.Raw]).decode
_write = msgspec.json.encode


class Messages:
    """What one live workflow says to others, and hears from them."""

    __slots__ = ("_actor", "_incarnation", "_journal")

    def __init__(self, incarnation: Incarnation, actor: WorkflowActor, journal: Journal) -> None:
        self._incarnation = incarnation
        self._actor = actor
        self._journal = journal

    # ------------------------------------------------------------------ messages

    async def send(
        self,
        step: Step,
        destination: UUID,
        topic: str | None,
        body: bytes,
        key: str | None,
        keep: bool,
        owner: str | None,
    ) -> None:
        """Sends a message: it, and the record of what became of it, are in one batch."""
        journal = self._journal
        letter = Letter(
            self._actor.workflow_uuid,
            step.number,
            destination,
            topic,
            body,
            key,
            keep,
            clock(),
            step.seen,
            self._incarnation.telemetry.outgoing(self._actor.caller.traceparent, destination),
            owner,
        )
        journal.going_on()
        journal.wait_for(self._incarnation.committer.letter(letter))
        await journal.durable()
        delivered(letter)

    async def receive(
        self,
        step: Step,
        topics: Topics,
        name: str,
        timeout: float | None,
        required: bool,
        decode: Callable[[bytes], Any],
    ) -> Any:
        """The oldest message of these topics, or nothing in time, read by `decode`. Raises RecvTimeout if required."""
        journal, mailbox = self._journal, self._actor.open_mailbox()
        started = clock()
        wait: Wait | None = None
        deadline = deadline_of(step)
        last_look = timeout == 0
        while True:
            if last_look or not mailbox.knows(topics):
                await self._incarnation.mail_reader.look(mailbox, topics)
            taken = mailbox.take(topics)
            if taken is not None:
                topic, message = taken
                self._incarnation.telemetry.received(message.traceparent, mailbox.depth(topic) + 1)
                output = message.body if len(topics) == 1 else write_any(topic, message.body)
                journal.record(step, StepKind.RECV, name, output, started)
                mailbox.taken(message.sequence, journal.received(message.sequence))
                return decode(output)
            if not mailbox.knows(topics):
                continue  # it rang during the look, which may have been too early for what it rang for
            if last_look:
                break
            if deadline is None and timeout is not None:
                deadline = self._deadline(step, name, timeout)
            wait = wait or Wait(WaitKind.MESSAGE, f"recv {name}".rstrip(), None, topics=topics)
            wait.deadline = deadline
            await self._actor.pause(wait)
            last_look = deadline is not None and self._incarnation.clock.now() >= deadline
        if required:
            error = encode_error(
                RecvTimeout(f"no message came under {name!r} in {timeout} s", hint="it may still come; recv again")
            )
            journal.record(step, StepKind.RECV, name, None, started, error)
            raise decode_error(error)  # as a replay will
        journal.record(step, StepKind.RECV, name, NOTHING, started)
        return decode(NOTHING)

    # ------------------------------------------------------------------ events

    def set_event(self, step: Step, key: str, value: bytes, duplicate: bool) -> Stored:
        """Publishes an event; an error if it was set before."""
        journal, incarnation = self._journal, self._incarnation
        if duplicate:
            error = encode_error(
                DuplicateEventError(
                    f"{journal.workflow_name!r} {journal.workflow_uuid} has set the event {key!r} before",
                    hint="events do not change; say `replace=True` if this one shall",
                )
            )
            journal.record(step, StepKind.SET_EVENT, key, None, clock(), error)
            return None, error
        journal.record(step, StepKind.SET_EVENT, key, NOTHING, clock())
        incarnation.tell(journal.publish(step, key, value), self._actor.workflow_uuid)
        return NOTHING, None

    async def get_event(self, step: Step, target: UUID, key: str, timeout: float | None, owner: str | None) -> bytes:
        """The stored answer: an event of another workflow, or nothing in time."""
        results = self._incarnation.results
        wait = Wait(WaitKind.EVENT, f"event {key} of {target}", None, target=target, key=key)

        async def look() -> bytes | None:
            if wait.value is not None:
                return wait.value
            row = await results.event_of(target, key, owner, None)
            return NOTHING if row.value is None and row.status in FINISHED_FOR_GOOD else row.value

        return await self._watching(step, key, wait, target, timeout, look) or NOTHING

    # ------------------------------------------------------------------ results and time

    async def result(self, step: Step, target: UUID, timeout: float | None) -> Ended:
        """How another workflow ended. Raises ResultTimeout, NonExistentWorkflowError."""
        results = self._incarnation.results
        wait = Wait(WaitKind.RESULT, f"the result of {target}", None, target=target)
        ended: Ended | None = await self._watching(
            step, "get_result", wait, target, timeout, lambda: results.end_of(target, patience=None)
        )
        if ended is None:
            raise result_timeout(target, timeout)
        return ended

    async def sleep(self, _step: Step, deadline: float) -> None:
        """Waits until the database's clock has passed a time."""
        wait = Wait(WaitKind.TIME, "sleep", deadline)
        while self._incarnation.clock.now() < deadline:
            await self._actor.pause(wait)

    async def _watching(
        self,
        step: Step,
        name: str,
        wait: Wait,
        target: UUID,
        timeout: float | None,
        look: Callable[[], Awaitable[Any]],
    ) -> Any:
        """Looks whenever something becomes of another workflow, until there is an answer; None: not in time."""
        results, now = self._incarnation.results, self._incarnation.clock.now
        wait.deadline = deadline_of(step)
        results.watch(target, wait)
        try:
            while True:
                late = timeout == 0 or (wait.deadline is not None and now() >= wait.deadline)
                found = await look()
                if found is not None or late:
                    return found
                if wait.deadline is None and timeout is not None:
                    wait.deadline = self._deadline(step, name, timeout)
                await self._actor.pause(wait)
        finally:
            results.unwatch(target, wait)

    def _deadline(self, step: Step, name: str, timeout: float) -> float:
        """Until when a step waits that begins to wait now; recorded."""
        deadline = self._incarnation.clock.now() + timeout
        self._journal.announce_wait(step, name, deadline)
        return deadline


def deadline_of(step: Step) -> float | None:
    """Until when an earlier life of the workflow was going to wait."""
    if step.announced is None or step.announced.kind != StepKind.WAIT:
        return None
    return float(step.announced.output or b"0")


def write_any(topic: str | None, body: bytes) -> bytes:
    """The stored form of a message with its topic."""
    return b"[" + _write(topic) + b"," + body + b"]"


def read_any(stored: bytes) -> tuple[str | None, bytes]:
    """A message with its topic, out of its stored form."""
    topic, body = _read_any(stored)
    return topic, bytes(body)


def delivered(letter: Letter) -> None:
    """Raises what the sender of a message has to be told."""
    match letter.delivery:
        case None:
            raise OperonInternalError("a message was durable without an answer")
        case Delivery.UNKNOWN:
            raise NonExistentWorkflowError(
                f"there is no workflow {letter.destination} to send to",
                hint="was it started with this UUID, in this database?",
            )
        case Delivery.FINISHED:
            raise WorkflowFinishedError(
                f"workflow {letter.destination} has finished; the message is a dead letter",
                hint="say `ignore_finished=True` if that does not matter",
            )
        case Delivery.FULL:
            raise MailboxFull(
                f"the mailbox of workflow {letter.destination} is full",
                hint="try again when it has received some, or raise mailbox_limit",
            )
        case _:
            return


OUTCOMES = {
    b'"unknown"': Delivery.UNKNOWN,
    b'"finished"': Delivery.FINISHED,
    b'"full"': Delivery.FULL,
}


def replayed(destination: UUID) -> Callable[[bytes], None]:
    """Reads what became of a message out of its checkpoint."""

    def decode(stored: bytes) -> None:
        letter = Letter(destination, None, destination, None, b"", None, False, 0.0, None, None)
        letter.delivery = OUTCOMES.get(stored, Delivery.SENT)
        delivered(letter)

    return decode
