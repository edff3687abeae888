"""The tree as plain data."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict

from actors import Actor, ChildSpec, DynamicSupervisor, Intensity, Strategy, Supervisor
from actors.state import ChildState
from actors.testing import ManualClock, until, until_state
from tests.actors.stage import STEADY, Stage


class Quiet(Actor[str]):
    async def receive(self, message: str) -> None:
        await asyncio.get_running_loop().create_future()


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


async def crash() -> None:
    raise ValueError("boom")


async def test_a_snapshot_describes_the_whole_tree_and_is_json() -> None:
    stage, clock = Stage(), ManualClock()
    jobs = DynamicSupervisor("jobs", backoff=STEADY, clock=clock)
    root = Supervisor(
        "shop",
        strategy=Strategy.REST_FOR_ONE,
        children=[ChildSpec.nested(jobs), stage.child("listener")],
        intensity=Intensity(5, 60),
        clock=clock,
    )
    async with root:
        ref = await root.start(ChildSpec("quiet", Quiet))
        await root.stop("quiet")
        ref = await root.start(ChildSpec("quiet", Quiet))
        ref.tell_nowait("in hand")
        await asyncio.sleep(0)
        ref.tell_nowait("waiting")
        jobs.spawn("steady", forever)
        jobs.spawn("shaky", crash)
        await until(jobs, lambda: jobs.restarting == 1)
        clock.advance(0.25)

        snapshot = root.snapshot()

        assert json.loads(json.dumps(asdict(snapshot))) == {
            "name": "shop",
            "strategy": "rest_for_one",
            "state": "running",
            "dynamic": False,
            "running": 3,
            "restarting": 0,
            "zombies": 0,
            "restarts": 0,
            "restarts_in_window": 0,
            "restarts_allowed": 5,
            "period_seconds": 60,
            "uptime_seconds": 0.25,
            "omitted": 0,
            "children": [
                {
                    "name": "jobs",
                    "state": "running",
                    "restart": "permanent",
                    "restarts": 0,
                    "last_exit": None,
                    "last_error": None,
                    "uptime_seconds": 0.25,
                    "restart_in_seconds": None,
                    "mailbox_depth": None,
                    "tree": {
                        "name": "jobs",
                        "strategy": "one_for_one",
                        "state": "running",
                        "dynamic": True,
                        "running": 1,
                        "restarting": 1,
                        "zombies": 0,
                        "restarts": 0,
                        "restarts_in_window": 1,
                        "restarts_allowed": 20,
                        "period_seconds": 60.0,
                        "uptime_seconds": 0.25,
                        "omitted": 0,
                        "children": [
                            {
                                "name": "shaky",
                                "state": "restarting",
                                "restart": "transient",
                                "restarts": 0,
                                "last_exit": "crashed: ValueError",
                                "last_error": "boom",
                                "uptime_seconds": None,
                                "restart_in_seconds": 0.75,
                                "mailbox_depth": None,
                                "tree": None,
                            },
                            {
                                "name": "steady",
                                "state": "running",
                                "restart": "transient",
                                "restarts": 0,
                                "last_exit": None,
                                "last_error": None,
                                "uptime_seconds": 0.25,
                                "restart_in_seconds": None,
                                "mailbox_depth": None,
                                "tree": None,
                            },
                        ],
                    },
                },
                {
                    "name": "listener",
                    "state": "running",
                    "restart": "permanent",
                    "restarts": 0,
                    "last_exit": None,
                    "last_error": None,
                    "uptime_seconds": 0.25,
                    "restart_in_seconds": None,
                    "mailbox_depth": None,
                    "tree": None,
                },
                {
                    "name": "quiet",
                    "state": "running",
                    "restart": "permanent",
                    "restarts": 0,
                    "last_exit": None,
                    "last_error": None,
                    "uptime_seconds": 0.25,
                    "restart_in_seconds": None,
                    "mailbox_depth": 1,
                    "tree": None,
                },
            ],
        }


async def test_of_many_dynamic_children_those_in_trouble_come_first_and_the_rest_is_counted() -> None:
    clock = ManualClock()
    async with DynamicSupervisor("jobs", backoff=STEADY, clock=clock) as jobs:
        for number in range(10):
            jobs.spawn(str(number), forever)
        jobs.spawn("shaky", crash)
        await until(jobs, lambda: jobs.restarting == 1)

        snapshot = jobs.snapshot(limit=3)

        assert [child.name for child in snapshot.children] == ["shaky", "0", "1"]
        assert (snapshot.running, snapshot.restarting, snapshot.omitted) == (10, 1, 8)


async def test_a_pause_is_shown_with_what_is_left_of_it() -> None:
    stage, clock = Stage(), ManualClock()
    async with Supervisor("test", children=[stage.child("a")], clock=clock) as root:
        stage.crash("a")
        await until_state(root, "a", ChildState.RESTARTING)
        await until(root, lambda: clock.pending != [])
        clock.advance(0.4)

        (child,) = root.snapshot().children

        assert child.restart_in_seconds == 0.6
        assert child.uptime_seconds is None
        assert repr(root) == "<Supervisor test one_for_one: 0 running, 1 restarting, 1/3 restarts in 5 s>"
