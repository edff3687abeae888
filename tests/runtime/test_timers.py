"""Deadlines: never met early, all of them by one timer of the event loop, and forgotten when they are taken back."""

from __future__ import annotations

import asyncio
import random
from functools import partial
from typing import Any

import pytest

from operon.runtime.clock import Clock
from operon.runtime.timers import LONGEST_SECONDS, Timers

NOW = 1_000_000_000.0


class Handle:
    """A timer of the loop."""

    def __init__(self, pause: float) -> None:
        self.pause = pause
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Loop:
    """An event loop's timers, which go off when the test says so."""

    def __init__(self) -> None:
        self.handles: list[tuple[Handle, Any]] = []

    def call_later(self, pause: float, callback: Any) -> Handle:
        self.handles.append((Handle(pause), callback))
        return self.handles[-1][0]

    @property
    def armed(self) -> list[float]:
        """What it waits for."""
        return [handle.pause for handle, _ in self.handles if not handle.cancelled]

    def fire(self) -> None:
        """The time is over for all that is waited for."""
        due, self.handles = self.handles, []
        for handle, callback in due:
            if not handle.cancelled:
                callback()


class SetClock(Clock):
    """The database's clock, as the test sets it."""

    def __init__(self) -> None:
        self.time = NOW

    def now(self) -> float:
        return self.time


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Loop:
    loop = Loop()
    monkeypatch.setattr("operon.runtime.timers.asyncio.get_running_loop", lambda: loop)
    return loop


def test_a_callback_is_called_when_the_deadline_has_passed(loop: Loop, clock: SetClock) -> None:
    timers, called = Timers(clock), list[str]()
    timers.at(NOW + 5, lambda: called.append("five"))

    armed = loop.armed
    clock.time = NOW + 5
    loop.fire()

    assert armed == [5]
    assert called == ["five"]
    assert loop.armed == []
    assert len(timers) == 0


def test_what_comes_up_too_early_is_put_off(loop: Loop, clock: SetClock) -> None:
    timers, called = Timers(clock), list[str]()
    timers.at(NOW + 5, lambda: called.append("five"))

    clock.time = NOW + 4.75
    loop.fire()

    assert called == []
    assert loop.armed == [0.25]


def test_a_clock_that_is_set_back_calls_nobody_early(loop: Loop, clock: SetClock) -> None:
    timers, called = Timers(clock), list[str]()
    timers.at(NOW + 5, lambda: called.append("five"))

    clock.time = NOW - 3600
    loop.fire()

    assert called == []
    assert loop.armed == [LONGEST_SECONDS]


def test_a_clock_that_is_set_ahead_calls_when_it_was_looked_at(loop: Loop, clock: SetClock) -> None:
    timers, called = Timers(clock), list[str]()
    timers.at(NOW + 3600, lambda: called.append("an hour"))

    clock.time = NOW + 3601
    timers.arm()

    assert loop.armed[0] < 0.01

    loop.fire()

    assert called == ["an hour"]


def test_a_deadline_like_one_that_a_clock_has_passed_unseen_is_not_waited_for(loop: Loop, clock: SetClock) -> None:
    timers, called = Timers(clock), list[str]()
    timers.at(NOW + 3600, lambda: called.append("first")).cancel()

    clock.time = NOW + 3601
    timers.arm()
    timers.at(NOW + 3600, lambda: called.append("second"))
    loop.fire()

    assert called == ["second"]


def test_there_is_one_timer_whatever_there_is_to_come(loop: Loop, clock: SetClock) -> None:
    timers, called = Timers(clock), list[int]()
    deadlines = list(range(10_000))
    random.Random(7).shuffle(deadlines)

    for deadline in deadlines:
        timers.at(NOW + 1 + deadline, partial(called.append, deadline))
    armed = loop.armed
    clock.time = NOW + 5_000
    loop.fire()

    assert armed == [1]
    assert called == list(range(5_000))
    assert len(timers) == 5_000
    assert len(loop.armed) == 1


def test_the_same_deadline_is_met_in_the_order_of_asking(loop: Loop, clock: SetClock) -> None:
    timers, called = Timers(clock), list[int]()
    for number in range(100):
        timers.at(NOW + 1, partial(called.append, number))

    clock.time = NOW + 1
    loop.fire()

    assert called == list(range(100))


def test_an_earlier_deadline_is_met_first(loop: Loop, clock: SetClock) -> None:
    timers, called = Timers(clock), list[str]()
    timers.at(NOW + 50, lambda: called.append("late"))
    timers.at(NOW + 5, lambda: called.append("early"))

    armed = loop.armed
    clock.time = NOW + 5
    loop.fire()

    assert armed == [5]
    assert called == ["early"]


def test_what_was_taken_back_is_not_called(loop: Loop, clock: SetClock) -> None:
    timers, called = Timers(clock), list[str]()
    first = timers.at(NOW + 1, lambda: called.append("first"))
    timers.at(NOW + 1, lambda: called.append("second"))

    first.cancel()
    first.cancel()
    left = len(timers)
    clock.time = NOW + 1
    loop.fire()

    assert left == 1
    assert called == ["second"]
    assert len(timers) == 0


def test_a_timer_that_was_called_can_be_cancelled(loop: Loop, clock: SetClock) -> None:
    timers = Timers(clock)
    timer = timers.at(NOW + 1, lambda: None)
    clock.time = NOW + 1
    loop.fire()

    timer.cancel()

    assert len(timers) == 0


def test_what_was_taken_back_leaves_memory_long_before_its_deadline(loop: Loop, clock: SetClock) -> None:
    timers = Timers(clock)
    kept = timers.at(NOW + 10, lambda: None)

    sizes = set[int]()
    for _ in range(10_000):
        timers.at(NOW + 3600, lambda: None).cancel()
        sizes.add(len(timers._heap))  # pyright: ignore[reportPrivateUsage]

    assert len(timers) == 1
    assert max(sizes) < 200
    assert kept.callback is not None


def test_a_callback_may_set_another_timer(loop: Loop, clock: SetClock) -> None:
    timers, called = Timers(clock), list[str]()

    def again() -> None:
        called.append("once")
        timers.at(NOW + 2, lambda: called.append("again"))

    timers.at(NOW + 1, again)
    for time in (NOW + 1, NOW + 2):
        clock.time = time
        loop.fire()

    assert called == ["once", "again"]


def test_a_closed_queue_calls_nobody(loop: Loop, clock: SetClock) -> None:
    timers, called = Timers(clock), list[str]()
    timers.at(NOW + 1, lambda: called.append("never"))

    timers.close()
    clock.time = NOW + 1
    loop.fire()

    assert called == []


async def test_a_real_loop_calls_ten_thousand_and_none_early() -> None:
    clock = Clock()
    clock.sample(NOW)
    timers = Timers(clock)
    early = list[float]()
    done = asyncio.Event()
    left = 10_000

    def called(deadline: float) -> None:
        nonlocal left
        left -= 1
        if clock.now() < deadline:
            early.append(deadline)
        if left == 0:
            done.set()

    for number in range(left):
        deadline = NOW + (number % 100) / 500
        timers.at(deadline, partial(called, deadline))
    async with asyncio.timeout(60):
        await done.wait()

    assert early == []
    assert len(timers) == 0


def test_the_clock_goes_on_by_a_monotonic_one_from_the_last_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monotonic = 50.0
    monkeypatch.setattr("operon.runtime.clock.time.monotonic", lambda: monotonic)
    monkeypatch.setattr("operon.runtime.clock.time.time", lambda: NOW + 3600)  # off by an hour
    clock = Clock()

    clock.sample(NOW)
    monotonic += 2.5

    assert clock.now() == NOW + 2.5
