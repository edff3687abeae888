"""When many workflows of one name crash, no more of that name are brought to life until one that is tried does not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

import operon
from operon import Status
from operon.database import suspensions, testbed, workflows
from operon.runtime.events import Kind
from operon.testing import TestRuntime
from tests.acceptance.facts import until as came
from tests.guarantees.executors.process import executor, private_database
from tests.guarantees.executors.process import until as until_true
from tests.supervision.facts import get, until_event

MANY = 3
SUSPENDED = "select name, crashes, tries from operon.suspensions"
WAITING = "select count(*) from operon.workflows where name like '%breaks' and status = 0 and wait_kind is not null"
PAUSE_SECONDS = suspensions.FIRST_PAUSE_SECONDS


class Cause:
    """What makes workflows crash, and who has run."""

    def __init__(self) -> None:
        self.mended = False
        self.ran: list[UUID] = []


cause = Cause()


@operon.workflow
async def breaks(ctx: operon.WorkflowContext, message: bool = False) -> str:
    """Crashes after its first step, or when its message has come."""
    ctx.now()
    if message:
        await ctx.recv("topic")
    cause.ran.append(ctx.workflow_uuid)
    if not cause.mended:
        raise MemoryError("no more")
    return "mended"


@operon.workflow
async def healthy(ctx: operon.WorkflowContext) -> str:
    return str(await ctx.recv("topic"))


@operon.workflow
async def parent(ctx: operon.WorkflowContext) -> str:
    child = await breaks(ctx)
    return await child.get_result()


@pytest.fixture
async def runtime(anyio_backend: str) -> AsyncIterator[TestRuntime]:
    cause.mended, cause.ran = False, []
    # Who leaves memory here is told to.
    async with TestRuntime(__name__, poll_seconds=0.1, suspend_after=MANY, park_after_seconds=600) as runtime:
        # The next life is far off, so that whoever runs was let through.
        runtime.executor.incarnation.jitter = lambda: 1.0
        yield runtime


async def suspended(runtime: TestRuntime) -> list[operon.WorkflowHandle[str]]:
    """So many crash that their name is suspended, here and in the memory of the executor."""
    handles = [await breaks(runtime.context) for _ in range(MANY)]
    await until_event(runtime, Kind.SUSPENDED)
    await runtime.settled()
    return handles


async def test_many_crashes_of_one_name_suspend_it_and_what_is_started_waits(runtime: TestRuntime) -> None:
    await suspended(runtime)
    lives = len(cause.ran)

    handles = [await breaks(runtime.context), await breaks(runtime.context_of(workflow_uuid=uuid4()))]
    await runtime.settled()

    assert [tuple(row) for row in await runtime.fetch(SUSPENDED)] == [("breaks", MANY, 0)]
    assert len(cause.ran) == lives
    statuses = [await handle.get_status() for handle in handles]
    assert [status and status.status for status in statuses] == [Status.PENDING] * 2
    assert await runtime.fetchval(WAITING) == MANY + 2


async def test_what_is_started_by_a_parent_or_from_sql_waits_too_and_all_go_on_when_one_has_passed(
    runtime: TestRuntime,
) -> None:
    broken = await suspended(runtime)
    started = await runtime.fetchval("select operon.start('breaks')")
    handles = [*broken, await parent(runtime.context), runtime.context.retrieve_workflow(started)]
    await runtime.settled()

    cause.mended = True
    await runtime.advance(seconds=PAUSE_SECONDS)

    assert [await handle.get_result(timeout=60) for handle in handles] == ["mended"] * (MANY + 2)
    assert await runtime.fetch(SUSPENDED) == []
    assert "did not crash" in (await until_event(runtime, Kind.LIFTED))["text"]


async def test_one_is_tried_at_a_time_and_after_each_that_crashes_the_pause_is_longer(runtime: TestRuntime) -> None:
    await suspended(runtime)
    for _ in range(3):
        await breaks(runtime.context)
    tried: list[int] = []

    for trial in range(4):
        lives = len(cause.ran)
        await runtime.advance(seconds=PAUSE_SECONDS * 2**trial)
        await until_true(runtime.database_url, "select tries = $1 from operon.suspensions", trial + 1)
        await runtime.settled()
        tried.append(len(cause.ran) - lives)

    assert tried == [1, 1, 1, 1]


async def test_what_lives_goes_on_and_what_is_parked_stays_parked(runtime: TestRuntime) -> None:
    live, other = await breaks(runtime.context, message=True), await healthy(runtime.context)
    parked = await breaks(runtime.context, message=True)
    await runtime.settled()
    await park(runtime, parked.workflow_uuid)
    await suspended(runtime)
    lives = len(cause.ran)
    cause.mended = True

    for handle in (live, other, parked):
        await runtime.context.send(handle.workflow_uuid, "m", "topic")

    assert await live.get_result(timeout=60) == "mended"
    assert await other.get_result(timeout=60) == "m"
    await runtime.settled()
    assert cause.ran[lives:] == [live.workflow_uuid]
    assert (await why(runtime, parked.workflow_uuid))["code"] == "suspended"
    await runtime.advance(seconds=PAUSE_SECONDS)
    assert await parked.get_result(timeout=60) == "mended"


async def test_one_that_waits_before_the_place_where_the_others_crashed_proves_nothing(runtime: TestRuntime) -> None:
    for handle in await suspended(runtime):
        await handle.cancel()
    patient = await breaks(runtime.context, message=True)

    await runtime.advance(seconds=PAUSE_SECONDS)
    await until_true(runtime.database_url, "select tries = 1 from operon.suspensions")
    await runtime.settled()

    assert [row["name"] for row in await runtime.fetch(SUSPENDED)] == ["breaks"]
    cause.mended = True
    await runtime.context.send(patient.workflow_uuid, "m", "topic")
    assert await patient.get_result(timeout=60) == "mended"
    await until_event(runtime, Kind.LIFTED)


async def test_one_that_gets_further_than_the_others_and_crashes_there_proves_nothing(runtime: TestRuntime) -> None:
    for handle in await suspended(runtime):
        await handle.cancel()
    patient = await breaks(runtime.context, message=True)
    await runtime.context.send(patient.workflow_uuid, "m", "topic")

    await runtime.advance(seconds=PAUSE_SECONDS)
    await came(lambda: patient.workflow_uuid in cause.ran)
    await runtime.settled()

    assert [tuple(row)[::2] for row in await runtime.fetch(SUSPENDED)] == [("breaks", 1)]


async def test_a_canary_has_not_passed_while_its_crash_is_being_recorded(
    runtime: TestRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    for handle in await suspended(runtime):
        await handle.cancel()
    patient = await breaks(runtime.context, message=True)
    await runtime.context.send(patient.workflow_uuid, "m", "topic")
    records, may_record = asyncio.Event(), asyncio.Event()
    crashed = workflows.crashed

    async def slowly(*args: Any) -> workflows.Crashes | None:
        records.set()
        await may_record.wait()
        return await crashed(*args)

    monkeypatch.setattr(workflows, "crashed", slowly)
    advancing = asyncio.create_task(runtime.advance(seconds=PAUSE_SECONDS))
    await records.wait()
    activator = runtime.executor.incarnation.activator
    activator.ring()
    await came(lambda: not activator.busy)
    still = [tuple(row)[::2] for row in await runtime.fetch(SUSPENDED)]
    may_record.set()
    await advancing

    assert still == [("breaks", 1)]


async def test_one_that_comes_back_and_crashes_in_the_same_moment_proves_nothing(runtime: TestRuntime) -> None:
    patient = await breaks(runtime.context, message=True)
    await runtime.settled()
    await park(runtime, patient.workflow_uuid)
    for handle in await suspended(runtime):
        await handle.cancel()
    await runtime.context.send(patient.workflow_uuid, "m", "topic")

    await runtime.advance(seconds=PAUSE_SECONDS)
    await came(lambda: patient.workflow_uuid in cause.ran)
    await runtime.settled()

    assert [tuple(row)[::2] for row in await runtime.fetch(SUSPENDED)] == [("breaks", 1)]


async def test_a_suspended_name_is_degraded_and_its_workflows_say_why_they_wait(runtime: TestRuntime) -> None:
    await suspended(runtime)
    handle = await breaks(runtime.context)

    answer = await get(runtime)

    assert [(each["name"], each["crashes"]) for each in answer["suspended"]] == [("breaks", MANY)]
    (name,) = [node for node in nodes(answer["executors"][0]["tree"]) if node["state"] == "degraded"]
    assert (name["name"], name["kind"], name["backoff_until"]) == ("breaks", "name", answer["suspended"][0]["until"])
    assert name["intensity"] == {"used": MANY, "allowed": MANY, "window_seconds": 60.0}
    text = (await why(runtime, handle.workflow_uuid))["text"]
    assert text.startswith("`breaks` is suspended for ")
    assert f"{MANY} workflows crashed. The canary tries at " in text


async def test_names_are_never_suspended_where_the_setting_says_so() -> None:
    cause.mended, cause.ran = False, []
    async with TestRuntime(__name__, suspend_after=0, crash_budget=0) as runtime:
        handles = [await breaks(runtime.context) for _ in range(MANY)]

        for handle in handles:
            with pytest.raises(operon.WorkflowDeadError):
                await handle.get_result(timeout=60)

        assert await runtime.fetchval("select count(*) from operon.crashers") == 0


async def test_every_executor_holds_them_and_one_of_all_tries(runtime: TestRuntime) -> None:
    async with operon.Operon(
        __name__, database_url=runtime.database_url, poll_seconds=0.1, suspend_after=MANY
    ) as other:
        await suspended(runtime)
        await came(lambda: other.executor.incarnation.suspensions.holds("breaks"))
        lives = len(cause.ran)
        handles = [await breaks(app.context()) for app in (other, runtime.app) for _ in range(3)]
        await runtime.settled()
        assert len(cause.ran) == lives

        await runtime.advance(seconds=PAUSE_SECONDS)
        await until_true(runtime.database_url, "select tries = 1 from operon.suspensions")
        await came(lambda: len(cause.ran) > lives)
        one = len(cause.ran) - lives
        cause.mended = True
        await runtime.advance(seconds=2 * PAUSE_SECONDS)

        assert one == 1
        assert [await handle.get_result(timeout=60) for handle in handles] == ["mended"] * 6
    assert await runtime.fetch(SUSPENDED) == []


async def test_of_any_number_that_want_to_try_at_once_one_may(runtime: TestRuntime) -> None:
    await suspended(runtime)
    await runtime.execute("update operon.suspensions set until = operon.clock()")
    look_ups = runtime.executor.look_ups

    trials = await asyncio.gather(*(look_ups.ask(lambda c: suspensions.try_one(c, "breaks")) for _ in range(5)))

    assert sum(trial is not None for trial in trials) <= 1  # none, if the executor was quicker
    assert await runtime.fetchval("select tries from operon.suspensions") == 1


@pytest.mark.long
async def test_a_suspension_outlives_who_suspended_and_one_executor_tries_for_all(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CROWD_FOLDER", str(tmp_path))
    log, mended = tmp_path / "ran", tmp_path / "mended"
    settings = {"suspend_after": MANY, "park_after_seconds": 0, "poll_seconds": 0.2}
    async with (
        private_database() as url,
        executor(url, 0, "crowd", **settings) as first,
        executor(url, 0, "crowd", **settings) as second,
    ):
        (parked,) = await first.post("/waits/1")
        await until_true(url, "select wait_kind = 0 from operon.workflows where workflow_uuid = $1", UUID(parked))
        await first.post("/breaks/5")
        await until_true(url, "select count(*) = 1 from operon.suspensions")
        first.kill()
        await first.ended()

        started = await second.post("/breaks/5")
        await second.post(f"/messages/{parked}")
        await until_true(url, "select tries >= 1 from operon.suspensions")
        lines = log.read_text().split()
        rows = await testbed.fetch(url, "select workflow_uuid from operon.workflows where status <> 0")
        mended.touch()

        await until_true(url, "select bool_and(status = 1) from operon.workflows")
        assert rows == []
        # Of all that was started when it was suspended, one at most has run: the canary.
        assert len({parked, *started} & set(lines)) <= 1
        await until_true(url, "select count(*) = 1 from operon.supervision_events where kind = 'lifted'")


def nodes(tree: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A tree, and all below it."""
    yield tree
    for child in tree.get("children", ()):
        yield from nodes(child)


async def park(runtime: TestRuntime, workflow_uuid: UUID) -> None:
    """Has a workflow that waits leave memory."""
    incarnation = runtime.executor.incarnation
    incarnation.parker._park(incarnation.live[workflow_uuid])  # pyright: ignore[reportPrivateUsage]
    await came(lambda: workflow_uuid not in incarnation.live)


async def why(runtime: TestRuntime, workflow_uuid: UUID) -> Any:
    return (await get(runtime, uuid=workflow_uuid))["workflow"]["why"]
