"""What a live workflow does at this moment, read from memory: what it calls, since when, and where its code stands.

The rule: whoever asks pays. A workflow that runs keeps the calls that are under way, and nothing is written down for
those who may ask; what it stands at is read off its coroutines.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from operon.explain import Doing
from operon.runtime.communicators import Attempts
from operon.runtime.transactions import Work

if TYPE_CHECKING:
    from types import FrameType

    from operon.runtime.workflow_actor import WorkflowActor

STANDS_SECONDS = 5.0  # what takes less is not asked where it stands
STANDS_MAX = 6  # places
STANDS_FEW = 2  # in what is said of many workflows
PLACE_MAX = 120  # characters
OURS = frozenset({"operon", "actors"}) | sys.stdlib_module_names


def doing_of(actor: WorkflowActor, task: Any, now: float, *, closely: bool = False) -> Doing | None:
    """What it does now; None if that is only to wait, or nothing that is known.

    task: in which it runs. now: the database's time. closely: say where it stands however short it does this.
    """
    journal = actor.journal
    if journal is None or journal.halted is not None:
        return None
    calls = actor.under_way
    if calls:
        here = time.time()
        call = min(calls, key=began)
        stands: tuple[str, ...] = ()
        if closely or here - began(call) > STANDS_SECONDS:
            stands = stands_of(task, call)[0 if closely else -STANDS_FEW :]
        return call_of(call, now - here, len(calls) - 1, stands)
    if journal.called < journal.replayed:
        return Doing(replayed=journal.called, recorded=journal.replayed, stands=stands_of(task) if closely else ())
    if journal.outstanding == 0 and closely:  # its own code
        return Doing(stands=stands_of(task))
    return None


def began(call: Attempts | Work) -> float:
    """When a call began, or its present attempt, by this machine's clock."""
    return call.since if isinstance(call, Attempts) else call.started


def call_of(call: Attempts | Work, ahead: float, others: int, stands: tuple[str, ...]) -> Doing:
    """One call. ahead: how far the database's clock is ahead of this machine's."""
    setback = call.setback
    failures = 0 if setback is None else setback.failures
    match call:
        case Attempts():
            attempt, pauses = call.made, call.made == failures
        case Work():
            attempt, pauses = failures + 1, True  # as long as its time has not come
    return Doing(
        name=call.name,
        kind="communicator" if isinstance(call, Attempts) else "transaction",
        step=call.step,
        since=moment(began(call) + ahead),
        attempt=attempt,
        attempts_max=call.max_attempts if isinstance(call, Attempts) else None,
        failures=failures,
        last_error=None if setback is None else setback.error,
        again_at=moment(setback.again_at + ahead) if setback is not None and pauses else None,
        others=others,
        stands=stands,
    )


def moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


# ---------------------------------------------------------------------- where it stands


def stands_of(task: Any, call: Attempts | Work | None = None) -> tuple[str, ...]:
    """Where its code waits, outermost first: its own and that of libraries, not the runtime's and not Python's.

    A communicator that is no coroutine runs in a thread, and is not seen: then it stands at its call.
    """
    frames = dict.fromkeys(frames_of(None if task is None else task.get_coro()))
    if call is not None:  # a transaction, a branch of `gather`: a task of its own
        frames |= dict.fromkeys(frames_of(call.running))
    found = [place_of(frame) for frame in frames if is_told(frame)]
    return tuple(found[:STANDS_MAX])


def frames_of(awaited: Any) -> Iterator[FrameType]:
    """The frames of a coroutine and of what it awaits."""
    while (frame := getattr(awaited, "cr_frame", None)) is not None:
        yield frame
        awaited = awaited.cr_await


def is_told(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0] not in OURS


def place_of(frame: FrameType) -> str:
    """`shop/payments.py:41 capture`."""
    code = frame.f_code
    return f"{'/'.join(PurePath(code.co_filename).parts[-2:])}:{frame.f_lineno} {code.co_name}"[:PLACE_MAX]
