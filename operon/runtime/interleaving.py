"""The order in which concurrent steps answer: in waves, and on replay in the waves that were recorded.

Answers that overlap are held until nothing has happened for `APART` turns of the event loop: no call, no answer. Then
all that follows from what was before (a task begins and calls its first step; a task ends, `gather` wakes its caller,
the caller calls its next step) has happened, and everything that has arrived meanwhile is given as one wave, in one
turn of the loop and in the order of arrival. So the waves decide the numbers of the later steps, and nothing else does;
and a workflow waits for the loop once per wave, not once per answer.

The waves are recorded with the calls. A step that was called while others were under way recorded the waves that had
been given since the workflow last had none under way, each with the number of calls that had been made by then. Before
that step is called again, exactly those waves are given, in that order, each when as many calls have been made and all
of it is there. What was not given before any recorded call is given after the last of them, and so are the answers of
steps that were in flight at the crash. So each later step gets the number that it had, although nobody waits for the
same things as long.

If the code is not the one that was recorded, the next wave may wait for a call that never comes. Nothing else can move
then, so after `STALLED_SECONDS` without one the waiting answers are told.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from operon.database.checkpoints import Checkpoint

# Two turns for each level of `gather` or task group that lies between an answer and the next call: six levels.
APART = 12

STALLED_SECONDS = 30.0


class Wave(NamedTuple):
    """Answers that were given to the workflow together, when so many calls had been made."""

    numbers: tuple[int, ...]
    calls: int

    def __str__(self) -> str:
        return f"{','.join(map(str, self.numbers))}@{self.calls}"


class Before(NamedTuple):
    """What was given before a call: everything older than `quiet`, and since then these waves, in this order."""

    quiet: int
    waves: list[Wave]


class Interleaving:
    """Hands out turns to the answers of a workflow whose steps overlap."""

    __slots__ = ("_calls", "_granted", "_on_wave", "_plan", "_timer", "_unsettled", "_waiting", "given")

    def __init__(
        self,
        on_wave: Callable[[Wave], None],
        plan: Sequence[tuple[int, Before | None]] = (),
        calls: int = 0,
    ) -> None:
        # The recorded calls that are still to come, and what was given before each; None: everything before it.
        self._plan = deque(plan)
        self._on_wave = on_wave
        self._calls = calls
        self.given: set[int] = set()
        self._waiting: dict[int, asyncio.Future[bool]] = {}  # in the order of arrival
        self._granted: set[int] = set()  # whose turn it is, and who have not taken it yet
        self._unsettled = 0  # turns of the loop until all that follows from the last call or answer has happened
        self._timer: asyncio.TimerHandle | None = None

    def called(self, number: int, *, alone: bool) -> None:
        """A step was called. `alone`: nothing else is under way."""
        self._calls = number + 1
        while self._plan and self._plan[0][0] <= number:
            self._plan.popleft()
        self._happened(alone)

    async def turn(self, number: int) -> bool:
        """Waits for the turn of an answer, which is then given at once; False if it cannot come."""
        waiter: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting[number] = waiter
        self._advance()
        return await waiter

    def delivered(self, number: int, *, alone: bool) -> None:
        """An answer was given, or its caller gave up."""
        self.given.add(number)
        self._waiting.pop(number, None)
        self._granted.discard(number)
        self._happened(alone)

    def close(self) -> None:
        """Nobody's turn will come any more: the life of the workflow is over."""
        for waiter in self._waiting.values():
            waiter.cancel()
        self._waiting.clear()
        self._watch()

    def _happened(self, alone: bool) -> None:
        """Lets the loop turn before the next wave; where nothing else is under way there is nothing to wait for."""
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

    def _advance(self) -> None:
        """Gives the next wave, if it is due."""
        if not self._granted and not self._unsettled and (numbers := self._due()):
            self._granted.update(numbers)
            self.given.update(numbers)
            self._on_wave(Wave(numbers, self._calls))
            waiters = [self._waiting.pop(number) for number in numbers]
            if len(waiters) == 1:
                grant(waiters)
            else:  # in a turn of its own, when the last to arrive waits like all the others
                asyncio.get_running_loop().call_soon(grant, waiters)
        self._watch()

    def _due(self) -> tuple[int, ...]:
        if not self._plan or (before := self._plan[0][1]) is None:
            return tuple(self._waiting)
        if older := tuple(number for number in self._waiting if number < before.quiet):
            return older
        for wave in before.waves:
            left = tuple(number for number in wave.numbers if number not in self.given)
            if left:
                ready = self._calls >= wave.calls and all(number in self._waiting for number in left)
                return left if ready else ()
        return ()

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


def grant(waiters: list[asyncio.Future[bool]]) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(True)


def recorded_plan(recorded: Sequence[Checkpoint]) -> list[tuple[int, Before | None]]:
    """The recorded calls, in order; none for a history in which one thing happened at a time.

    A negative step announces a call: -1 is step 0.
    """
    if all(checkpoint.seen is None for checkpoint in recorded):
        return []
    calls: dict[int, Before | None] = {}
    for checkpoint in recorded:
        number = checkpoint.step if checkpoint.step >= 0 else -1 - checkpoint.step
        calls[number] = parse(checkpoint.seen)
    return sorted(calls.items())


def parse(seen: str | None) -> Before | None:
    """The stored form, `2:3,2@5;4@6`: what is older than step 2; 3 and 2 when five calls were made, 4 when six were."""
    if seen is None:
        return None
    quiet, _, waves = seen.partition(":")
    parts = (wave.split("@") for wave in waves.split(";") if wave)
    return Before(int(quiet), [Wave(tuple(map(int, numbers.split(","))), int(calls)) for numbers, calls in parts])
