"""Who goes down with a child that crashed, and in what order they come back."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from actors import ChildSpec, Happening, Intensity, Restart, Shutdown, Strategy, Supervisor
from actors.state import ChildState
from actors.testing import ManualClock, until, until_restarted, until_state
from tests.actors.stage import STEADY, Stage

WIDE = Intensity(restarts=100, period=1_000.0)


def tree(stage: Stage, strategy: Strategy, clock: ManualClock, names: Sequence[str] = "abc") -> Supervisor:
    children = [stage.child(name) for name in names]
    return Supervisor("test", children=children, strategy=strategy, intensity=WIDE, clock=clock)


@pytest.mark.parametrize(
    ("strategy", "down", "up"),
    [
        (Strategy.ONE_FOR_ONE, ["-b"], ["+b"]),
        (Strategy.ONE_FOR_ALL, ["-b", "-c", "-a"], ["+a", "+b", "+c"]),
        (Strategy.REST_FOR_ONE, ["-b", "-c"], ["+b", "+c"]),
    ],
)
async def test_a_crash_takes_its_group_down_in_reverse_and_brings_it_up_in_order(
    strategy: Strategy, down: list[str], up: list[str]
) -> None:
    stage, clock = Stage(), ManualClock()
    async with tree(stage, strategy, clock) as root:
        stage.take_log()

        stage.crash("b")
        await until_state(root, "b", ChildState.RESTARTING)
        assert stage.take_log() == down
        assert clock.pending == [1.0]
        clock.advance(1.0)
        await until_restarted(root, "b")
        await until(root, lambda: root.snapshot().running == 3)

        assert stage.take_log() == up
    assert stage.log == ["-c", "-b", "-a"]


@pytest.mark.parametrize("strategy", list(Strategy))
async def test_a_crash_at_the_restart_is_one_more_crash(strategy: Strategy) -> None:
    stage, clock = Stage(), ManualClock()
    async with tree(stage, strategy, clock) as root:
        stage.bad_starts["b"] = 2
        stage.crash("b")
        for delay in (1.0, 2.0, 4.0):
            await until(root, lambda delay=delay: clock.pending == [delay])  # type: ignore[misc]
            clock.advance(delay)
        await until_restarted(root, "b")
        await until(root, lambda: root.snapshot().running == 3)

        assert root.snapshot().restarts_in_window == 3
        assert stage.log.count("!b") == 2


async def test_in_one_for_all_a_sibling_that_cannot_come_back_takes_the_others_down_again() -> None:
    stage, clock = Stage(), ManualClock()
    async with tree(stage, Strategy.ONE_FOR_ALL, clock) as root:
        stage.bad_starts["c"] = 1
        stage.take_log()
        stage.crash("a")
        await until(root, lambda: clock.pending == [1.0])
        clock.advance(1.0)
        await until(root, lambda: clock.pending == [1.0])
        clock.advance(1.0)
        await until_restarted(root, "c")

        assert stage.log == ["-a", "-c", "-b", "+a", "+b", "!c", "-b", "-a", "+a", "+b", "+c"]


async def test_in_rest_for_one_an_earlier_crash_during_the_pause_takes_the_waiting_ones_along() -> None:
    stage, clock = Stage(), ManualClock()
    async with tree(stage, Strategy.REST_FOR_ONE, clock) as root:
        stage.take_log()
        stage.crash("c")
        await until_state(root, "c", ChildState.RESTARTING)
        stage.crash("a")
        await until_state(root, "a", ChildState.RESTARTING)
        clock.advance(1.0)
        await until(root, lambda: root.snapshot().running == 3)

        assert stage.log == ["-c", "-a", "-b", "+a", "+b", "+c"]


async def test_temporary_children_that_go_down_with_a_group_stay_down() -> None:
    stage, clock = Stage(), ManualClock()
    async with tree(stage, Strategy.ONE_FOR_ALL, clock, "ab") as root:
        temporary = await root.start(stage.child("t", Restart.TEMPORARY))
        stage.crash("a")
        assert await temporary.wait() == Shutdown()
        await until(root, lambda: len(clock.pending) == 1)
        clock.advance(1.0)
        await until(root, lambda: root.snapshot().running == 2)

        assert "t" not in root
        assert stage.log.count("+t") == 1


async def test_finished_children_stay_finished() -> None:
    stage, clock = Stage(), ManualClock()
    async with tree(stage, Strategy.ONE_FOR_ALL, clock, "a") as root:
        await root.start(stage.child("once", Restart.TRANSIENT))
        stage.finish("once")
        await until_state(root, "once", ChildState.FINISHED)
        stage.crash("a")
        await until(root, lambda: len(clock.pending) == 1)
        clock.advance(1.0)
        await until_restarted(root, "a")

        assert stage.log.count("+once") == 1


async def test_stopping_the_child_that_a_group_waits_for_does_not_keep_the_others_down() -> None:
    stage, clock = Stage(), ManualClock()
    async with tree(stage, Strategy.ONE_FOR_ALL, clock) as root:
        stage.crash("b")
        await until_state(root, "b", ChildState.RESTARTING)
        stage.take_log()

        await root.stop("b")
        clock.advance(1.0)
        await until(root, lambda: root.snapshot().running == 2)

        assert stage.log == ["+a", "+c"]


async def test_a_permanent_child_comes_back_also_after_returning() -> None:
    stage, clock = Stage(), ManualClock()
    async with tree(stage, Strategy.ONE_FOR_ONE, clock, "a") as root:
        stage.finish("a")
        await until_state(root, "a", ChildState.RESTARTING)
        clock.advance(1.0)

        await until_restarted(root, "a")


async def test_news_of_a_life_that_is_over_is_ignored() -> None:
    # Both crash in one turn of the loop: b's end is still in the inbox when a's takes b down and brings it back.
    stage, clock = Stage(), ManualClock()
    async with tree(stage, Strategy.ONE_FOR_ALL, clock, "ab") as root:
        stage.crash("a")
        stage.crash("b")
        await until_state(root, "a", ChildState.RESTARTING)
        clock.advance(1.0)
        await until_restarted(root, "b")
        for _ in range(3):
            await asyncio.sleep(0)

        assert root.snapshot().running == 2
        assert root.snapshot().restarts_in_window == 1


async def test_a_long_healthy_life_makes_the_next_pause_short_again() -> None:
    stage, clock = Stage(), ManualClock()
    async with tree(stage, Strategy.ONE_FOR_ONE, clock, "a") as root:
        pauses: list[float] = []
        for times, healthy_seconds in enumerate((0, 0, STEADY.longest + 1), start=1):
            clock.advance(healthy_seconds)
            stage.crash("a")
            await until_state(root, "a", ChildState.RESTARTING)
            pauses += clock.pending
            clock.advance(pauses[-1])
            await until_restarted(root, "a", times=times)

        assert pauses == [1.0, 2.0, 1.0]


async def test_observers_hear_what_happens_here_and_below() -> None:
    stage, clock = Stage(), ManualClock()
    heard: list[tuple[tuple[str, ...], Happening]] = []
    inner = tree(stage, Strategy.ONE_FOR_ONE, clock, "a")
    async with Supervisor("outer") as outer:
        silence = outer.observe(lambda event: heard.append((event.path, event.happening)))
        await outer.start(ChildSpec.nested(inner))
        stage.crash("a")
        await until_state(inner, "a", ChildState.RESTARTING)
        clock.advance(1.0)
        await until_restarted(inner, "a")
        silence()

    assert heard == [
        (("outer", "test", "a"), Happening.STARTED),
        (("outer", "test"), Happening.STARTED),
        (("outer", "test", "a"), Happening.CRASHED),
        (("outer", "test", "a"), Happening.RESTARTED),
    ]
