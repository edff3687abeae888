"""Values that cannot be stored: refused before anything ran, or recorded as an error after it did; never run twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest

import operon
from operon.contexts import CommunicatorContext, InitializerContext, TransactionContext, WorkflowContext
from operon.status import Status
from operon.testing import TestRuntime

calls: Counter[str] = Counter()

BAD_ARGUMENTS: dict[str, Any] = {
    "an object": object(),
    "a function": len,
    "a generator": (number for number in range(3)),
    "too large": "x" * 5_000_000,
    "an object inside": {"deep": [1, object()]},
}
BAD_RESULTS: dict[str, Any] = {
    "an object": object(),
    "too large": "x" * 21_000_000,
    "a coroutine": print,
    "an object inside": {"deep": [1, object()]},
}
UNUSUAL: dict[str, Any] = {
    "a lone surrogate": "\ud800",
    "a big integer": 2**70,
    "not a number": float("nan"),
    "infinity": float("-inf"),
    "nul": "a\0b",
    "a key that is a number": {1: "one", "1": "another"},
    "a tuple in a list": [(1, 2)],
    "a deep list": [[[[[[[[[[]]]]]]]]]],
}


@operon.initializer
async def tables(ctx: InitializerContext) -> None:
    await ctx.client.execute("create table if not exists lines (line text not null)")


@operon.communicator
async def call(ctx: CommunicatorContext, name: str, value: Any) -> Any:
    calls[name] += 1
    return value


@operon.communicator
async def give(ctx: CommunicatorContext, name: str) -> Any:
    calls[f"give {name}"] += 1
    return BAD_RESULTS[name]


@operon.communicator
async def promise_a_number(ctx: CommunicatorContext) -> int:
    calls["promise"] += 1
    return "a word"  # type: ignore[return-value]  # pyright: ignore[reportReturnType]


@operon.transaction
async def write_and_give(tx: TransactionContext, name: str) -> Any:
    calls[f"write {name}"] += 1
    await tx.client.execute("insert into lines (line) values ($1)", name)
    return BAD_RESULTS[name]


@operon.transaction
async def one_row(tx: TransactionContext) -> Any:
    return await tx.client.fetchrow("select 1 as one")


@operon.workflow
async def take(ctx: WorkflowContext, value: Any) -> Any:
    calls["take"] += 1
    return value


@operon.workflow
async def give_from_workflow(ctx: WorkflowContext, name: str) -> Any:
    calls[f"workflow {name}"] += 1
    return BAD_RESULTS[name]


@operon.workflow
async def give_and_tell(ctx: WorkflowContext, name: str) -> str:
    try:
        await give(ctx, name)
    except operon.OutputError as error:
        return error.message
    return "no error"


@operon.workflow
async def call_with_bad(ctx: WorkflowContext, name: str) -> str:
    """A step takes its arguments as they are, for they are not stored; a child's are."""
    await call(ctx, "in memory", 1)
    try:
        await take(ctx, BAD_ARGUMENTS[name])
    except operon.InputError as error:
        return error.message
    return "no error"


@operon.workflow
async def wrong_call(ctx: WorkflowContext, name: str) -> str:
    return name


@pytest.fixture(scope="module")
async def runtime() -> AsyncIterator[TestRuntime]:
    async with TestRuntime(__name__, poll_seconds=0.2) as runtime:
        yield runtime


async def rows(runtime: TestRuntime) -> int:
    count: int = await runtime.fetchval("select count(*) from operon.workflows")
    return count


@pytest.mark.parametrize("name", BAD_ARGUMENTS)
async def test_an_argument_that_cannot_be_stored_is_refused_with_its_name_before_anything_ran(
    runtime: TestRuntime, name: str
) -> None:
    before = (await rows(runtime), calls["take"], calls[name])

    with pytest.raises(operon.InputError, match="take: ") as by_workflow:
        await take(runtime.context, BAD_ARGUMENTS[name])
    with pytest.raises(operon.InputError, match="call: ") as by_step:
        await call(runtime.context, name, BAD_ARGUMENTS[name])

    for refused in (by_workflow, by_step):
        assert "'value'" in refused.value.message
        assert refused.value.hint
        assert len(str(refused.value)) < 2_000
    assert (await rows(runtime), calls["take"], calls[name]) == before


@pytest.mark.parametrize("name", BAD_ARGUMENTS)
async def test_a_child_is_refused_what_cannot_be_stored_and_its_parent_may_catch_that(
    runtime: TestRuntime, name: str
) -> None:
    handle = await call_with_bad(runtime.context, name)

    assert (await handle.get_result()).startswith("take: ")


@pytest.mark.parametrize("name", BAD_RESULTS)
async def test_a_result_that_cannot_be_stored_is_recorded_as_that_error_and_the_effect_is_not_repeated(
    runtime: TestRuntime, name: str
) -> None:
    uuid = uuid4()
    ctx = runtime.app.context(workflow_uuid=uuid)

    for _ in range(3):
        with pytest.raises(operon.OutputError, match="give: result") as refused:
            await give(ctx, name)
        assert refused.value.hint

    status = await runtime.context.retrieve_workflow(uuid).get_status()
    assert status is not None
    assert status.status is Status.ERROR
    assert calls[f"give {name}"] == 1


@pytest.mark.parametrize("name", BAD_RESULTS)
async def test_a_transaction_whose_result_cannot_be_stored_is_rolled_back_once(runtime: TestRuntime, name: str) -> None:
    ctx = runtime.app.context(workflow_uuid=uuid4())

    for _ in range(2):
        with pytest.raises(operon.OutputError, match="write_and_give: result"):
            await write_and_give(ctx, name)

    assert calls[f"write {name}"] == 1
    assert await runtime.fetchval("select count(*) from lines where line = $1", name) == 0


@pytest.mark.parametrize("name", BAD_RESULTS)
async def test_a_workflow_whose_result_cannot_be_stored_ends_in_that_error(runtime: TestRuntime, name: str) -> None:
    ctx = runtime.app.context(workflow_uuid=uuid4())

    for _ in range(2):
        handle = await give_from_workflow(ctx, name)
        with pytest.raises(operon.OutputError, match="give_from_workflow: result"):
            await handle.get_result()

    assert calls[f"workflow {name}"] == 1


async def test_a_workflow_may_catch_that_the_result_of_a_step_cannot_be_stored(runtime: TestRuntime) -> None:
    handle = await give_and_tell(runtime.context, "an object inside")

    assert await handle.get_result() == "give: result['deep'][1] cannot be stored: it is object, which is not data."


async def test_a_result_of_another_type_than_was_promised_is_an_error_that_names_both(runtime: TestRuntime) -> None:
    ctx = runtime.app.context(workflow_uuid=uuid4())

    for _ in range(2):
        with pytest.raises(operon.OutputError, match=r"promise_a_number: result .*int") as refused:
            await promise_a_number(ctx)
        assert "str" in refused.value.message

    assert calls["promise"] == 1


async def test_a_row_of_the_database_is_not_a_result(runtime: TestRuntime) -> None:
    with pytest.raises(operon.OutputError, match="one_row: result"):
        await one_row(runtime.context)


@pytest.mark.parametrize("name", UNUSUAL)
async def test_a_value_that_json_does_not_know_comes_back_equal_all_the_same(runtime: TestRuntime, name: str) -> None:
    value = UNUSUAL[name]
    handle = await take(runtime.context, value)

    live = await handle.get_result()
    stored = await runtime.context.retrieve_workflow(handle.workflow_uuid).get_result()

    assert repr(live) == repr(stored) == repr(value)


@pytest.mark.parametrize("arguments", [(), ("one", "two")])
async def test_a_call_with_wrong_arguments_is_pythons_own_error_and_nothing_ran(
    runtime: TestRuntime, arguments: tuple[str, ...]
) -> None:
    before = await rows(runtime)
    anyhow: Any = wrong_call

    with pytest.raises(TypeError, match=r"wrong_call\(\)"):
        await anyhow(runtime.context, *arguments)
    with pytest.raises(TypeError, match=r"wrong_call\(\).*nome"):
        await anyhow(runtime.context, "x", nome="y")

    assert await rows(runtime) == before
