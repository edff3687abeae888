"""The pauses between the attempts of one communicator. A long one is recorded, and the workflow may leave memory.

The rule: what is recorded is how the attempts failed and when the next one is due, so the next life of the workflow
goes on counting and waits for the rest of the pause. That is worth a commit where the pause is longer than a workflow
stays in memory; a life that ends in a shorter one takes its attempts along.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import TYPE_CHECKING

import msgspec

from operon.database import checkpoints
from operon.errors import Evicted, Fenced
from operon.failures import COUNT_MAX, decode_error, encode_error
from operon.masking import masked_logger
from operon.runtime.journal import Step, StepKind, announcement
from operon.runtime.waits import Wait, WaitKind

if TYPE_CHECKING:
    from operon.runtime.incarnation import Incarnation
    from operon.runtime.journal import Journal
    from operon.runtime.workflow_actor import WorkflowActor

logger = masked_logger("operon.workflows")


class Attempted(msgspec.Struct, frozen=True):
    """What became of the attempts of a call so far, as it is recorded."""

    made: int
    due: float  # when the next one is made, in the database's clock
    errors: tuple[msgspec.Raw, ...]  # the last of them

    def failures(self) -> list[Exception]:
        """The errors, oldest first."""
        return [decode_error(bytes(error)) for error in self.errors]


_read = msgspec.json.Decoder(Attempted).decode
_write = msgspec.json.Encoder().encode


class Backoff:
    """Pauses between the attempts of one call."""

    __slots__ = ("_actor", "_incarnation", "_journal", "_step")

    def __init__(self, incarnation: Incarnation, actor: WorkflowActor, journal: Journal, step: Step) -> None:
        self._incarnation = incarnation
        self._actor = actor
        self._journal = journal
        self._step = step

    def recalled(self) -> Attempted | None:
        """What earlier lives of the workflow have attempted, if they recorded it."""
        announced = self._step.announced
        return None if announced is None or not announced.output else _read(announced.output)

    def left(self, attempted: Attempted) -> float:
        """How many seconds there are until the next attempt is due."""
        return max(0.0, attempted.due - self._incarnation.clock.now())

    async def pause(self, seconds: float, made: int, most: int, errors: list[Exception]) -> None:
        """Waits before the next attempt: `made` of at most `most` were. Raises StopActor if it is taken down."""
        with self._no_effect():
            if self._incarnation.parker.is_long(seconds):
                due = self._incarnation.clock.now() + seconds
                attempted = Attempted(made, due, stored(errors[-COUNT_MAX:]))
                if await self._recorded(attempted):
                    await self._until(attempted, most, errors)
                    return
            await self._actor.rest(seconds)
            await self._go_on()

    async def rest_of(self, attempted: Attempted, most: int, errors: list[Exception]) -> None:
        """Waits for the rest of a pause that began in an earlier life."""
        with self._no_effect():
            await self._until(attempted, most, errors)

    @contextlib.contextmanager
    def _no_effect(self) -> Generator[None]:
        """Meanwhile nothing is called, and a drain does not wait for it."""
        self._incarnation.effect_ended()
        try:
            yield
        finally:
            self._incarnation.effects += 1

    async def _until(self, attempted: Attempted, most: int, errors: list[Exception]) -> None:
        failed = f"{attempted.made} of {most} failed, the last with {type(errors[-1]).__name__}"
        wait = Wait(WaitKind.TIME, f"its next attempt of {self._step.name}: {failed}", attempted.due)
        while self._incarnation.clock.now() < attempted.due:
            await self._actor.pause(wait)
        await self._go_on()

    async def _go_on(self) -> None:
        if self._incarnation.draining:
            raise self._journal.evict(Evicted("the executor stops"))
        if self._journal.pending:  # it was about to leave memory
            await self._journal.durable()

    async def _recorded(self, attempted: Attempted) -> bool:
        """Whether it could be recorded; if not, the pause is one in memory. Raises Fenced."""
        incarnation, actor, step = self._incarnation, self._actor, self._step
        try:
            kept = await incarnation.look_ups.ask(
                lambda connection: checkpoints.keep_attempts(
                    connection,
                    incarnation.number,
                    actor.workflow_uuid,
                    actor.epoch,
                    announcement(step.number),
                    StepKind.CALL,
                    step.name,
                    _write(attempted),
                )
            )
        except Exception:
            logger.exception("the attempts of %s could not be recorded; their pause is spent in memory", step.name)
            return False
        if not kept:
            raise Fenced(f"workflow {actor.workflow_uuid} has another owner")
        return True


def stored(errors: list[Exception]) -> tuple[msgspec.Raw, ...]:
    """Errors as they are recorded."""
    return tuple(msgspec.Raw(encode_error(error)) for error in errors)
