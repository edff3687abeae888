"""The order in which concurrent steps answered, given again on replay.

A step that was called while others were under way recorded the answers that the workflow had seen since it last had
none under way (`seen`). Before that step is called again, exactly those answers are given, in that order; what was not
seen before any recorded call is given after the last of them. Answers of steps that were in flight at the crash come
after all that. So each later step gets the number that it had, although nobody waits for the same things as long.

It also recorded which call was the first after none was under way. That one may itself be in flight at the crash and so
not be recorded; what was answered before it has to be given all the same before it is called again.

If the code is not the one that was recorded, the next answer may wait for a call that never comes. Nothing else can
move then, so after `STALLED_SECONDS` without one the waiting answers are told.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from operon.database.checkpoints import Checkpoint

STALLED_SECONDS = 5.0


class Interleaving:
    """Hands out turns to the answers of a workflow whose recorded steps overlapped."""

    __slots__ = ("_given", "_plan", "_timer", "_waiting")

    def __init__(self, plan: deque[tuple[int, list[int] | None]]) -> None:
        # The recorded calls that are still to come, and what was seen before each; None: everything before it.
        self._plan = plan
        self._given: set[int] = set()
        self._waiting: dict[int, asyncio.Future[bool]] = {}
        self._timer: asyncio.TimerHandle | None = None

    @staticmethod
    def of(recorded: Sequence[Checkpoint]) -> Interleaving | None:
        """None for a history in which one thing happened at a time."""
        if all(checkpoint.seen is None for checkpoint in recorded):
            return None
        plan: deque[tuple[int, list[int] | None]] = deque()
        planned: set[int] = set()
        for checkpoint in recorded:
            opener, before, since = parts(checkpoint)
            if opener not in planned:
                plan.append((opener, before))
                planned.add(opener)
            if checkpoint.step != opener:
                plan.append((checkpoint.step, since))
        return Interleaving(plan)

    def called(self, number: int) -> None:
        """A step was called."""
        while self._plan and self._plan[0][0] <= number:
            self._plan.popleft()
        self._advance()

    def delivered(self, number: int) -> None:
        """An answer was given, or its caller gave up."""
        self._given.add(number)
        self._waiting.pop(number, None)
        self._advance()

    async def turn(self, number: int) -> bool:
        """Waits for the turn of an answer; False if it cannot come."""
        if self._may(number):
            return True
        waiter: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting[number] = waiter
        self._watch()
        return await waiter

    def _may(self, number: int) -> bool:
        if not self._plan or (seen := self._plan[0][1]) is None:
            return True
        return next((answer for answer in seen if answer not in self._given), None) == number

    def _advance(self) -> None:
        for number, waiter in list(self._waiting.items()):
            if self._may(number):
                del self._waiting[number]
                if not waiter.done():
                    waiter.set_result(True)
                if self._plan and self._plan[0][1] is not None:
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


def parts(checkpoint: Checkpoint) -> tuple[int, list[int] | None, list[int]]:
    """`opener;before;since` of a call while others were under way, `before` of an opener, as the journal wrote them."""
    match (checkpoint.seen or "").split(";"):
        case [opener, before, since]:
            return int(opener), numbers(before) or None, numbers(since)
        case _:
            return checkpoint.step, numbers(checkpoint.seen) or None, []


def numbers(text: str | None) -> list[int]:
    return [int(number) for number in text.split(",")] if text else []
