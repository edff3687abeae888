"""A child that swallows its cancellation is given up, listed, and kept until it ends."""

from __future__ import annotations

import asyncio
import logging

import pytest

from actors import ChildSpec, Event, Happening, Started, Strategy, Supervisor, Zombie
from actors.testing import ManualClock, until, until_restarted
from tests.actors.stage import AT_ONCE, Stage


class Stubborn:
    """Runs until the end of its `with` block, or until it is released, whatever anybody says."""

    def __init__(self) -> None:
        self.release = asyncio.Event()
        self.lives = 0

    def __enter__(self) -> Stubborn:
        return self

    def __exit__(self, *_: object) -> None:
        self.release.set()  # also when the test fails: the loop could not be closed otherwise

    async def run(self, started: Started) -> None:
        self.lives += 1
        started()
        while not self.release.is_set():
            try:
                await self.release.wait()
            except asyncio.CancelledError:
                continue


async def test_a_child_that_does_not_stop_becomes_a_zombie_until_it_ends(caplog: pytest.LogCaptureFixture) -> None:
    events: list[Event] = []
    with Stubborn() as stubborn:
        async with Supervisor("test") as root:
            root.observe(events.append)
            ref = await root.start(ChildSpec.task("a", stubborn.run, stop_timeout=0.01))

            with caplog.at_level(logging.ERROR, "actors"):
                assert await root.stop("a") == Zombie(0.01)

            assert "> Stubborn.run:" in caplog.records[-1].__dict__["stack"]
            assert ref.exit == Zombie(0.01)
            assert "a" not in root
            snapshot = root.snapshot()
            assert (snapshot.zombies, [child.state for child in snapshot.children]) == (1, ["zombie"])
            assert repr(root) == "<Supervisor test one_for_one: 0 running, 1 zombies, 0/3 restarts in 5 s>"
            stubborn.release.set()
            await until(root, lambda: root.snapshot().zombies == 0)

    assert [event.happening for event in events if event.path[-1] == "a"] == [
        Happening.STARTED,
        Happening.ZOMBIE,
        Happening.FINISHED,
        Happening.BURIED,
    ]


async def test_stopping_goes_on_past_a_zombie() -> None:
    stage = Stage()
    with Stubborn() as stubborn:
        async with Supervisor("test", children=[stage.child("a")]) as root:
            await root.start(ChildSpec.task("stubborn", stubborn.run, stop_timeout=0.01))
            await root.start(stage.child("b"))

        assert stage.log == ["+a", "+b", "-b", "-a"]
        assert root.snapshot().zombies == 1
        stubborn.release.set()
        await until(root, lambda: root.snapshot().zombies == 0)


async def test_a_group_comes_back_without_waiting_for_its_zombie_whose_end_is_no_news() -> None:
    stage, clock = Stage(), ManualClock()
    with Stubborn() as stubborn:
        children = [
            stage.child("a", backoff=AT_ONCE),
            ChildSpec.task("stubborn", stubborn.run, stop_timeout=0.01),
        ]
        async with Supervisor("test", children=children, strategy=Strategy.ONE_FOR_ALL, clock=clock) as root:
            stage.crash("a")
            await until(root, lambda: clock.pending == [0.0])
            clock.advance(0)
            await until_restarted(root, "stubborn")
            assert stubborn.lives == 2
            assert root.snapshot().zombies == 1

            stubborn.release.set()
            await until(root, lambda: root.snapshot().zombies == 0)
