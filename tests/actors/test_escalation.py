"""A supervisor that cannot keep its children running says so, to its parent or to whoever entered it."""

from __future__ import annotations

import asyncio
from typing import Never

import pytest

from actors import (
    ChildSpec,
    Crashed,
    Happening,
    Intensity,
    IntensityExceeded,
    Ref,
    Restart,
    Shutdown,
    Supervisor,
    SupervisorState,
)
from actors.state import ChildState
from actors.testing import ManualClock, until, until_restarted, until_state
from tests.actors.stage import AT_ONCE, Stage


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


async def test_one_restart_too_many_stops_everything_and_ends_the_body() -> None:
    stage, clock = Stage(), ManualClock()
    refs: list[Ref[Never]] = []
    ended: list[str] = []
    with pytest.raises(IntensityExceeded, match="more than 1 restarts within 5 s") as raised:
        async with Supervisor("test", intensity=Intensity(1, 5), clock=clock) as root:
            refs += [await root.start(stage.child(name)) for name in "ab"]
            stage.crash("a")
            await until(root, lambda: clock.pending != [])
            clock.advance(1)
            await until_restarted(root, "a")
            stage.crash("a")
            try:
                await forever()
            finally:
                ended.append("body")

    assert ended == ["body"]
    assert isinstance(raised.value.__cause__, ValueError)
    assert stage.log == ["+a", "+b", "-a", "+a", "-a", "-b"]
    assert isinstance(refs[0].exit, Crashed)
    assert refs[1].exit == Shutdown()


async def test_restarts_that_have_left_the_window_do_not_count() -> None:
    stage, clock = Stage(), ManualClock()
    async with Supervisor("test", children=[stage.child("a")], intensity=Intensity(1, 5), clock=clock) as root:
        for times in (1, 2, 3):
            stage.crash("a")
            await until_state(root, "a", ChildState.RESTARTING)
            clock.advance(5)
            await until_restarted(root, "a", times=times)

        assert repr(root) == "<Supervisor test one_for_one: 1 running, 0/1 restarts in 5 s>"


async def test_a_parent_restarts_a_supervisor_that_gave_up_with_the_children_it_was_made_with() -> None:
    stage, clock = Stage(), ManualClock()
    inner = Supervisor("inner", children=[stage.child("a"), stage.child("b")], intensity=Intensity(0, 5), clock=clock)
    async with Supervisor("outer", children=[ChildSpec.nested(inner, backoff=AT_ONCE)], clock=clock) as outer:
        later = await inner.start(stage.child("later"))
        stage.take_log()
        heard: list[Happening] = []
        outer.observe(lambda event: heard.append(event.happening))

        stage.crash("a")
        await until_state(outer, "inner", ChildState.RESTARTING)
        clock.advance(0)
        await until_restarted(outer, "inner")

        assert stage.log == ["-a", "-later", "-b", "+a", "+b"]
        assert later.exit == Shutdown()
        assert Happening.ESCALATED in heard
        assert inner.state is SupervisorState.RUNNING


async def test_a_failure_that_persists_reaches_the_root() -> None:
    stage = Stage()
    inner = Supervisor("inner", children=[stage.child("a")], intensity=Intensity(0, 5))
    with pytest.raises(IntensityExceeded, match="'outer'") as raised:
        async with Supervisor("outer", children=[ChildSpec.nested(inner)], intensity=Intensity(0, 5)):
            stage.crash("a")
            await forever()

    assert isinstance(raised.value.__cause__, IntensityExceeded)
    assert isinstance(raised.value.__cause__.__cause__, ValueError)


async def test_a_child_that_cannot_be_restarted_uses_up_the_window() -> None:
    stage, clock = Stage(), ManualClock()
    with pytest.raises(IntensityExceeded):
        async with Supervisor("test", children=[stage.child("a")], intensity=Intensity(2, 60), clock=clock) as root:
            stage.bad_starts["a"] = 9
            stage.crash("a")
            for delay in (1.0, 2.0):
                await until(root, lambda delay=delay: clock.pending == [delay])  # type: ignore[misc]
                clock.advance(delay)
            await forever()


async def test_the_failure_is_noted_on_an_exception_that_the_body_raises_itself() -> None:
    stage = Stage()
    with pytest.raises(KeyError) as raised:
        async with Supervisor("test", children=[stage.child("a")], intensity=Intensity(0, 5)) as root:
            stage.crash("a")
            await until(root, lambda: root.state is SupervisorState.STOPPED)
            raise KeyError("body")

    assert any("supervisor 'test' failed" in note for note in raised.value.__notes__)


async def test_a_temporary_child_that_crashes_costs_nothing() -> None:
    stage = Stage()
    async with Supervisor("test", intensity=Intensity(0, 5)) as root:
        ref = await root.start(stage.child("a", Restart.TEMPORARY))
        stage.crash("a")

        assert isinstance(await ref.wait(), Crashed)
