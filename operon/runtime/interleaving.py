"""The order in which concurrent steps answer: one at a time, and on replay in the order that was recorded.

Answers that overlap are given one after another, and each only when nothing has happened for `APART` turns of the event
loop: no call, no answer. Then all that follows from what was before (a task begins and calls its first step; a task
ends, `gather` wakes its caller, the caller calls its next step) has happened, and so the order of the answers decides
the numbers of the later steps, and nothing else does.

That order is recorded with the calls. A step that was called while others were under way recorded the answers that the
workflow had been given since it last had none under way, each with the number of calls that had been made by then.
Before that step is called again, exactly those answers are given, in that order, each when as many calls have been
made. What was not given before any recorded call is given after the last of them, and so are the answers of steps that
were in flight at the crash. So each later step gets the number that it had, although nobody waits for the same things
as long.

If the code is not the one that was recorded, the next answer may wait for a call that never comes. Nothing else can
move then, so after `STALLED_SECONDS` without one the waiting answers are told.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from operon.database.checkpoints import Checkpoint

# Two turns for each level of `gather` or task group that lies between an answer and the next call: six levels.
APART = 12

STALLED_SECONDS = 30.0


class Given(NamedTuple):
    """An answer that was given to the workflow, when so many calls had been made."""

    number: int
    calls: int


class Before(NamedTuple):
    """What was given before a call: everything older than `quiet`, and since then these answers, in this order."""

    quiet: int
    given: list[Given]


class Interleaving:
    """Hands out turns to the answers of a workflow whose steps overlap."""

    __slots__ = ("_calls", "_given", "_granted", "_plan", "_timer", "_unsettled", "_waiting")

    def __init__(self, plan: Sequence[tuple[int, Before | None]] = (), calls: int = 0) -> None:
        # The recorded calls that are still to come, and what was given before each; None: everything before it.
        self._plan = deque(plan)
        self._calls = calls
        self._given: set[int] = set()
        self._waiting: dict[int, asyncio.Future[bool]] = {}
        self._granted = False  # it is somebody's turn, who has not taken it yet
        self._unsettled = 0  # turns of the loop until all that follows from the last call or answer has happened
        self._timer: asyncio.TimerHandle | None = None

    @staticmethod
    def of(recorded: Sequence[Checkpoint]) -> Interleaving | None:
        """None for a history in which one thing happened at a time. A negative step announces a call."""
        if all(checkpoint.seen is None for checkpoint in recorded):
            return None
        calls: dict[int, Before | None] = {}
        for checkpoint in recorded:
            number = checkpoint.step if checkpoint.step >= 0 else -1 - checkpoint.step
            calls[number] = parse(checkpoint.seen)
        return Interleaving(sorted(calls.items()))

    def called(self, number: int, *, alone: bool) -> None:
        """A step was called. `alone`: nothing else is under way."""
        self._calls = number + 1
        while self._plan and self._plan[0][0] <= number:
            self._plan.popleft()
        self._happened(alone)

    async def turn(self, number: int) -> bool:
        """Waits for the turn of an answer, which is then given at once; False if it cannot come."""
        if not self._granted and not self._unsettled and self._may(number):
            self._granted = True
            return True
        waiter: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting[number] = waiter
        self._watch()
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self._granted = False
            raise

    def delivered(self, number: int, *, alone: bool) -> None:
        """An answer was given, or its caller gave up. `alone`: nothing else is under way."""
        self._given.add(number)
        self._waiting.pop(number, None)
        self._granted = False
        self._happened(alone)

    def close(self) -> None:
        """Nobody's turn will come any more: the life of the workflow is over."""
        for waiter in self._waiting.values():
            waiter.cancel()
        self._waiting.clear()
        self._watch()

    def _happened(self, alone: bool) -> None:
        """Lets the loop turn before the next answer; where nothing else is under way there is nothing to wait for."""
        if alone and not self._unsettled:
            self._advance()
            return
        if not self._unsettled:
            asyncio.get_running_loop().call_soon(self._turned)
        self._unsettled = APART

    def _turned(self) -> None:
        self._unsettled -= 1
        if self._unsettled:
            asyncio.get_running_loop().call_soon(self._turned)
        else:
            self._advance()

    def _may(self, number: int) -> bool:
        if not self._plan or (before := self._plan[0][1]) is None or number < before.quiet:
            return True
        due = next((given for given in before.given if given.number not in self._given), None)
        return due is not None and due.number == number and self._calls >= due.calls

    def _advance(self) -> None:
        if not self._granted and not self._unsettled:
            for number, waiter in self._waiting.items():
                if self._may(number) and not waiter.done():
                    del self._waiting[number]
                    self._granted = True
                    waiter.set_result(True)
                    break
        self._watch()

    def _watch(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._waiting:
            self._timer = asyncio.get_running_loop().call_later(STALLED_SECONDS, self._stalled)

    def _stalled(self) -> None:
        for waiter in self._waiting.values():
            if not waiter.done():
                waiter.set_result(False)
        self._waiting.clear()


def parse(seen: str | None) -> Before | None:
    """The stored form, `2:3@5,2@5`: what is older than step 2; answer 3 when five calls were made, then answer 2."""
    if seen is None:
        return None
    quiet, _, answers = seen.partition(":")
    pairs = (entry.split("@") for entry in answers.split(",") if entry)
    return Before(int(quiet), [Given(int(number), int(calls)) for number, calls in pairs])
