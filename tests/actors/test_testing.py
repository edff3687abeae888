"""The tools for tests keep their own promises."""

from __future__ import annotations

import pytest

from actors import Supervisor
from actors.state import ChildState
from actors.testing import ManualClock, until, until_state
from tests.actors.stage import Stage


def test_time_passes_only_when_told_and_fires_in_order_of_due_times() -> None:
    clock = ManualClock()
    fired: list[tuple[str, float]] = []
    clock.call_later(2, lambda: fired.append(("two", clock.now())))
    clock.call_later(1, lambda: fired.append(("one", clock.now())))
    clock.call_later(1, lambda: fired.append(("never", clock.now()))).cancel()

    assert clock.pending == [1, 2]
    clock.advance(1.5)
    assert fired == [("one", 1)]
    clock.advance(10)

    assert fired == [("one", 1), ("two", 2)]
    assert clock.now() == 11.5


def test_what_a_timer_starts_within_the_time_that_passes_fires_too() -> None:
    clock = ManualClock()
    fired: list[float] = []
    clock.call_later(1, lambda: clock.call_later(1, lambda: fired.append(clock.now())))

    clock.advance(3)

    assert fired == [2]


async def test_a_fact_that_is_true_already_is_not_waited_for() -> None:
    stage = Stage()
    async with Supervisor("test", children=[stage.child("a")]) as root:
        await until_state(root, "a", ChildState.RUNNING, timeout=0.01)


async def test_a_fact_that_does_not_come_true_is_an_error_that_shows_the_tree() -> None:
    async with Supervisor("test") as root:
        with pytest.raises(TimeoutError, match="SupervisorSnapshot"):
            await until(root, lambda: False, timeout=0.01)
