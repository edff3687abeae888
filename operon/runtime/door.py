"""What all kinds of steps have in common: a call is numbered, and its answer is a record, or is recorded.

The door of a live workflow is made of the parts that stand on this one: `correspondence`, `relations` and `invoke`.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from operon.codec import Codec
from operon.database.mail import NO_USER
from operon.errors import Evicted
from operon.failures import decode_error
from operon.runtime.children import Children
from operon.runtime.journal import Journal, Step, StepKind, clock
from operon.runtime.messages import Messages
from operon.runtime.transactions import Failed, Work

if TYPE_CHECKING:
    from operon.runtime.incarnation import Incarnation
    from operon.runtime.workflow_actor import WorkflowActor

T = TypeVar("T")
Decode = Callable[[bytes], Any]


class Door:
    """The journal of one live workflow, and how a step is answered from it or by it."""

    __slots__ = ("_actor", "_children", "_incarnation", "_journal", "_messages", "_telemetry")

    def __init__(self, incarnation: Incarnation, actor: WorkflowActor, journal: Journal) -> None:
        self._incarnation = incarnation
        self._telemetry = incarnation.telemetry
        self._actor = actor
        self._journal = journal
        self._messages = Messages(incarnation, actor, journal)
        self._children = Children()

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

    @property
    def _owner(self) -> str:
        return self._actor.caller.user or NO_USER

    def _told(self, step: Step, run: Coroutine[Any, Any, Any]) -> Coroutine[Any, Any, Any]:
        return self._telemetry.step(step.kind.name.lower(), step.name, self._actor.workflow_uuid, step.number, run)

    def _delivered(self, step: Step) -> None:
        if self._journal.halted is not None:  # it was not answered, and nothing follows from it
            return
        self._journal.delivered(step)
        hook = self._incarnation.on_checkpoint
        if hook is not None and step.recorded is None and hook():
            raise self._journal.evict(Evicted("crashed, for a test"))

    async def _transact(self, step: Step, work: Work) -> Any:
        kind = StepKind(work.kind)
        self._actor.entered(work)
        try:
            value = await self._incarnation.transactions.run(work)
        except Failed as failed:
            if isinstance(failed.error, MemoryError):
                raise self._journal.evict(Evicted("out of memory")) from failed.error
            self._journal.record(step, kind, work.name, None, work.started, failed.stored)
            raise as_replayed(failed.stored) from failed.error
        finally:
            self._actor.left(work)
        if work.read_only:
            self._journal.record(step, kind, work.name, work.output, work.started)
        return value

    def _recorded_value(self, kind: StepKind, codec: Codec[T], make: Callable[[], T], name: str | None = None) -> T:
        name = name or kind.name.lower()
        step = self._journal.call(kind, name)
        try:
            if step.recorded is not None:
                replayed: T = answer(step.recorded.output, step.recorded.error, codec.decode)
                return replayed
            value = make()
            self._journal.record(step, kind, name, codec.encode(value), clock())
            return value
        finally:
            self._delivered(step)


def as_replayed(stored: bytes) -> Exception:
    """An error as a replay will give it: a workflow that looks at one must see the same in every life."""
    return decode_error(stored)


def answer(output: bytes | None, error: bytes | None, decode: Decode) -> Any:
    """What a checkpoint says: its value, or its error raised."""
    if error is not None:
        raise decode_error(error)
    return decode(output if output is not None else b"null")
