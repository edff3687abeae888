"""Workflows that start workflows, operations in classes, and two applications in one process."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import pytest

import operon
from operon.app import Operon
from operon.contexts import CommunicatorContext, TransactionContext, WorkflowContext
from operon.status import Status
from operon.testing import TestRuntime
from tests.acceptance.gates import Gates

calls: Counter[str] = Counter()
gates = Gates()


class Broken(Exception):
    """What a child raises."""


@operon.communicator
async def stop_at(ctx: CommunicatorContext, gate: str) -> None:
    await gates[gate].pass_()


@operon.workflow
async def leaf(ctx: WorkflowContext, name: str) -> str:
    calls[name] += 1
    return f"leaf {name} for {ctx.authenticated_user}"


@operon.workflow
async def broken_leaf(ctx: WorkflowContext, name: str) -> None:
    calls[name] += 1
    raise Broken(name)


@operon.workflow
async def branch(ctx: WorkflowContext, name: str) -> tuple[UUID, UUID, str]:
    handle = await leaf(ctx, name)
    return ctx.workflow_uuid, handle.workflow_uuid, await handle.get_result()


@operon.workflow
async def trunk(ctx: WorkflowContext, name: str, gate: str) -> list[tuple[UUID, UUID, str]]:
    """Children of children, before and after a crash."""
    first = await branch(ctx, f"{name} 1")
    second = await ctx.child_workflow(branch, f"{name} 2")
    results = [await first.get_result(), await second.get_result()]
    await stop_at(ctx, gate)
    third = await branch(ctx, f"{name} 3")
    return [*results, await third.get_result()]


@operon.workflow
async def parent_of_broken(ctx: WorkflowContext, name: str, gate: str) -> str:
    child = await broken_leaf(ctx, name)
    told: list[str] = []
    for _ in range(2):
        try:
            await child.get_result()
        except Broken as error:
            told.append(str(error))
    status = await child.get_status()
    await stop_at(ctx, gate)
    return f"{told} {status.status if status else None}"


@operon.workflow
async def parent_that_does_not_catch(ctx: WorkflowContext, name: str) -> None:
    await (await broken_leaf(ctx, name)).get_result()


@operon.workflow
async def parent_with_named_child(ctx: WorkflowContext, uuid: UUID, name: str, gate: str) -> tuple[UUID, str]:
    child = await leaf(ctx.using(workflow_uuid=uuid), name)
    result = await child.get_result()
    await stop_at(ctx, gate)
    return child.workflow_uuid, result


@operon.workflow
async def forget_child(ctx: WorkflowContext, gate: str) -> UUID:
    child = await waiting(ctx, gate)
    return child.workflow_uuid


@operon.workflow
async def waiting(ctx: WorkflowContext, gate: str) -> str:
    await stop_at(ctx, gate)
    return "waited"


@operon.workflow
async def many(ctx: WorkflowContext, name: str, count: int) -> list[str]:
    handles = await asyncio.gather(*(leaf(ctx, f"{name} {number}") for number in range(count)))
    return list(await asyncio.gather(*(handle.get_result() for handle in handles)))


@operon.workflow
async def wait_for_child(ctx: WorkflowContext, gate: str) -> str:
    child = await waiting(ctx, gate)
    try:
        await child.get_result(timeout=0.01)
    except operon.ResultTimeout:
        return f"not yet, {(await child.get_status()) is not None}"
    return "at once"


class Base:
    """Operations to inherit."""

    @operon.transaction
    @staticmethod
    async def add(tx: TransactionContext, one: int, two: int) -> int:
        found: int = await tx.client.fetchval("select $1::integer + $2::integer", one, two)
        return found

    @operon.communicator
    @staticmethod
    def describe(ctx: CommunicatorContext) -> str:
        return "base"


class Derived(Base):
    """Inherits `add`, replaces `describe`, and adds a workflow."""

    @operon.communicator
    @staticmethod
    def describe(ctx: CommunicatorContext) -> str:
        return "derived"

    @operon.workflow
    @staticmethod
    async def run(ctx: WorkflowContext, one: int, two: int) -> str:
        here = ctx.invoke(Derived)
        return f"{await here.describe()} {await here.add(one, two=two)}"

    @operon.workflow(name="sum, as it was called in 2023")
    @staticmethod
    async def renamed(ctx: WorkflowContext) -> int:
        return await Derived.add(ctx, 1, 2)

    plain = 42


@pytest.fixture(scope="module")
async def runtime() -> AsyncIterator[TestRuntime]:
    async with TestRuntime(__name__, Derived, poll_seconds=0.2) as runtime:
        yield runtime


async def test_children_of_children_are_the_same_after_a_crash_and_know_their_user(runtime: TestRuntime) -> None:
    handle = await trunk(runtime.app.context(user="ada"), "tree", "tree")
    await gates["tree"].reached.wait()

    await runtime.crash()
    gates["tree"].open()
    results = await handle.get_result()

    assert [text for _, _, text in results] == [f"leaf tree {number} for ada" for number in (1, 2, 3)]
    uuids = {uuid for branch_uuid, leaf_uuid, _ in results for uuid in (branch_uuid, leaf_uuid)}
    assert len(uuids) == 6
    assert [calls[f"tree {number}"] for number in (1, 2, 3)] == [1, 1, 1]
    assert await runtime.fetchval("select count(*) from operon.workflows where name in ('branch', 'leaf')") == 6


async def test_a_childs_uuid_follows_from_its_parent_and_step(runtime: TestRuntime) -> None:
    first = await (await branch(runtime.context, "one")).get_result()
    other = await (await branch(runtime.context, "two")).get_result()

    parent_of = "select parent, parent_step from operon.workflows where workflow_uuid = $1"
    [row] = await runtime.fetch(parent_of, first[1])

    assert first[1] != other[1]
    assert (row["parent"], row["parent_step"]) == (first[0], 0)


async def test_the_error_of_a_child_is_raised_in_its_parent_live_and_replayed(runtime: TestRuntime) -> None:
    handle = await parent_of_broken(runtime.context, "broken", "broken")
    await gates["broken"].reached.wait()

    await runtime.crash()
    gates["broken"].open()

    assert await handle.get_result() == "['broken', 'broken'] ERROR"
    assert calls["broken"] == 1


async def test_the_error_of_a_child_that_nobody_catches_is_the_parents_error(runtime: TestRuntime) -> None:
    handle = await parent_that_does_not_catch(runtime.context, "uncaught")

    with pytest.raises(Broken, match=r"^uncaught$"):
        await handle.get_result()
    status = await handle.get_status()
    assert status is not None
    assert status.status is Status.ERROR


async def test_a_child_may_be_given_a_uuid_and_is_then_shared_by_all_who_start_it(runtime: TestRuntime) -> None:
    uuid = uuid4()
    first = await parent_with_named_child(runtime.context, uuid, "shared", "first parent")
    await gates["first parent"].reached.wait()
    second = await parent_with_named_child(runtime.context, uuid, "shared", "second parent")
    await gates["second parent"].reached.wait()

    await runtime.crash()
    gates["first parent"].open()
    gates["second parent"].open()

    assert await first.get_result() == await second.get_result() == (uuid, "leaf shared for None")
    assert calls["shared"] == 1


async def test_a_child_goes_on_when_its_parent_is_done(runtime: TestRuntime) -> None:
    handle = await forget_child(runtime.context, "orphan")
    child = runtime.context.retrieve_workflow(await handle.get_result())
    before = await child.get_status()

    gates["orphan"].open()

    assert before is not None
    assert before.status is Status.PENDING
    assert await child.get_result() == "waited"


async def test_fifty_children_at_once_are_fifty_results_in_order(runtime: TestRuntime) -> None:
    handle = await many(runtime.context, "many", 50)

    assert await handle.get_result() == [f"leaf many {number} for None" for number in range(50)]


async def test_a_parent_may_stop_waiting_and_its_child_goes_on(runtime: TestRuntime) -> None:
    handle = await wait_for_child(runtime.context, "impatient")

    assert await handle.get_result() == "not yet, True"
    gates["impatient"].open()


async def test_operations_of_a_class_are_invoked_with_the_context_bound(runtime: TestRuntime) -> None:
    bound = runtime.context.invoke(Derived)

    handle = await bound.run(20, two=22)

    assert await handle.get_result() == "derived 42"
    assert await bound.add(1, 1) == 2
    assert await Derived.add(runtime.context, 1, 1) == 2


async def test_what_is_no_operation_of_a_class_is_refused_by_invoke(runtime: TestRuntime) -> None:
    bound = runtime.context.invoke(Derived)

    with pytest.raises(operon.InvocationError, match=r"Derived\.plain is not an operation") as refused:
        _ = bound.plain
    with pytest.raises(AttributeError, match="missing"):
        _ = bound.missing  # type: ignore[attr-defined]  # pyright: ignore

    assert refused.value.hint is not None


async def test_inherited_operations_keep_the_name_of_where_they_are_written(runtime: TestRuntime) -> None:
    handle = await runtime.context.invoke(Derived).run(1, 2)
    await handle.get_result()

    steps = await runtime.fetch(
        "select name from operon.checkpoints where workflow_uuid = $1 order by step", handle.workflow_uuid
    )
    assert [row["name"] for row in steps] == ["Derived.describe", "Base.add"]


async def test_a_name_that_is_given_is_the_recorded_one(runtime: TestRuntime) -> None:
    handle = await Derived.renamed(runtime.context)

    status = await handle.get_status()
    assert await handle.get_result() == 3
    assert status is not None
    assert status.workflow_name == "sum, as it was called in 2023"


async def test_two_applications_live_in_one_process_and_one_database_and_do_not_mix() -> None:
    class Tea:
        @operon.workflow(name="brew")
        @staticmethod
        async def brew(ctx: WorkflowContext) -> str:
            return f"tea, {ctx.config['strength']}"

    class Coffee:
        @operon.workflow(name="brew coffee")
        @staticmethod
        async def brew(ctx: WorkflowContext) -> str:
            return f"coffee, {ctx.config['strength']}"

    async with TestRuntime(Tea, poll_seconds=0.2, config={"strength": "weak"}) as tea:
        url = tea.database_url
        async with Operon(Coffee, database_url=url, poll_seconds=0.2, config={"strength": "strong"}) as coffee:
            tea_handle = await Tea.brew(tea.context)
            coffee_handle = await Coffee.brew(coffee.context())

            assert await tea_handle.get_result() == "tea, weak"
            assert await coffee_handle.get_result() == "coffee, strong"
            # Either may look at what the other did, and neither can run it.
            across = coffee.context().retrieve_workflow(tea_handle.workflow_uuid)
            assert await across.get_result() == "tea, weak"
            with pytest.raises(operon.UnknownOperationError):
                await Tea.brew(coffee.context())
