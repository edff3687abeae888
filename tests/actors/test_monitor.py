"""One Down for each monitor: when the end comes, or at once if it has come."""

from __future__ import annotations

import asyncio
import logging

import pytest

from actors import (
    Actor,
    ChildSpec,
    Crashed,
    Down,
    DynamicSupervisor,
    MemoryMailbox,
    Monitor,
    Restart,
    Shutdown,
    Supervisor,
)
from actors.testing import ManualClock, until, until_restarted
from tests.actors.stage import Stage


async def test_an_end_is_told_once_and_a_restart_is_not_an_end() -> None:
    stage, clock = Stage(), ManualClock()
    downs: list[Down] = []
    async with Supervisor("test", clock=clock) as root:
        ref = await root.start(stage.child("a"))
        Monitor(ref, downs.append)
        stage.crash("a")
        await until(root, lambda: clock.pending != [])
        clock.advance(1)
        await until_restarted(root, "a")
        assert downs == []

        await root.stop("a")

        assert downs == [Down("a", Shutdown())]
    assert len(downs) == 1


async def test_watching_the_dead_is_answered_at_once() -> None:
    stage = Stage()
    downs: list[Down] = []
    async with Supervisor("test") as root:
        ref = await root.start(stage.child("a", Restart.TEMPORARY))
        error = ValueError("gone")
        stage.crash("a", error)
        await ref.wait()

        Monitor(ref, downs.append)

        assert downs == [Down("a", Crashed(error))]


async def test_a_cancelled_monitor_is_silent() -> None:
    stage = Stage()
    downs: list[Down] = []
    async with Supervisor("test") as root:
        ref = await root.start(stage.child("a"))
        Monitor(ref, downs.append).cancel()

    assert downs == []


async def test_dynamic_children_can_be_watched() -> None:
    downs: list[Down] = []

    async def nothing() -> None: ...

    async with DynamicSupervisor("jobs") as jobs:
        child = jobs.spawn("a", nothing)
        Monitor(child, downs.append)
        await child.wait()

    assert [down.name for down in downs] == ["a"]


async def test_an_actor_hears_of_an_end_although_its_mailbox_is_full() -> None:
    heard: asyncio.Queue[Down | str] = asyncio.Queue()
    go = asyncio.Event()

    class Watcher(Actor[Down | str]):
        async def receive(self, message: Down | str) -> None:
            await go.wait()
            heard.put_nowait(message)

    stage = Stage()
    async with Supervisor("test") as root:
        watched = await root.start(stage.child("a"))
        watcher = await root.start(ChildSpec("watcher", Watcher, mailbox=lambda: MemoryMailbox[Down | str](limit=1)))
        Monitor(watched, watcher.notify)
        watcher.tell_nowait("fills it")

        await root.stop("a")
        go.set()

        assert [await heard.get(), await heard.get()] == ["fills it", Down("a", Shutdown())]


async def test_a_watcher_that_raises_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    def broken(_down: Down) -> None:
        raise RuntimeError

    downs: list[Down] = []
    stage = Stage()
    async with Supervisor("test") as root:
        ref = await root.start(stage.child("a"))
        Monitor(ref, broken)
        Monitor(ref, downs.append)
        with caplog.at_level(logging.ERROR, "actors"):
            await root.stop("a")

    assert len(downs) == 1
    assert [record.message for record in caplog.records] == ["a watcher raised"]


async def test_a_waiter_that_leaves_takes_nobody_with_it() -> None:
    stage = Stage()
    async with Supervisor("test") as root:
        ref = await root.start(stage.child("a"))
        leaving, staying = asyncio.create_task(ref.wait()), asyncio.create_task(ref.wait())
        await asyncio.sleep(0)
        leaving.cancel()
        await root.stop("a")

        assert await staying == Shutdown()
