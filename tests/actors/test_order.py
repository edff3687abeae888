"""Children start one after the other, each when the one before is ready, and stop in reverse."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Never

import anyio
import pytest

from actors import (
    ChildSpec,
    ChildStartFailed,
    Crashed,
    DynamicSupervisor,
    NameTaken,
    Normal,
    NoSuchChild,
    Restart,
    Shutdown,
    Started,
    Stopped,
    Supervisor,
    SupervisorNotRunning,
    SupervisorState,
)
from actors.testing import until
from tests.actors.stage import Stage


async def test_children_start_in_order_and_stop_in_reverse() -> None:
    stage = Stage()
    async with Supervisor("test", children=[stage.child(name) for name in "abc"]) as root:
        await root.start(stage.child("d"))

        assert stage.take_log() == ["+a", "+b", "+c", "+d"]

    assert stage.log == ["-d", "-c", "-b", "-a"]
    assert root.state is SupervisorState.STOPPED


async def test_the_next_child_starts_only_when_the_one_before_says_so() -> None:
    reached, ready = asyncio.Event(), asyncio.Event()
    log: list[str] = []

    async def slow(started: Started) -> None:
        reached.set()
        await ready.wait()
        log.append("slow is ready")
        started()
        await asyncio.get_running_loop().create_future()

    async def next_one(started: Started) -> None:
        log.append("next")
        started()

    root = Supervisor(
        "test", children=[ChildSpec.task("slow", slow), ChildSpec.task("next", next_one, restart=Restart.TEMPORARY)]
    )

    async def enter() -> None:
        async with root:
            log.append("body")

    entering = asyncio.create_task(enter())
    await reached.wait()
    assert log == []
    ready.set()
    await entering

    assert log == ["slow is ready", "next", "body"]


async def test_an_outer_cancellation_does_not_change_the_order_of_stopping() -> None:
    stage = Stage()
    with anyio.CancelScope() as scope:
        async with Supervisor("test", children=[stage.child(name) for name in "abc"]):
            scope.cancel()
            await anyio.sleep_forever()

    assert scope.cancelled_caught
    assert stage.log == ["+a", "+b", "+c", "-c", "-b", "-a"]


async def test_a_native_cancellation_does_not_change_the_order_of_stopping() -> None:
    stage = Stage()
    inside = asyncio.Event()

    async def main() -> None:
        async with Supervisor("test", children=[stage.child(name) for name in "abc"]):
            inside.set()
            await asyncio.get_running_loop().create_future()

    task = asyncio.create_task(main())
    await inside.wait()
    task.cancel()
    await asyncio.wait((task,))

    assert task.cancelled()
    assert stage.log[-3:] == ["-c", "-b", "-a"]


async def test_a_child_that_cannot_start_is_known_at_once_and_stops_those_before_it() -> None:
    stage = Stage()
    stage.bad_starts["c"] = 1

    with pytest.raises(ChildStartFailed, match="'c' did not start") as raised:
        async with Supervisor("test", children=[stage.child(name) for name in "abcd"]):
            pytest.fail("the body must not run")

    assert isinstance(raised.value.__cause__, OSError)
    assert stage.log == ["+a", "+b", "!c", "-b", "-a"]


async def test_a_child_added_later_that_cannot_start_leaves_the_others_alone() -> None:
    stage = Stage()
    stage.bad_starts["b"] = 1
    async with Supervisor("test", children=[stage.child("a")]) as root:
        with pytest.raises(ChildStartFailed):
            await root.start(stage.child("b"))

        assert len(root) == 1
        await root.start(stage.child("b"))
        assert stage.log == ["+a", "!b", "+b"]


async def test_a_child_that_never_says_started_times_out() -> None:
    async def silent(_started: Started) -> None:
        await asyncio.get_running_loop().create_future()

    async with Supervisor("test") as root:
        with pytest.raises(ChildStartFailed, match=r"within 0\.01 s"):
            await root.start(ChildSpec.task("silent", silent, start_timeout=0.01))

        assert "silent" not in root


async def test_a_task_may_do_one_thing_and_be_done() -> None:
    async def migrate(_started: Started) -> None:
        pass

    async with Supervisor("test") as root:
        ref = await root.start(ChildSpec.task("migrate", migrate, restart=Restart.TRANSIENT))

        assert await ref.wait() == Normal()
        assert root.snapshot().children[0].state == "finished"
        await root.start(ChildSpec.task("migrate", migrate, restart=Restart.TRANSIENT))


async def test_a_caller_that_leaves_takes_its_child_with_it() -> None:
    stage = Stage()
    ready = asyncio.Event()

    async def slow(started: Started) -> None:
        await ready.wait()
        started()
        await stage.task("slow")(started)

    async with Supervisor("test") as root:
        starting = asyncio.create_task(root.start(ChildSpec.task("slow", slow)))
        await asyncio.sleep(0)
        starting.cancel()
        await asyncio.wait((starting,))
        ready.set()
        await root.start(stage.child("next"))

        assert "slow" not in root


async def test_a_stopped_child_is_cancelled_and_not_restarted() -> None:
    stage = Stage()
    async with Supervisor("test", children=[stage.child("a"), stage.child("b")]) as root:
        assert await root.stop("a") == Shutdown()

        assert stage.log == ["+a", "+b", "-a"]
        with pytest.raises(NoSuchChild):
            await root.stop("a")


async def test_a_task_can_be_stopped_by_its_ref() -> None:
    stage = Stage()
    async with Supervisor("test") as root:
        ref = await root.start(stage.child("a"))
        ref.stop()

        assert await ref.wait() == Shutdown()
        assert stage.log == ["+a", "-a"]


async def test_two_children_cannot_have_one_name() -> None:
    stage = Stage()
    async with Supervisor("test", children=[stage.child("a")]) as root:
        with pytest.raises(NameTaken):
            await root.start(stage.child("a"))


async def test_a_supervisor_that_does_not_run_starts_nothing() -> None:
    stage = Stage()
    root = Supervisor("test")
    with pytest.raises(SupervisorNotRunning):
        await root.start(stage.child("a"))
    async with root:
        with pytest.raises(SupervisorNotRunning):
            await root.run(lambda: None)

    with pytest.raises(SupervisorNotRunning):
        await root.start(stage.child("a"))


async def test_a_start_that_waits_while_the_supervisor_stops_is_refused() -> None:
    async def silent(_started: Started) -> None:
        await asyncio.get_running_loop().create_future()

    stage = Stage()
    async with Supervisor("test") as root:
        first = asyncio.create_task(root.start(ChildSpec.task("silent", silent)))
        second = asyncio.create_task(root.start(stage.child("a")))
        await asyncio.sleep(0)

    for waiting in (first, second):
        with pytest.raises((SupervisorNotRunning, ChildStartFailed)):
            await waiting
    assert stage.log == []


async def test_a_supervisor_can_be_run_again() -> None:
    stage = Stage()
    root = Supervisor("test", children=[stage.child("a")])
    for _ in range(2):
        async with root:
            pass

    assert stage.log == ["+a", "-a", "+a", "-a"]


async def test_an_exception_of_the_body_stops_the_children_and_passes() -> None:
    stage = Stage()
    with pytest.raises(KeyError):
        async with Supervisor("test", children=[stage.child("a")]):
            raise KeyError("body")

    assert stage.log == ["+a", "-a"]


async def test_a_nested_supervisor_is_one_child_among_others() -> None:
    stage = Stage()
    inner = Supervisor("inner", children=[stage.child("b"), stage.child("c")])
    jobs = DynamicSupervisor("jobs")
    children: list[ChildSpec[Never]] = [
        stage.child("a"),
        ChildSpec.nested(inner),
        ChildSpec.nested(jobs),
        stage.child("d"),
    ]
    async with Supervisor("outer", children=children):
        child = jobs.spawn("job", forever)

        assert stage.take_log() == ["+a", "+b", "+c", "+d"]

    assert child.exit == Shutdown()
    assert stage.log == ["-d", "-c", "-b", "-a"]


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


async def test_a_child_that_leaves_by_a_known_door_has_not_crashed() -> None:
    class Leaving(BaseException): ...

    stage = Stage()
    async with Supervisor("test", stopped_by=(Leaving,)) as root:
        ref = await root.start(stage.child("a"))
        stage.crash("a", Leaving())

        assert isinstance(await ref.wait(), Stopped)
        assert root.restarts == 0


async def test_a_cancellation_from_elsewhere_is_a_crash() -> None:
    tasks: list[asyncio.Task[object] | None] = []

    async def run(started: Started) -> None:
        tasks.append(asyncio.current_task())
        started()
        await forever()

    async with Supervisor("test") as root:
        ref = await root.start(ChildSpec.task("a", run, restart=Restart.TEMPORARY))
        assert tasks[0] is not None
        tasks[0].cancel()

        exit = await ref.wait()

        assert isinstance(exit, Crashed)
        assert isinstance(exit.error, asyncio.CancelledError)
        await until(root, lambda: len(root) == 0)


async def test_a_finished_child_started_again_is_the_last_one() -> None:
    stage = Stage()
    async with Supervisor("test", children=[stage.child("a", Restart.TRANSIENT), stage.child("b")]) as root:
        stage.finish("a")
        await until(root, lambda: root.snapshot().running == 1)
        await root.start(stage.child("a"))
        stage.take_log()

    assert stage.log == ["-a", "-b"]


async def test_a_child_does_not_see_the_context_variables_of_whoever_starts_it() -> None:
    request: contextvars.ContextVar[str] = contextvars.ContextVar("request")
    seen: list[str | None] = []

    async def run(started: Started) -> None:
        seen.append(request.get(None))
        started()

    request.set("of the caller")
    async with Supervisor("test", children=[ChildSpec.task("a", run, restart=Restart.TRANSIENT)]) as root:
        await root.start(ChildSpec.task("b", run, restart=Restart.TRANSIENT))

    assert seen == [None, None]
