"""What becomes of a life that did not end by itself: it crashed, met a message it cannot take, or lost its supervisor.

The rule: until that is recorded, the row of the workflow says what it said before, so no next life of it begins here.
If it cannot be recorded, nobody knows what stands, and the whole incarnation begins again.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable, Collection, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from operon.database import workflows
from operon.database.connection import Connection, is_conflict
from operon.database.notifier import EVERYBODY
from operon.errors import OperonError, WorkflowCancelledError, WorkflowDeadError
from operon.explain.words import some
from operon.failures import encode_error
from operon.masking import masked_logger
from operon.runtime.events import Kind
from operon.runtime.outcome import Ended
from operon.runtime.poison import set_aside
from operon.runtime.waits import WaitKind
from operon.status import Status

if TYPE_CHECKING:
    from operon.database.workflows import Claimed
    from operon.runtime.incarnation import Incarnation
    from operon.runtime.workflow_actor import WorkflowActor

logger = masked_logger("operon.executor")

T = TypeVar("T")

LONGEST_PAUSE = 300.0  # seconds, of a workflow that crashes again and again; the first one is up to a second


class Endings:
    """Lives of one incarnation that ended before their workflows did."""

    def __init__(self, incarnation: Incarnation, crash_budget: int, max_deliveries: int) -> None:
        self._incarnation = incarnation
        self.crash_budget = crash_budget
        self._max_deliveries = max_deliveries
        self.unsettled: set[UUID] = set()  # workflows the end of whose last life is being recorded: no next one yet
        self.pausing: set[UUID] = set()  # workflows that crashed here and are to be run again
        self._recording: set[asyncio.Task[None]] = set()

    @property
    def busy(self) -> bool:
        """Whether anything is being recorded."""
        return bool(self._recording)

    def lives_again(self, actor: WorkflowActor) -> None:
        """One that may have crashed here has a next life."""
        uuid = actor.workflow_uuid
        if uuid in self.pausing:
            self.pausing.discard(uuid)
            name = actor.operation.name
            self._incarnation.record_of(uuid, name, Kind.RESTARTED, f"{name} {uuid} is run again")

    # ------------------------------------------------------------------ lives that go on

    def crashed(self, actor: WorkflowActor, error: BaseException) -> None:
        """An actor crashed: its workflow pauses and is run again, unless its budget is used up."""
        stored = encode_error(error)
        traceback.clear_frames(error.__traceback__)  # what filled the memory is in them
        self._settle((actor.workflow_uuid,), self._crashed(actor, error, stored))

    def set_aside(self, actor: WorkflowActor, step: int, topic: str | None, body: bytes) -> None:
        """Makes a dead letter of a message at which a workflow crashed too often. Its life is over."""
        self._settle((actor.workflow_uuid,), set_aside(self._incarnation, actor, step, topic, body))

    def deliveries(self, of_topic: int | None) -> int:
        """After how many crashes in a row at one message it is set aside, before the workflow itself is given up."""
        return min(of_topic or self._max_deliveries, max(1, self.crash_budget))

    def let_go(self, workflow_uuids: Collection[UUID], names: Iterable[str], *, ring: bool) -> None:
        """Workflows of ours that do not live here are ready for whoever has room. `ring`: that is news to others."""
        if not self._incarnation.ends:
            self._settle(workflow_uuids, self._let_go(workflow_uuids, names, ring=ring))

    # ------------------------------------------------------------------ the last life

    async def die(self, actor: WorkflowActor, error: OperonError) -> None:
        """Stops a workflow for good: it cannot go on with this code. Nothing recorded is lost."""
        name = actor.operation.name
        actor.end(Ended(name, Status.DEAD, None, await self._end_as_dead(actor.workflow_uuid, name, error)))

    async def bury(self, workflow: Claimed) -> None:
        """Stops a workflow for good that its process died of, again and again."""
        blame = "each time its process died, or stood still"
        uuid, name = workflow.workflow_uuid, workflow.name
        await self._end_as_dead(uuid, name, too_often(name, uuid, workflow.crash_count, workflow.crash_step, blame))
        self._incarnation.results.ring(uuid)

    # ------------------------------------------------------------------ recording

    def _settle(self, workflow_uuids: Collection[UUID], recording: Coroutine[Any, Any, None]) -> None:
        self.unsettled.update(workflow_uuids)
        self._recording.add(task := asyncio.get_running_loop().create_task(recording))
        task.add_done_callback(self._recording.discard)

    async def _crashed(self, actor: WorkflowActor, error: BaseException, stored: bytes) -> None:
        incarnation, uuid, name = self._incarnation, actor.workflow_uuid, actor.operation.name
        number, jitter = incarnation.number, incarnation.jitter()
        try:
            await incarnation.committer.drained()  # what was recorded in this life is progress
            crashes = await incarnation.look_ups.ask(
                lambda c: workflows.crashed(c, number, uuid, stored, WaitKind.CRASH, jitter, LONGEST_PAUSE)
            )
            if crashes is None:
                self.unsettled.discard(uuid)
                return
            await incarnation.suspensions.crashed(name, uuid)
            if crashes.in_a_row > self.crash_budget:
                await self.die(actor, too_often(name, uuid, crashes.in_a_row, crashes.step, error))
                self.unsettled.discard(uuid)  # not before: its row says that it is to be run again until it says DEAD
                return
            self.unsettled.discard(uuid)
            self.pausing.add(uuid)
            incarnation.activator.expect(uuid, crashes.wake_at)
            seconds = max(0.0, crashes.wake_at - incarnation.clock.now())
            text = f"{name} {uuid} crashed {some(crashes.in_a_row, 'time')} in a row, and pauses {seconds:.1f} s"
            incarnation.record_of(uuid, name, Kind.BACKED_OFF, text)
        except Exception:
            logger.exception("a crash could not be recorded; this executor starts again")
            incarnation.fence()

    async def _let_go(self, workflow_uuids: Collection[UUID], names: Iterable[str], *, ring: bool) -> None:
        incarnation = self._incarnation
        try:
            await incarnation.committer.drained()
            await self._ask(lambda c: workflows.let_go(c, incarnation.number, workflow_uuids, WaitKind.TIME))
            self.unsettled.difference_update(workflow_uuids)
            for name in names:
                incarnation.crowds.wanted.add(name)
                incarnation.crowds.freed(name)
            if ring:
                await incarnation.look_ups.ask(lambda c: workflows.ring(c, EVERYBODY, "work"))
        except Exception:
            logger.exception("workflows could not be given to others; this executor starts again")
            incarnation.fence()

    async def _end_as_dead(self, workflow_uuid: UUID, name: str, error: OperonError) -> bytes:
        incarnation = self._incarnation
        stored = encode_error(error)
        reason = encode_error(WorkflowCancelledError(f"cancelled, because its parent {workflow_uuid} is dead"))
        waiters = await self._ask(lambda c: workflows.die(c, incarnation.number, workflow_uuid, stored, reason))
        for waiter in waiters:
            incarnation.activator.wake(waiter)
        logger.error("%s", error)
        incarnation.record_of(workflow_uuid, name, Kind.DIED, error.message)
        return stored

    async def _ask(self, question: Callable[[Connection], Coroutine[Any, Any, T]]) -> T:
        """Asks again after a conflict with a flush of another executor: one of the two goes first."""
        while True:
            try:
                return await self._incarnation.look_ups.ask(question)
            except Exception as conflict:
                if not is_conflict(conflict):
                    raise

    def __repr__(self) -> str:
        return f"<Endings: {len(self._recording)} are being recorded, {len(self.pausing)} pause>"


def too_often(name: str, workflow_uuid: UUID, count: int, step: int, error: BaseException | str) -> WorkflowDeadError:
    """What a workflow ends with whose budget is used up."""
    last = error if isinstance(error, str) else f"the last time with {type(error).__name__}: {error}"
    dead = WorkflowDeadError(
        f"{name!r} {workflow_uuid} crashed {count} times in a row before step {step} was recorded, {last}",
        hint="fix the cause, then resume it",
    )
    dead.__cause__ = None if isinstance(error, str) else error
    return dead
