"""Supervisors that are workflows: who is started again, who goes down with a child, and when they give up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest

import operon
from operon import (
    CatalogError,
    InputError,
    Intensity,
    IntensityExceeded,
    NotAuthorizedError,
    Operon,
    Status,
    UnknownOperationError,
    WorkflowContext,
    WorkflowHandle,
)
from operon.operations import Workflow
from operon.testing import TestRuntime

ORDER = operon.Topic("order", str)
MANY = Intensity(restarts=100, period=60)

BEGIN = (
    "insert into lives values ($1) returning (select count(*) from lives where name = $1)"  # how many there were before
)


@operon.workflow
async def worker(ctx: WorkflowContext, name: str) -> str:
    """Ends as it is told to."""
    order = await ctx.recv(ORDER, required=True)
    if order == "fail":
        raise LookupError(f"{name} failed")
    if order == "die":
        raise MemoryError
    return name


@operon.workflow
async def brief(ctx: WorkflowContext, fails: int, name: str) -> str:
    """Fails a few times, in different lives, and then returns."""
    if await ctx.fetchval(BEGIN, name) < fails:
        raise LookupError(f"{name} failed")
    return name


def three(name: str, **options: Any) -> Workflow[[], None]:
    children = [operon.child(id, worker, id) for id in ("a", "b", "c")]
    return operon.supervise(children, name=name, intensity=MANY, **options)


one_for_one = three("one_for_one")
one_for_all = three("one_for_all", strategy="one_for_all")
rest_for_one = three("rest_for_one", strategy="rest_for_one")
each_type = operon.supervise(
    [
        operon.child("permanent", worker, "permanent"),
        operon.child("transient", worker, "transient").using(restart="transient"),
        operon.child("temporary", worker, "temporary").using(restart="temporary"),
    ],
    name="each_type",
    intensity=MANY,
)
with_temporary = operon.supervise(
    [operon.child("a", worker, "a"), operon.child("b", worker, "b").using(restart="temporary")],
    name="with_temporary",
    strategy="one_for_all",
    intensity=MANY,
)
strict = operon.supervise(
    [operon.child("a", worker, "a"), operon.child("b", worker, name="b")],
    name="strict",
    intensity=Intensity(restarts=1, period=60),
)
tree = operon.supervise([operon.child("strict", strict), operon.child("c", worker, "c")], name="tree", intensity=MANY)
briefly = operon.supervise(
    [
        operon.child("a", brief, 3, "a").using(restart="transient"),
        operon.child("b", brief, 1, name="b").using(restart="temporary"),
    ],
    name="briefly",
    intensity=MANY,
)


@operon.workflow
async def boss(ctx: WorkflowContext) -> str:
    """A supervisor is a child like any other."""
    handle = await briefly(ctx)
    await handle.get_result()
    return "done"


@pytest.fixture(params=[False, True], ids=["live", "parked"])
async def runtime(request: pytest.FixtureRequest) -> AsyncIterator[TestRuntime]:
    async with TestRuntime(__name__, evict_always=request.param, poll_seconds=0.2, crash_budget=0) as runtime:
        yield runtime


async def life_of(runtime: TestRuntime, supervisor: WorkflowHandle[None], id: str, after: UUID | None = None) -> UUID:
    """The present life of a child; `after` another one."""
    async with asyncio.timeout(60):
        while True:
            uuid = await runtime.context.get_event(supervisor.workflow_uuid, operon.EventKey(id, UUID), timeout=60)
            assert uuid is not None
            if uuid != after:
                return uuid
            await asyncio.sleep(0.01)


async def order(runtime: TestRuntime, life: UUID, what: str) -> None:
    handle = runtime.context.retrieve_workflow(life)
    if what == "cancel":
        await handle.cancel()
        return
    await runtime.context.send(life, what, ORDER)
    await asyncio.gather(handle.get_result(timeout=60), return_exceptions=True)
    await handle.get_status()  # waits for the record of the end


async def judged(runtime: TestRuntime, supervisor: WorkflowHandle[None], downs: int) -> None:
    """Waits until a supervisor has received so many ends, and waits again."""
    received = "select count(*) from operon.checkpoints where workflow_uuid = $1 and name = 'operon.down'"
    async with asyncio.timeout(60):
        while await runtime.fetchval(received, supervisor.workflow_uuid) < downs:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        while True:
            status = await supervisor.get_status()
            if status is None or status.status.is_finished or status.waiting_for == "recv operon.down":
                return
            await asyncio.sleep(0.01)


async def states(runtime: TestRuntime) -> list[str]:
    """Every life there was, oldest first: its argument and its status."""
    rows = await runtime.fetch(
        "select inputs, status from operon.readable_workflows where name = 'worker' order by created_at, inputs"
    )
    return [f"{row['inputs'][9]} {row['status']}" for row in rows]


@pytest.mark.parametrize(
    ("id", "what", "comes_back"),
    [
        ("permanent", "fail", True),
        ("permanent", "return", True),
        ("permanent", "die", True),
        ("permanent", "cancel", False),
        ("transient", "fail", True),
        ("transient", "return", False),
        ("temporary", "fail", False),
        ("temporary", "return", False),
    ],
)
async def test_who_is_started_again(id: str, what: str, comes_back: bool) -> None:
    async with TestRuntime(__name__, crash_budget=0, check_replay=what != "die") as runtime:
        supervisor = await each_type(runtime.context)
        life = await life_of(runtime, supervisor, id)

        await order(runtime, life, what)
        await judged(runtime, supervisor, 1)

        assert (await life_of(runtime, supervisor, id) != life) is comes_back
        await supervisor.cancel()


@pytest.mark.parametrize(
    ("supervisor", "again"), [(one_for_one, "b"), (one_for_all, "abc"), (rest_for_one, "bc")], ids=lambda it: str(it)
)
async def test_who_goes_down_and_comes_back_together(
    runtime: TestRuntime, supervisor: Workflow[[], None], again: str
) -> None:
    handle = await supervisor(runtime.context)
    before = {id: await life_of(runtime, handle, id) for id in "abc"}

    await order(runtime, before["b"], "fail")
    await judged(runtime, handle, len(again))

    after = {id: await life_of(runtime, handle, id) for id in "abc"}
    assert "".join(id for id in "abc" if before[id] != after[id]) == again
    alive = await runtime.fetch("select workflow_uuid from operon.workflows where name = 'worker' and status = 0")
    assert {row[0] for row in alive} == set(after.values())
    await handle.cancel()


async def test_a_temporary_child_that_goes_down_with_others_stays_down(runtime: TestRuntime) -> None:
    supervisor = await with_temporary(runtime.context)
    a, b = await life_of(runtime, supervisor, "a"), await life_of(runtime, supervisor, "b")

    await order(runtime, a, "fail")
    await judged(runtime, supervisor, 2)

    assert await life_of(runtime, supervisor, "a") != a
    assert await life_of(runtime, supervisor, "b") == b
    assert sorted(await states(runtime)) == ["a ERROR", "a PENDING", "b CANCELLED"]
    await supervisor.cancel()


async def test_a_supervisor_ends_when_all_children_are_done(runtime: TestRuntime) -> None:
    await runtime.execute("create table lives (name text)")

    assert await (await boss(runtime.context)).get_result(timeout=60) == "done"

    rows = await runtime.fetch(
        "select name, status, count(*) from operon.readable_workflows group by 1, 2 order by 1, 2"
    )
    assert [tuple(row) for row in rows] == [
        ("boss", "SUCCESS", 1),
        ("brief", "ERROR", 4),
        ("brief", "SUCCESS", 1),
        ("briefly", "SUCCESS", 1),
    ]


async def test_a_supervisor_gives_up_when_its_children_end_too_often(runtime: TestRuntime) -> None:
    supervisor = await strict(runtime.context)
    a, b = await life_of(runtime, supervisor, "a"), await life_of(runtime, supervisor, "b")
    await order(runtime, a, "fail")
    await life_of(runtime, supervisor, "a", after=a)

    await order(runtime, b, "fail")

    with pytest.raises(IntensityExceeded, match=r"'strict': more than 1 restarts within 60 s; .*'b'.*b failed"):
        await supervisor.get_result(timeout=60)
    assert sorted(await states(runtime)) == ["a CANCELLED", "a ERROR", "b ERROR"]


async def test_restarts_are_forgiven_after_a_while() -> None:
    async with TestRuntime(__name__) as runtime:
        supervisor = await strict(runtime.context)
        life = await life_of(runtime, supervisor, "a")

        for _ in range(3):
            await order(runtime, life, "fail")
            life = await life_of(runtime, supervisor, "a", after=life)
            await runtime.advance(minutes=2)

        status = await supervisor.get_status()
        assert status is not None
        assert status.status is Status.PENDING
        await supervisor.cancel()


async def test_a_supervisor_that_gave_up_is_started_again_by_the_one_above_it(runtime: TestRuntime) -> None:
    root = await tree(runtime.context)
    branch = await life_of(runtime, root, "strict")
    handle = runtime.context.retrieve_workflow(branch)
    a, b = await life_of(runtime, handle, "a"), await life_of(runtime, handle, "b")

    await order(runtime, a, "fail")
    await order(runtime, b, "fail")

    again = runtime.context.retrieve_workflow(await life_of(runtime, root, "strict", after=branch))
    fresh = {await life_of(runtime, again, "a"), await life_of(runtime, again, "b")}
    assert not fresh & {a, b}
    with pytest.raises(IntensityExceeded):
        await handle.get_result(timeout=60)
    await root.cancel()
    assert "PENDING" not in {state.split()[1] for state in await states(runtime)}


async def test_a_cancelled_tree_leaves_nobody(runtime: TestRuntime) -> None:
    root = await tree(runtime.context)
    branch = runtime.context.retrieve_workflow(await life_of(runtime, root, "strict"))
    await life_of(runtime, branch, "b")
    await life_of(runtime, root, "c")

    await root.cancel()

    assert sorted(await states(runtime)) == ["a CANCELLED", "b CANCELLED", "c CANCELLED"]


async def test_a_tree_that_was_cancelled_and_is_resumed_is_supervised_as_before(runtime: TestRuntime) -> None:
    root = await tree(runtime.context)
    branch = runtime.context.retrieve_workflow(await life_of(runtime, root, "strict"))
    before = {
        await life_of(runtime, branch, "a"),
        await life_of(runtime, branch, "b"),
        await life_of(runtime, root, "c"),
    }
    await judged(runtime, root, 0)
    await judged(runtime, branch, 0)
    await root.cancel()

    await root.resume()

    c = await life_of(runtime, root, "c")
    await order(runtime, c, "fail")
    await life_of(runtime, root, "c", after=c)
    alive = await runtime.fetch("select workflow_uuid from operon.workflows where name = 'worker' and status = 0")
    assert before - {row[0] for row in alive} == {c}
    a = await life_of(runtime, branch, "a")
    await order(runtime, a, "fail")
    await life_of(runtime, branch, "a", after=a)
    await root.cancel()


async def test_a_tree_goes_on_wherever_it_crashes() -> None:
    async with TestRuntime(__name__) as runtime:
        await runtime.execute("create table lives (name text)")
        async for _crash in runtime.crash_everywhere():
            handle = await boss(runtime.context)

            assert await handle.get_result(timeout=60) == "done"
            rows = await runtime.fetch("select name, count(*) from lives group by 1 order by 1")
            assert [tuple(row) for row in rows] == [("a", 4), ("b", 1)]
            assert await runtime.fetchval("select count(*) from operon.monitors") == 0


async def deployed(runtime: TestRuntime, *namespaces: Any) -> Operon:
    """Another version of the application in place of the one under test."""
    await runtime.app.__aexit__(None, None, None)
    return Operon(*namespaces, database_url=runtime.database_url, poll_seconds=0.2)


async def test_another_list_of_children_is_for_supervisors_that_start_later() -> None:
    class Old:
        desk = operon.supervise([operon.child("a", worker, "a")], name="desk", intensity=MANY)

    class New:
        desk = operon.supervise([operon.child("b", worker, "b"), operon.child("a", worker, "a")], name="desk")

    async with TestRuntime(__name__, Old) as runtime:
        supervisor = await Old.desk(runtime.context)
        life = await life_of(runtime, supervisor, "a")

        async with await deployed(runtime, __name__, New) as later:
            ctx = later.context()
            await ctx.send(life, "fail", ORDER)
            while await ctx.get_event(supervisor.workflow_uuid, operon.EventKey("a", UUID)) == life:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            status = await ctx.retrieve_workflow(supervisor.workflow_uuid).get_status()
            await ctx.retrieve_workflow(supervisor.workflow_uuid).cancel()

        assert status is not None
        assert status.status is Status.PENDING
        assert await runtime.fetchval("select count(*) from operon.events where key = 'b'") == 0
        await runtime.app.__aenter__()


async def test_a_child_that_is_no_operation_any_more_is_an_error_when_it_is_to_be_started() -> None:
    class Old:
        @operon.workflow(name="passing")
        @staticmethod
        async def passing(ctx: WorkflowContext) -> None:
            await ctx.recv(ORDER)

    class Desk:
        desk = operon.supervise(
            [operon.child("a", worker, "a"), operon.child("b", Old.passing)], name="desk", intensity=MANY
        )

    async with TestRuntime(__name__, Old, Desk, check_replay=False) as runtime:
        supervisor = await Desk.desk(runtime.context)
        b = await life_of(runtime, supervisor, "b")
        await life_of(runtime, supervisor, "a")

        async with await deployed(runtime, __name__, Desk) as later:
            ctx = later.context()
            handle = ctx.retrieve_workflow(supervisor.workflow_uuid)
            a = await ctx.get_event(supervisor.workflow_uuid, operon.EventKey("a", UUID))
            assert a is not None
            await ctx.send(a, "fail", ORDER)  # the replay starts nobody, so it needs no `passing`
            while await ctx.get_event(supervisor.workflow_uuid, operon.EventKey("a", UUID)) == a:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            await runtime.execute("update operon.workflows set name = 'worker' where workflow_uuid = $1", b)
            await ctx.send(b, "fail", ORDER)

            with pytest.raises(UnknownOperationError, match="'passing' is not an operation"):
                await handle.get_result(timeout=60)

        assert await runtime.fetchval("select count(*) from operon.workflows where status = 0") == 0
        await runtime.app.__aenter__()


@operon.required_roles("chief")
@operon.workflow
async def secret(ctx: WorkflowContext) -> str:
    return "secret"


secretive = operon.supervise(
    [operon.child("a", worker, "a"), operon.child("s", secret).using(restart="temporary")], name="secretive"
)


async def test_children_are_started_with_the_rights_of_who_has_started_their_supervisor(runtime: TestRuntime) -> None:
    allowed = await secretive(runtime.context_of("ada", ["chief"]))
    refused = await secretive(runtime.context_of("bob", ["clerk"]))

    with pytest.raises(NotAuthorizedError):
        await refused.get_result(timeout=60)

    child = runtime.context.retrieve_workflow(await life_of(runtime, allowed, "s"))
    assert await child.get_result(timeout=60) == "secret"
    assert await runtime.fetchval("select count(*) from operon.workflows where name = 'worker' and status = 3") == 1
    await allowed.cancel()


def test_what_cannot_be_supervised_is_refused_where_it_is_written() -> None:
    spec = operon.child("a", worker, "a")

    with pytest.raises(CatalogError, match="two children 'a'"):
        operon.supervise([spec, spec], name="twice")
    with pytest.raises(CatalogError, match="strategy='none'"):
        operon.supervise([spec], name="x", strategy="none")  # type: ignore[arg-type]
    with pytest.raises(CatalogError, match="restart='never'"):
        spec.using(restart="never")  # type: ignore[arg-type]
    with pytest.raises(InputError):
        operon.child("a", worker, object())  # type: ignore[arg-type]
