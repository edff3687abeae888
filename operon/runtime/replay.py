"""Replays a finished workflow from its checkpoints, to see whether the same comes out. Nothing runs and nothing is
written: every step is answered by its record, and a step that has none is never answered.

It goes through the same door and the same journal as a recovery, so what a replay finds, a crash would have met. Only
these differ from a recovery: `History` notes what the body asks for and refuses every record, `RecordedSteps` runs no
step, and a sleep ends at once if it ended before the workflow did.

A step without a record is no difference by itself: a branch that lost a race was given up before its answer came. It is
one when the body cannot end without that answer. A cancelled workflow may stop at any step, so of its history only the
steps are compared; a dead one has shown already that its code does not fit.
"""

from __future__ import annotations

import asyncio
import heapq
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from operon.catalog import Catalog
from operon.database.checkpoints import Checkpoint
from operon.database.workflows import Finished
from operon.errors import Evicted, StopActor
from operon.failures import decode_record
from operon.runtime.callers import caller_of
from operon.runtime.door import Decode
from operon.runtime.invoke import StepInvoker
from operon.runtime.journal import Journal, Step, StepKind
from operon.runtime.messages import Messages
from operon.runtime.workflow_actor import WorkflowActor
from operon.status import Status

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from operon.runtime.incarnation import Incarnation

# A body that asked for a step without a record, and then for nothing else for so long, waits for that step.
STILL_SECONDS = 1.0
LOOK_SECONDS = 0.02
# A body that asked for nothing new for so long, whatever it does. Longer than `Interleaving` waits for a missing call.
PATIENCE_SECONDS = 40.0

ADDRESS = re.compile(r"\b0x[0-9a-f]{6,}\b")
SHOWN_CHARACTERS = 200
NOTHING = "-"


@dataclass(frozen=True, slots=True)
class Difference:
    """What a replay did otherwise than the workflow had."""

    workflow_uuid: UUID
    name: str
    what: str
    steps: Sequence[tuple[int, str, str]]  # number, as it was recorded, as it was asked for now
    outcomes: tuple[str, str]  # as it was recorded, as it came out now

    def __str__(self) -> str:
        rows = [("step", "recorded", "replayed"), *((str(number), *pair) for number, *pair in self.steps)]
        rows.append(("end", *self.outcomes))
        wide = max(len(row[1]) for row in rows)
        lines = (
            f"{'  ' if at == 0 or row[1] == row[2] else '> '}{row[0]:>4}  {row[1]:<{wide}}  {row[2]}"
            for at, row in enumerate(rows)
        )
        return "\n".join((f"{self.name!r} {self.workflow_uuid}: {self.what}", *lines))


async def replay(
    incarnation: Incarnation, workflow: Finished, recorded: list[Checkpoint], ended_at: float
) -> Difference | None:
    """What comes out differently when a finished workflow is replayed; None if nothing does.

    ended_at: when it ended, by the clock that sleeps are measured by.
    """
    row = workflow.row
    operation = incarnation.catalog.operations[row.name]
    history = History(incarnation.committer, row.workflow_uuid, row.name, recorded, None)
    actor = Replayed(incarnation, operation, row.workflow_uuid, caller_of(row), row.inputs)
    actor.ended_at = ended_at
    body = asyncio.get_running_loop().create_task(actor.outcome(history))
    try:
        came_out = await outcome_of(body, history, cancelled=cancelled(workflow))
    finally:
        history.close()
    what = verdict(workflow, history, came_out, incarnation.catalog)
    if what is None:
        return None
    return Difference(
        row.workflow_uuid,
        row.name,
        what,
        history.compared(),
        (
            shown(incarnation.catalog, row.name, workflow.status, workflow.output, workflow.error),
            NOTHING if came_out is None else shown(incarnation.catalog, row.name, *came_out),
        ),
    )


Outcome = tuple[int, bytes | None, bytes | None]


class History(Journal):
    """The journal of a replay: it notes what is asked for, and lets nothing be recorded."""

    __slots__ = ("asked", "unanswered")

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.asked: dict[int, str] = {}
        self.unanswered: list[asyncio.Future[None]] = []

    def call(self, kind: StepKind, name: str) -> Step:
        """Numbers a step, and notes it."""
        if self.halted is None and self.stopped is None and not self.closed:
            self.asked[self._next] = f"{kind.name.lower()} {name!r}"
        return super().call(kind, name)

    def going_on(self) -> None:
        """Something is about to be recorded, which in a replay means that it is not recorded yet."""
        raise self.evict(Evicted("a replay records nothing"))

    def was_over(self, step: Step) -> bool:
        """Whether a step was answered before the next one was called. Then that may not be called first now."""
        following = self._recorded.get(step.number + 1)
        return following is not None and following.seen is None

    async def no_answer(self) -> None:
        """Waits for ever: for as long as the replay goes on."""
        self.unanswered.append(never := asyncio.get_running_loop().create_future())
        await never

    def close(self) -> None:
        """The replay is over."""
        super().close()
        for never in self.unanswered:
            never.cancel()

    @property
    def progress(self) -> tuple[int, int]:
        """Changes whenever a step is called or answered."""
        return self._next, self._outstanding

    @property
    def first_missing(self) -> int | None:
        """The first step that was asked for and has no record."""
        return min((number for number in self.asked if number not in self._recorded), default=None)

    @property
    def first_left(self) -> int | None:
        """The first step that is recorded and was not asked for."""
        return min((number for number in self._recorded if number >= self._next), default=None)

    def compared(self) -> list[tuple[int, str, str]]:
        """Every step, as it was recorded and as it was asked for."""
        was = {number: f"{StepKind(step.kind).name.lower()} {step.name!r}" for number, step in self._recorded.items()}
        numbers = sorted({*was, *self.asked})
        return [(number, was.get(number, NOTHING), self.asked.get(number, NOTHING)) for number in numbers]


class Replayed(WorkflowActor):
    """The actor of a replay: it only runs the body."""

    __slots__ = ("ended_at",)
    ended_at: float

    def door(self, journal: Journal) -> StepInvoker:
        """A door behind which nothing runs."""
        if not isinstance(journal, History):
            raise TypeError(f"{journal!r} is not the journal of a replay")
        return RecordedSteps(self._incarnation, self, journal)


class RecordedSteps(StepInvoker):
    """The door of a replay: answers from the records, and runs nothing."""

    __slots__ = ("_history",)

    def __init__(self, incarnation: Incarnation, actor: Replayed, history: History) -> None:
        super().__init__(incarnation, actor, history)
        self._history = history
        self._messages = PastSleeps(incarnation, actor, history)

    async def _answer(
        self, step: Step, decode: Decode, run: Callable[..., Coroutine[Any, Any, Any]], *arguments: Any
    ) -> Any:
        if step.recorded is not None:
            return await super()._answer(step, decode, run, *arguments)
        try:
            await self._history.no_answer()
        finally:  # its caller gave it up, as it may have done the first time
            if self._history.halted is None:
                self._history.delivered(step)


class PastSleeps(Messages):
    """Sleeps of a workflow that has ended: those that had ended by then are over, the others never end.

    Of sleeps that go on side by side the one that ended first ends first again.
    """

    __slots__ = ("_due", "_ended_at", "_history")

    def __init__(self, incarnation: Incarnation, actor: Replayed, history: History) -> None:
        super().__init__(incarnation, actor, history)
        self._due: list[tuple[float, int, asyncio.Future[None]]] = []
        self._ended_at = actor.ended_at
        self._history = history

    async def sleep(self, step: Step, deadline: float) -> None:
        """Waits for a moment, in which others may begin to sleep that ended earlier."""
        if deadline > self._ended_at:
            await self._history.no_answer()
        if self._history.was_over(step):
            return
        loop = asyncio.get_running_loop()
        over: asyncio.Future[None] = loop.create_future()
        heapq.heappush(self._due, (deadline, len(self._history.asked), over))
        loop.call_later(LOOK_SECONDS / 4, self._next_is_over)
        await over

    def _next_is_over(self) -> None:
        over = heapq.heappop(self._due)[2]
        if not over.done():
            over.set_result(None)


async def outcome_of(body: asyncio.Task[Outcome], history: History, *, cancelled: bool) -> Outcome | None:
    """How the body ended; None if it cannot end with what is recorded. `cancelled`: it need not."""
    still = 0.0
    try:
        while not body.done():
            before = history.progress
            await asyncio.wait({body}, timeout=LOOK_SECONDS)
            still = still + LOOK_SECONDS if history.progress == before else 0.0
            as_far_as_it_came = cancelled and history.first_left is None
            if history.unanswered and (as_far_as_it_came or still >= STILL_SECONDS):
                break
            if still >= PATIENCE_SECONDS:
                break
        if body.done():
            return body.result()
    except StopActor:
        return None
    except BaseExceptionGroup as group:
        if group.subgroup(StopActor) is None:
            raise
        return None
    finally:
        if not body.done():
            history.evict(Evicted("the replay has ended"))  # so that it calls nothing else on its way out
            body.cancel()
            await asyncio.wait({body}, timeout=STILL_SECONDS)
    return None


def verdict(workflow: Finished, history: History, came_out: Outcome | None, catalog: Catalog) -> str | None:
    """What is different, in a sentence; None if nothing is."""
    if history.stopped is not None:
        return history.stopped.message.partition(": ")[2]
    left = history.first_left
    if left is not None:
        return f"step {left} was recorded, and the replay ended before it"
    if cancelled(workflow):
        return None
    if came_out is None:
        missing = history.first_missing
        if missing is None:
            return "the replay asks for nothing, and does not end"
        return f"the replay asks for step {missing}, {history.asked[missing]}, which was never recorded"
    if not same(workflow, came_out, catalog):
        return "every step is the same, and the outcome is not"
    return None


def cancelled(workflow: Finished) -> bool:
    """Whether somebody else ended the workflow, at whatever step it was."""
    return Status.from_code(workflow.status) is Status.CANCELLED


def same(workflow: Finished, came_out: Outcome, catalog: Catalog) -> bool:
    """Whether an outcome is the recorded one. Equal values may be written differently: sets are."""
    status, output, error = came_out
    if status != workflow.status:
        return False
    if output is not None and workflow.output is not None:
        decode = catalog.result_codec(workflow.row.name).decode
        return output == workflow.output or bool(decode(output) == decode(workflow.output))
    if error is not None and workflow.error is not None:
        return error_text(error) == error_text(workflow.error)
    return output == workflow.output and error == workflow.error


def error_text(stored: bytes) -> str:
    """An error without what changes from one run to the next: its traceback, and addresses in its message."""
    record = decode_record(stored)
    return ADDRESS.sub("0x...", f"{record.type_name}: {record.message}")


def shown(catalog: Catalog, name: str, status: int, output: bytes | None, error: bytes | None) -> str:
    """An outcome for people."""
    if error is not None:
        text = error_text(error).partition("\n")[0]
    elif catalog.result_codec(name).masked:
        text = "***"
    else:
        text = (output or b"").decode()
    return f"{Status.from_code(status).name} {text[:SHOWN_CHARACTERS]}"
