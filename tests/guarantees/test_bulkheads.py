"""Promise: a name is a bulkhead. It has as many live workflows as it may, and what befalls it befalls no other name."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Collection
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

import operon
from operon import Status
from operon.database import checkpoints
from operon.database.connection import Connection
from operon.testing import TestRuntime
from tests.acceptance.facts import until as came
from tests.guarantees.executors.process import executor, private_database
from tests.guarantees.executors.process import until as until_true
from tests.supervision.facts import get

ROOM = 4
LINES = 20
HELD = "select count(*) from operon.workflows where status = 0 and owner is null"
UNFINISHED = "select count(*) from operon.workflows where status <> 1"


class Ward:
    """Who is in it now, how many there were at a time, and what was done."""

    def __init__(self) -> None:
        self.inside = 0
        self.most = 0
        self.done: Counter[UUID] = Counter()
        self.order: list[int] = []
        self.gate = asyncio.Event()

    async def visit(self, workflow_uuid: UUID) -> None:
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            await self.gate.wait()
        finally:
            self.inside -= 1
        self.done[workflow_uuid] += 1


ward = Ward()


@operon.communicator
async def visits(ctx: operon.CommunicatorContext, workflow_uuid: UUID) -> None:
    await ward.visit(workflow_uuid)


@operon.communicator
async def notes(ctx: operon.CommunicatorContext, number: int) -> None:
    ward.order.append(number)


@operon.workflow(max_live=ROOM)
async def crowded(ctx: operon.WorkflowContext, number: int = 0) -> int:
    await notes(ctx, number)
    await visits(ctx, ctx.workflow_uuid)
    return number


@operon.workflow(max_live=ROOM)
async def patient(ctx: operon.WorkflowContext) -> str:
    message = str(await ctx.recv("topic", 3600))
    await visits(ctx, ctx.workflow_uuid)
    return message


@operon.workflow(max_live=1)
async def alone(ctx: operon.WorkflowContext) -> None:
    await visits(ctx, ctx.workflow_uuid)


@operon.workflow(max_live=1)
async def nested(ctx: operon.WorkflowContext, depth: int) -> int:
    return 0 if not depth else 1 + await (await nested(ctx, depth - 1)).get_result()


@operon.initializer
async def tables(ctx: operon.InitializerContext) -> None:
    await ctx.client.execute("create table if not exists ledger (workflow_uuid uuid, line text)")


@operon.transaction
async def book(tx: operon.TransactionContext, line: str) -> None:
    await tx.client.execute("insert into ledger values ($1, $2)", tx.workflow_uuid, line)


@operon.workflow(max_live=ROOM)
async def books(ctx: operon.WorkflowContext) -> int:
    lines = 0
    for lines in range(1, LINES + 1):
        try:
            await asyncio.gather(book(ctx, f"{lines} first"), book(ctx, f"{lines} second"))
        finally:  # also when it is taken down: then this must not be recorded
            await ctx.execute("insert into ledger values ($1, $2)", ctx.workflow_uuid, f"{lines} last")
    return lines


@operon.workflow
async def free(ctx: operon.WorkflowContext) -> str:
    return "free"


@operon.workflow
async def steady(ctx: operon.WorkflowContext) -> None:
    await visits(ctx, ctx.workflow_uuid)
    await visits(ctx, ctx.workflow_uuid)


@pytest.fixture(params=[1, 0], ids=["in memory", "parked at every wait"])
async def runtime(anyio_backend: str, request: pytest.FixtureRequest) -> AsyncIterator[TestRuntime]:
    ward.__init__()  # type: ignore[misc]  # pyright: ignore
    async with TestRuntime(__name__, park_after_seconds=600 * request.param, poll_seconds=600) as runtime:
        yield runtime


def most_live(*apps: operon.Operon) -> int:
    """How many of the crowded name live where most do."""
    return max(len(app.executor.incarnation.crowds.by_name["crowded"]) for app in apps)


async def test_at_most_so_many_live_in_each_executor_and_all_finish() -> None:
    ward.__init__()  # type: ignore[misc]  # pyright: ignore
    async with (
        TestRuntime(__name__, poll_seconds=0.2) as runtime,
        operon.Operon(__name__, database_url=runtime.database_url, poll_seconds=0.2) as other,
    ):
        apps = runtime.app, other
        handles = [await crowded(app.context(), number) for number in range(100) for app in apps]
        handles += [await crowded(runtime.context_of(workflow_uuid=uuid4())) for _ in range(5)]
        await came(lambda: ward.inside == 2 * ROOM)
        unhindered = [await (await free(app.context())).get_result(timeout=60) for app in apps]
        at_once = most_live(*apps)
        ward.gate.set()

        results = [await handle.get_result(timeout=120) for handle in handles]

        assert results == [number for number in range(100) for _ in apps] + [0] * 5
        assert unhindered == ["free", "free"]
        assert (at_once, ward.most) == (ROOM, 2 * ROOM)
        assert set(ward.done.values()) == {1}
        assert await runtime.fetchval(UNFINISHED) == 0


async def test_who_ends_makes_room_for_the_oldest_without_a_poll(runtime: TestRuntime) -> None:
    handles = [await crowded(runtime.context, number) for number in range(5 * ROOM)]
    await until_true(runtime.database_url, f"select ({HELD}) = $1", 4 * ROOM)
    ward.gate.set()

    assert [await handle.get_result(timeout=60) for handle in handles] == list(range(5 * ROOM))
    assert ward.most <= ROOM
    # Whoever comes in together does its first step in any order.
    assert all(abs(number - place) < 2 * ROOM for place, number in enumerate(ward.order))


async def test_another_executor_that_has_room_takes_what_is_held_back(runtime: TestRuntime) -> None:
    for _ in range(ROOM):
        await crowded(runtime.context)
    await came(lambda: ward.inside == ROOM)
    held = [await crowded(runtime.context) for _ in range(ROOM)]

    async with operon.Operon(__name__, database_url=runtime.database_url, poll_seconds=0.2) as other:
        await came(lambda: ward.inside == 2 * ROOM)

        assert set(other.executor.incarnation.live) == {handle.workflow_uuid for handle in held}
        ward.gate.set()
        for handle in held:
            await handle.get_result(timeout=60)


async def test_room_is_kept_for_who_is_being_read_from_the_database(
    runtime: TestRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads, may_read = asyncio.Event(), asyncio.Event()
    history = checkpoints.history

    async def slowly(connection: Connection, workflows: Collection[UUID]) -> dict[UUID, list[checkpoints.Checkpoint]]:
        reads.set()
        await may_read.wait()
        return await history(connection, workflows)

    monkeypatch.setattr(checkpoints, "history", slowly)
    handles = [await alone(runtime.context) for _ in range(2)]
    ward.gate.set()
    await reads.wait()
    ward.gate.clear()

    handles.append(await alone(runtime.context))
    may_read.set()
    live = runtime.executor.incarnation.live
    await came(lambda: (actor := live.get(handles[1].workflow_uuid)) is not None and actor.under_way is not None)
    await came(lambda: ward.inside > 0)
    ward.gate.set()

    for handle in handles:
        await handle.get_result(timeout=60)
    assert ward.most == 1


async def test_a_parent_that_waits_for_children_of_its_own_full_name_finishes(runtime: TestRuntime) -> None:
    handle = await nested(runtime.context, 5)

    assert await handle.get_result(timeout=60) == 5


async def test_who_only_waits_leaves_a_full_name_and_comes_back_when_there_is_room(runtime: TestRuntime) -> None:
    incarnation = runtime.executor.incarnation
    handles = [await patient(runtime.context) for _ in range(3 * ROOM)]
    await came(lambda: incarnation.parker.away + len(incarnation.live) == 3 * ROOM and incarnation.resting)

    assert incarnation.parker.away > 2 * ROOM  # who waits when there is room may stay
    for handle in handles:
        await runtime.context.send(handle.workflow_uuid, "m", "topic")
    await came(lambda: ward.inside == ROOM)
    ward.gate.set()

    assert [await handle.get_result(timeout=60) for handle in handles] == ["m"] * (3 * ROOM)
    assert ward.most == ROOM
    assert set(ward.done.values()) == {1}


async def test_one_that_is_held_back_says_so_and_its_name_shows_the_limit(runtime: TestRuntime) -> None:
    for _ in range(ROOM):
        await crowded(runtime.context)
    held = await crowded(runtime.context)
    await until_true(runtime.database_url, f"select ({HELD}) = 1")

    answer = await get(runtime, uuid=held.workflow_uuid)

    (node,) = [each for each in names_of(answer) if each["name"] == "crowded"]
    assert (node["kind"], node["state"], node["running"], node["allowed"]) == ("name", "running", ROOM, ROOM)
    why = answer["workflow"]["why"]
    assert why["code"] == "no_slot"
    assert f"`crowded` is at its limit of {ROOM} live workflows in an executor." in why["text"]
    ward.gate.set()
    await held.get_result(timeout=60)


async def test_one_that_is_held_back_can_be_cancelled(runtime: TestRuntime) -> None:
    for _ in range(ROOM):
        await crowded(runtime.context)
    held = await crowded(runtime.context)
    await until_true(runtime.database_url, f"select ({HELD}) = 1")

    await held.cancel()
    ward.gate.set()

    status = await held.get_status()
    assert status is not None
    assert status.status is Status.CANCELLED
    await came(lambda: not runtime.executor.incarnation.live)
    assert sum(ward.done.values()) == ROOM


async def test_a_second_start_with_the_same_uuid_attaches_to_one_that_is_held_back(runtime: TestRuntime) -> None:
    for _ in range(ROOM):
        await crowded(runtime.context)
    uuid = uuid4()
    handles = [await crowded(runtime.context_of(workflow_uuid=uuid), 7) for _ in range(3)]
    ward.gate.set()

    assert [await handle.get_result(timeout=60) for handle in handles] == [7] * 3
    assert ward.done[uuid] == 1


async def test_when_the_supervisor_of_a_name_is_killed_its_workflows_go_on_and_no_other_name_is_touched(
    runtime: TestRuntime,
) -> None:
    first = [await crowded(runtime.context) for _ in range(2 * ROOM)]
    others = [await steady(runtime.context) for _ in range(3)]
    await came(lambda: ward.inside == ROOM + len(others))
    untouched = {handle.workflow_uuid: runtime.executor.incarnation.live[handle.workflow_uuid] for handle in others}

    await kill("crowded")
    await came(lambda: ward.inside == len(others))
    during = await crowded(runtime.context)
    await came(lambda: ward.inside == ROOM + len(others))

    live = runtime.executor.incarnation.live
    assert all(live[uuid] is actor for uuid, actor in untouched.items())
    ward.gate.set()
    for handle in (*first, during):
        await handle.get_result(timeout=60)
    for other in others:
        await other.get_result(timeout=60)
    # The first step was recorded, so it was not done again by the lives after the kill.
    assert len(ward.order) == len(first) + 1
    assert [ward.done[handle.workflow_uuid] for handle in others] == [2] * len(others)
    (node,) = [each for each in names_of(await get(runtime)) if each["name"] == "crowded"]
    assert (node["state"], node["last_exit"]) == ("running", "crashed: CancelledError")
    assert await runtime.fetchval("select max(crash_count) from operon.workflows") == 0


async def test_nothing_is_lost_or_done_twice_however_often_the_supervisor_of_a_name_is_killed(
    runtime: TestRuntime,
) -> None:
    handles = [await books(runtime.context) for _ in range(2 * ROOM)]
    lines = 3 * LINES * len(handles)

    for part in range(1, 6):
        await until_true(runtime.database_url, "select count(*) >= $1 from ledger", part * lines // 6)
        await kill("books")

    assert [await handle.get_result(timeout=120) for handle in handles] == [LINES] * len(handles)
    assert await runtime.fetchval("select count(*) from ledger") == lines
    assert await runtime.fetchval("select count(*) from (select distinct * from ledger) as l") == lines


async def test_when_the_supervisor_of_all_names_is_killed_everything_goes_on(runtime: TestRuntime) -> None:
    handles = [await crowded(runtime.context) for _ in range(2 * ROOM)]
    others = [await steady(runtime.context) for _ in range(3)]
    await came(lambda: ward.inside == ROOM + len(others))

    await kill("workflows")
    await came(lambda: not ward.inside)
    ward.gate.set()

    for handle in handles:
        await handle.get_result(timeout=60)
    for other in others:
        await other.get_result(timeout=60)


@pytest.mark.long
async def test_what_is_held_back_by_an_executor_that_is_killed_finishes_on_another(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WARD_OPEN", str(tmp_path / "open"))
    settings = {"poll_seconds": 0.2}
    async with (
        private_database() as url,
        executor(url, 0, "ward", **settings) as first,
        executor(url, 0, "ward", **settings) as second,
    ):
        await first.post("/visits/30")
        first.kill()
        await first.ended()
        await second.post("/visits/10")
        (tmp_path / "open").touch()

        await until_true(url, "select count(*) = 40 and bool_and(status = 1) from operon.workflows")
        most = await second.post("/most")
        assert most <= ROOM


@pytest.mark.parametrize("limit", [0, -1, 1.5, True, "many"])
def test_a_limit_is_a_whole_number_of_one_or_more(limit: Any) -> None:
    async def body(ctx: operon.WorkflowContext) -> None:
        pass

    with pytest.raises(operon.CatalogError, match="max_live"):
        operon.workflow(max_live=limit)(body)


def names_of(answer: Any) -> list[Any]:
    """The nodes of names, of the executor that answers."""
    (own,) = [each for each in answer["executors"] if each["own"]]
    (executor,) = [each for each in own["tree"]["children"] if each["name"].startswith("executor-")]
    (workflows,) = [each for each in executor["children"] if each["name"] == "workflows"]
    children: list[Any] = workflows["children"]
    return children


async def kill(name: str) -> None:
    """Ends the task of a supervisor, as nobody may; one that is between two lives is waited for."""
    await came(lambda: bool(tasks_of(name)))
    (task,) = tasks_of(name)
    task.cancel()


def tasks_of(name: str) -> list[asyncio.Task[Any]]:
    return [task for task in asyncio.all_tasks() if task.get_name() == name]
