"""Children that come and go by the thousand: spawned at once, judged alone, stopped in bulk."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import weakref
from collections.abc import Callable, Coroutine

import pytest

from actors.dynamic import DynamicSupervisor
from actors.dynamic_child import DynamicChild
from actors.errors import (
    IntensityExceeded,
    NameTaken,
    NoSuchChild,
    SupervisorNotRunning,
    SupervisorSuspended,
    TooManyChildren,
)
from actors.exits import NORMAL, SHUTDOWN, Crashed, Exit, Stopped, Zombie
from actors.restart import Backoff, Intensity, Restart
from actors.state import ChildState, SupervisorState
from actors.testing import ManualClock, until, until_restarted

STEADY = Backoff(first=1.0, longest=60.0, jitter=False)
Run = Callable[[], Coroutine[object, object, None]]


class Leaving(BaseException):
    """What a runtime raises to take a coroutine down."""


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


async def nothing() -> None: ...


def crashing_first(times: int, error: type[BaseException] = ValueError) -> Run:
    """Crash in the first lives, then stay."""
    lives = iter(range(times))

    async def run() -> None:
        if next(lives, None) is not None:
            raise error("as asked")
        await forever()

    return run


async def test_a_child_that_returns_is_forgotten() -> None:
    async with DynamicSupervisor("jobs") as jobs:
        child = jobs.spawn("a", nothing)

        exit = await child.wait()

        assert exit is NORMAL
        assert child.state is ChildState.FINISHED
        assert "a" not in jobs


async def test_the_name_is_free_again_when_on_exit_is_called() -> None:
    seen: list[tuple[str, Exit, bool]] = []
    async with DynamicSupervisor("jobs") as jobs:

        def respawn(child: DynamicChild, exit: Exit) -> None:
            seen.append((child.name, exit, child.name in jobs))

        await jobs.spawn("a", nothing, on_exit=respawn).wait()

    assert seen == [("a", NORMAL, False)]


async def test_a_crash_brings_a_fresh_coroutine_after_the_pause() -> None:
    clock = ManualClock()
    async with DynamicSupervisor("jobs", backoff=STEADY, clock=clock) as jobs:
        child = jobs.spawn("a", crashing_first(2))

        await until(jobs, lambda: jobs.restarting == 1)
        assert clock.pending == [1.0]
        assert child.task is None
        clock.advance(1.0)
        await until(jobs, lambda: jobs.restarting == 1 and child.crashes == 2)
        assert clock.pending == [2.0]
        clock.advance(2.0)
        await until_restarted(jobs, "a", times=2)

        assert child.exit is None
        assert isinstance(child.last_exit, Crashed)


async def test_a_child_that_only_crashes_is_given_up_after_its_budget() -> None:
    clock = ManualClock()
    states: list[ChildState] = []
    async with DynamicSupervisor("jobs", backoff=STEADY, crashes_max=2, clock=clock) as jobs:
        child = jobs.spawn("a", crashing_first(9), on_exit=lambda child, _exit: states.append(child.state))

        for crashes in (1, 2):
            await until(jobs, lambda crashes=crashes: child.crashes == crashes)  # type: ignore[misc]
            clock.advance(60)
        exit = await child.wait()

        assert isinstance(exit, Crashed)
        assert states == [ChildState.RESTARTING, ChildState.RESTARTING, ChildState.CRASHED]
        assert "a" not in jobs


async def test_progress_forgives_earlier_crashes() -> None:
    clock = ManualClock()
    async with DynamicSupervisor("jobs", backoff=STEADY, crashes_max=2, clock=clock) as jobs:
        child = jobs.spawn("a", crashing_first(2))
        await until(jobs, lambda: child.crashes == 1)
        child.progressed()
        clock.advance(60)

        await until(jobs, lambda: jobs.restarting == 1 and child.restarts == 1)

        assert child.crashes == 1


async def test_a_long_healthy_life_forgives_earlier_crashes() -> None:
    clock = ManualClock()
    die = asyncio.Event()

    async def run() -> None:
        await die.wait()
        die.clear()
        raise ValueError

    async with DynamicSupervisor("jobs", backoff=STEADY, clock=clock) as jobs:
        child = jobs.spawn("a", run)
        die.set()
        await until(jobs, lambda: child.crashes == 1)
        clock.advance(1)
        clock.advance(61)
        die.set()

        await until(jobs, lambda: child.restarts == 1 and jobs.restarting == 1)

        assert child.crashes == 1


async def test_a_temporary_child_is_never_restarted_and_a_permanent_one_also_after_returning() -> None:
    clock = ManualClock()
    async with DynamicSupervisor("jobs", backoff=STEADY, clock=clock) as jobs:
        temporary = jobs.spawn("t", crashing_first(1), restart=Restart.TEMPORARY)
        permanent = jobs.spawn("p", nothing, restart=Restart.PERMANENT)

        assert isinstance(await temporary.wait(), Crashed)
        clock.advance(1)
        await until(jobs, lambda: permanent.restarts == 1)

        assert permanent.exit is None


async def test_exceptions_that_mean_leaving_end_a_child_without_noise(
    caplog: pytest.LogCaptureFixture,
) -> None:
    loop_errors: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: loop_errors.append(context))
    async with DynamicSupervisor("jobs", stopped_by=(Leaving,)) as jobs:
        child = jobs.spawn("a", crashing_first(1, Leaving))

        exit = await child.wait()

        assert isinstance(exit, Stopped)
        assert isinstance(exit.by, Leaving)
        assert child.state is ChildState.FINISHED
    del child, exit
    gc.collect()
    assert caplog.records == []
    assert loop_errors == []


async def test_a_base_exception_that_nobody_listed_is_a_crash_and_the_loop_lives() -> None:
    async with DynamicSupervisor("jobs") as jobs:
        exit = await jobs.spawn("a", crashing_first(1, Leaving), restart=Restart.TEMPORARY).wait()

        assert isinstance(exit, Crashed)
        assert isinstance(exit.error, Leaving)


async def test_a_cancellation_from_elsewhere_is_a_crash() -> None:
    async with DynamicSupervisor("jobs") as jobs:
        child = jobs.spawn("a", forever, restart=Restart.TEMPORARY)
        assert child.task is not None
        child.task.cancel()

        exit = await child.wait()

        assert isinstance(exit, Crashed)
        assert isinstance(exit.error, asyncio.CancelledError)


async def test_a_crash_alone_in_an_exception_group_is_unwrapped() -> None:
    async def run() -> None:
        raise ExceptionGroup("tasks", [ExceptionGroup("inner", [KeyError("x")])])

    async with DynamicSupervisor("jobs") as jobs:
        exit = await jobs.spawn("a", run, restart=Restart.TEMPORARY).wait()

        assert isinstance(exit, Crashed)
        assert isinstance(exit.error, KeyError)


async def test_stopping_a_child_cancels_it_and_waits() -> None:
    cleaned: list[str] = []

    async def run() -> None:
        try:
            await forever()
        finally:
            await asyncio.sleep(0)
            cleaned.append("a")

    async with DynamicSupervisor("jobs") as jobs:
        jobs.spawn("a", run)
        await asyncio.sleep(0)

        assert await jobs.stop("a") is SHUTDOWN

        assert cleaned == ["a"]
        with pytest.raises(NoSuchChild):
            await jobs.stop("a")


async def test_a_child_stopped_before_its_first_step_has_still_ended() -> None:
    async with DynamicSupervisor("jobs") as jobs:
        child = jobs.spawn("a", forever)

        assert await jobs.stop("a") is SHUTDOWN

        assert child.exit is SHUTDOWN


async def test_a_child_can_be_stopped_between_two_lives() -> None:
    clock = ManualClock()
    async with DynamicSupervisor("jobs", backoff=STEADY, clock=clock) as jobs:
        child = jobs.spawn("a", crashing_first(1))
        await until(jobs, lambda: jobs.restarting == 1)

        assert await jobs.stop("a") is SHUTDOWN

        assert clock.pending == []
        assert child.exit is SHUTDOWN
        assert len(jobs) == 0


async def test_a_child_that_swallows_cancellation_is_listed_as_a_zombie_until_it_ends() -> None:
    release = asyncio.Event()

    async def stubborn() -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    async with DynamicSupervisor("jobs") as jobs:
        child = jobs.spawn("a", stubborn)
        await asyncio.sleep(0)

        exit = await jobs.stop("a", timeout=0.01)

        assert exit == Zombie(0.01)
        assert jobs.zombies == (child,)
        assert "a" not in jobs
        second = jobs.spawn("a", forever)
        release.set()
        await until(jobs, lambda: jobs.zombies == ())
        assert second.exit is None
        assert child.exit == Zombie(0.01)


async def test_a_second_child_of_the_same_name_is_refused() -> None:
    async with DynamicSupervisor("jobs") as jobs:
        jobs.spawn("a", forever)

        with pytest.raises(NameTaken):
            jobs.spawn("a", nothing)


async def test_more_children_than_allowed_are_refused() -> None:
    async with DynamicSupervisor("jobs", children_max=1) as jobs:
        jobs.spawn("a", forever)

        with pytest.raises(TooManyChildren):
            jobs.spawn("b", nothing)


async def test_a_supervisor_that_does_not_run_refuses_children() -> None:
    jobs = DynamicSupervisor("jobs")
    with pytest.raises(SupervisorNotRunning):
        jobs.spawn("a", nothing)
    async with jobs:
        pass

    with pytest.raises(SupervisorNotRunning):
        jobs.spawn("a", nothing)


async def test_too_many_distinct_crashes_ask_the_policy_and_leave_the_healthy_alone() -> None:
    clock = ManualClock()
    asked: list[DynamicSupervisor] = []

    def suspend(jobs: DynamicSupervisor) -> None:
        asked.append(jobs)
        jobs.suspend()

    async with DynamicSupervisor(
        "jobs", backoff=STEADY, intensity=Intensity(2, 60), on_intensity=suspend, clock=clock
    ) as jobs:
        healthy = jobs.spawn("healthy", forever)
        for name in "abc":
            jobs.spawn(name, crashing_first(1))
        await until(jobs, lambda: jobs.state is SupervisorState.SUSPENDED)
        clock.advance(60)

        assert asked == [jobs]
        assert healthy.exit is None
        assert jobs.restarting == 3
        with pytest.raises(SupervisorSuspended):
            jobs.spawn("d", nothing)
        assert await jobs.spawn("canary", nothing, probe=True).wait() is NORMAL
        jobs.resume()
        assert jobs.restarting == 0
        assert len(jobs) == 4


async def test_one_child_that_crashes_often_is_not_many_children_that_crash() -> None:
    clock = ManualClock()
    async with DynamicSupervisor(
        "jobs", backoff=Backoff(first=0, longest=0), crashes_max=9, intensity=Intensity(2, 60), clock=clock
    ) as jobs:
        child = jobs.spawn("a", crashing_first(5))
        for times in range(1, 6):
            await until(jobs, lambda times=times: child.crashes == times)  # type: ignore[misc]
            clock.advance(0)

        await until_restarted(jobs, "a", times=5)

        assert jobs.snapshot().restarts_in_window == 1


async def test_without_a_policy_too_many_crashes_stop_the_supervisor() -> None:
    exits: list[Exit] = []
    with pytest.raises(IntensityExceeded) as raised:
        async with DynamicSupervisor("jobs", intensity=Intensity(1, 60)) as jobs:
            jobs.spawn("healthy", forever, on_exit=lambda _child, exit: exits.append(exit))
            jobs.spawn("a", crashing_first(1))
            jobs.spawn("b", crashing_first(1))
            await forever()

    assert isinstance(raised.value.__cause__, ValueError)
    assert exits == [SHUTDOWN]


async def test_a_child_has_a_clean_context_of_its_own() -> None:
    request: contextvars.ContextVar[object] = contextvars.ContextVar("request")

    class Request: ...

    seen: list[object] = []

    async def run() -> None:
        seen.append(request.get(None))
        request.set("mine")
        await forever()

    async with DynamicSupervisor("jobs") as jobs:

        async def handle() -> weakref.ref[Request]:
            value = Request()
            request.set(value)
            jobs.spawn("a", run)
            jobs.spawn("b", run)
            await asyncio.sleep(0)
            return weakref.ref(value)

        gone = await asyncio.get_running_loop().create_task(handle())
        await asyncio.sleep(0)  # the loop itself holds a task until the turn after it woke us
        gc.collect()

        assert seen == [None, None]
        assert gone() is None


async def test_an_on_exit_that_raises_is_logged_and_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    def broken(_child: DynamicChild, _exit: Exit) -> None:
        raise RuntimeError("broken")

    async with DynamicSupervisor("jobs") as jobs:
        with caplog.at_level(logging.ERROR, "actors"):
            exit = await jobs.spawn("a", nothing, on_exit=broken).wait()

        assert exit is NORMAL
        assert [record.message for record in caplog.records] == ["on_exit raised"]


async def test_a_hundred_thousand_children_live_and_stop_in_bulk() -> None:
    async with DynamicSupervisor("jobs", children_max=100_000, stop_timeout=60) as jobs:
        for number in range(100_000):
            jobs.spawn(str(number), forever)
        assert jobs.running == 100_000
        await asyncio.sleep(0)
        last = jobs.child("99999")

        await jobs.stop_all()

        assert len(jobs) == 0
        assert last.exit is SHUTDOWN
        assert jobs.zombies == ()


async def test_children_spawned_while_all_are_stopped_stay() -> None:
    async with DynamicSupervisor("jobs") as jobs:
        jobs.spawn("old", forever)
        stopping = asyncio.create_task(jobs.stop_all())
        await asyncio.sleep(0)
        young = jobs.spawn("young", forever)

        await stopping

        assert young.exit is None
        assert len(jobs) == 1


async def test_the_repr_says_what_one_debugs_by() -> None:
    clock = ManualClock()
    async with DynamicSupervisor("workflows", intensity=Intensity(5, 60), clock=clock) as jobs:
        jobs.spawn("a", crashing_first(1))
        jobs.spawn("b", forever)
        await until(jobs, lambda: jobs.restarting == 1)

        assert repr(jobs) == (
            "<DynamicSupervisor workflows one_for_one: 1 running, 1 restarting, 1/5 restarts in 60 s>"
        )
