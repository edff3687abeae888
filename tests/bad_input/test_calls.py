"""Calls in the wrong place, of the wrong thing, or under the wrong UUID."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest

import operon
from operon.contexts import CommunicatorContext, TransactionContext, WorkflowContext
from operon.status import Status
from operon.testing import TestRuntime
from tests.acceptance.gates import Gates

calls: Counter[str] = Counter()
gates = Gates()
kept: dict[str, WorkflowContext] = {}
leaked: list[asyncio.Task[str]] = []
version: dict[str, int] = {}


@operon.transaction
async def step(tx: TransactionContext, name: str) -> str:
    calls[name] += 1
    return name


@operon.communicator
async def call_out(ctx: CommunicatorContext, name: str) -> str:
    calls[name] += 1
    return name


@operon.communicator
async def stop_at(ctx: CommunicatorContext, gate: str) -> None:
    await gates[gate].pass_()


@operon.transaction
async def step_in_transaction(tx: Any, name: str) -> str:
    return await step(tx, name)


@operon.communicator(retry=None)
async def step_in_communicator(ctx: Any, name: str) -> str:
    return await step(ctx, name)


@operon.workflow
async def add(ctx: WorkflowContext, name: str, number: int) -> int:
    calls[name] += 1
    return number + 1


@operon.workflow
async def subtract(ctx: WorkflowContext, name: str, number: int) -> int:
    calls[name] += 1
    return number - 1


@operon.workflow
async def keep_context(ctx: WorkflowContext, name: str) -> str:
    kept[name] = ctx
    return await step(ctx, name)


@operon.workflow
async def leak_a_task(ctx: WorkflowContext, gate: str) -> str:
    async def later() -> str:
        await gates[gate].pass_()
        return await step(ctx, f"after {gate}")

    leaked.append(asyncio.create_task(later()))
    return "done"


@operon.workflow
async def swallow_everything(ctx: WorkflowContext, name: str) -> str:
    """Catches even what tells it that it cannot go on."""
    try:
        await (step(ctx, name) if version[name] == 1 else call_out(ctx, name))
        await stop_at(ctx, name)
    except Exception:
        calls[f"swallowed {name}"] += 1
    return "went on"


@operon.workflow
async def changed(ctx: WorkflowContext, name: str) -> str:
    calls[f"body {name}"] += 1
    if version[name] == 1:
        await step(ctx, f"{name} first")
    else:
        await call_out(ctx, f"{name} second")
    await stop_at(ctx, name)
    return "finished"


@operon.workflow
async def shortened(ctx: WorkflowContext, name: str) -> str:
    if version[name] == 1:
        await step(ctx, name)
        await stop_at(ctx, name)
    return "finished"


@pytest.fixture(scope="module")
async def runtime() -> AsyncIterator[TestRuntime]:
    async with TestRuntime(__name__, poll_seconds=0.2) as runtime:
        yield runtime


@pytest.mark.parametrize(
    ("operation", "inside"), [(step_in_transaction, "transaction"), (step_in_communicator, "communicator")]
)
async def test_a_step_called_from_a_step_is_refused_with_where_to_call_it(
    runtime: TestRuntime, operation: Any, inside: str
) -> None:
    with pytest.raises(operon.InvocationError, match=f"^step was called from inside a {inside}") as refused:
        await operation(runtime.context, f"in {inside}")

    assert refused.value.hint == f"a {inside} is one step; call step from the workflow, before or after it"
    assert calls[f"in {inside}"] == 0


@pytest.mark.parametrize("instead", [None, "a name", 42, object()])
async def test_a_call_without_a_context_is_refused_with_how_to_write_it(runtime: TestRuntime, instead: Any) -> None:
    for operation in (add, step, call_out):
        anyhow: Any = operation
        with pytest.raises(operon.InvocationError, match="in place of a context") as refused:
            await anyhow(instead, "no context")
        assert refused.value.hint == f"pass the caller's context on: await {operation.fn.__name__}(ctx, ...)"


async def test_a_call_without_any_argument_says_that_the_context_is_missing(runtime: TestRuntime) -> None:
    anyhow: Any = add

    with pytest.raises(TypeError, match="ctx"):
        await anyhow()


async def test_a_step_with_the_context_of_a_finished_workflow_is_refused(runtime: TestRuntime) -> None:
    handle = await keep_context(runtime.context, "kept")
    await handle.get_result()

    with pytest.raises(operon.InvocationError, match="after the workflow had ended") as refused:
        await step(kept["kept"], "too late")

    assert refused.value.hint is not None
    assert calls["too late"] == 0
    assert await runtime.context.retrieve_workflow(handle.workflow_uuid).get_result() == "kept"


async def test_a_task_that_outlives_its_workflow_cannot_add_steps_to_it(runtime: TestRuntime) -> None:
    handle = await leak_a_task(runtime.context, "leak")
    assert await handle.get_result() == "done"

    gates["leak"].open()
    with pytest.raises(operon.InvocationError, match="after the workflow had ended"):
        await leaked.pop()

    steps = "select count(*) from operon.checkpoints where workflow_uuid = $1"
    assert await runtime.fetchval(steps, handle.workflow_uuid) == 0


async def test_an_unknown_uuid_has_no_status_and_its_result_is_a_typed_error(runtime: TestRuntime) -> None:
    uuid = uuid4()
    handle = runtime.context.retrieve_workflow(uuid)

    assert await handle.get_status() is None
    with pytest.raises(operon.NonExistentWorkflowError, match=str(uuid)) as unknown:
        await handle.get_result()
    assert unknown.value.hint is not None


async def test_a_word_that_is_no_uuid_names_no_workflow_and_cannot_be_one_s(runtime: TestRuntime) -> None:
    with pytest.raises(operon.NonExistentWorkflowError, match="not a UUID"):
        runtime.context.retrieve_workflow("order-17")
    with pytest.raises(operon.InputError, match="not a UUID"):
        runtime.app.context(workflow_uuid="order-17")
    with pytest.raises(operon.InputError, match="not a UUID"):
        runtime.context.using(workflow_uuid="order-17")


async def test_one_uuid_is_not_for_two_operations(runtime: TestRuntime) -> None:
    ctx = runtime.app.context(workflow_uuid=uuid4())
    await (await add(ctx, "one operation", 1)).get_result()

    for other in (subtract(ctx, "another operation", 1), step(ctx, "another operation")):
        with pytest.raises(operon.WorkflowConflictError) as conflict:
            await other
        assert conflict.value.hint is not None
        assert "'add'" not in str(conflict.value)  # nothing of the other's

    assert calls["another operation"] == 0


async def test_one_uuid_is_not_for_two_users_running_or_finished(runtime: TestRuntime) -> None:
    uuid = uuid4()
    wilma, bob = (runtime.app.context(user=user, workflow_uuid=uuid) for user in ("wilma", "bob"))
    nobody = runtime.app.context(workflow_uuid=uuid)
    assert await (await add(wilma, "wilma's", 1)).get_result() == 2

    for other in (bob, nobody):
        with pytest.raises(operon.WorkflowConflictError) as conflict:
            await add(other, "wilma's", 1)
        assert "wilma" not in str(conflict.value)

    assert await (await add(wilma, "wilma's", 1)).get_result() == 2
    assert calls["wilma's"] == 1


async def test_other_inputs_for_one_uuid_do_not_count_and_are_warned_of(
    runtime: TestRuntime, caplog: pytest.LogCaptureFixture
) -> None:
    uuid = uuid4()
    ctx = runtime.app.context(workflow_uuid=uuid)
    await (await add(ctx, "inputs", 1)).get_result()

    with caplog.at_level(logging.WARNING, "operon"):
        again = await add(ctx, "inputs", 41)

    assert await again.get_result() == 2
    [warning] = [record.getMessage() for record in caplog.records if str(uuid) in record.getMessage()]
    assert "add" in warning
    assert "stored" in warning


async def dead(runtime: TestRuntime, name: str, handle: operon.WorkflowHandle[str]) -> operon.NondeterminismError:
    """Crashes a workflow at its gate and lets the second version of its code replay it."""
    await gates[name].reached.wait()
    version[name] = 2
    await runtime.crash()
    gates[name].open()
    with pytest.raises(operon.NondeterminismError) as error:
        async with asyncio.timeout(30):
            await handle.get_result()
    return error.value


async def test_code_that_asks_for_another_step_than_was_recorded_stops_and_says_which(runtime: TestRuntime) -> None:
    version["changed"] = 1
    handle = await changed(runtime.context, "changed")

    error = await dead(runtime, "changed", handle)

    assert f"'changed' {handle.workflow_uuid}" in error.message
    assert "step 0 is now communicator 'call_out'" in error.message
    assert "recorded as transaction 'step'" in error.message
    assert error.hint is not None
    status = await handle.get_status()
    assert status is not None
    assert status.status is Status.DEAD
    assert calls["changed second"] == 0
    assert calls["body changed"] == 2  # not in a loop
    recorded = "select name from operon.checkpoints where workflow_uuid = $1"
    assert await runtime.fetchval(recorded, handle.workflow_uuid) == "step"


async def test_code_that_ends_before_what_was_recorded_stops_too(runtime: TestRuntime) -> None:
    version["shortened"] = 1
    handle = await shortened(runtime.context, "shortened")

    error = await dead(runtime, "shortened", handle)

    assert "the end of the workflow" in error.message
    assert "step" in error.message


async def test_a_workflow_that_swallows_its_nondeterminism_is_stopped_all_the_same(runtime: TestRuntime) -> None:
    version["swallows"] = 1
    handle = await swallow_everything(runtime.context, "swallows")

    error = await dead(runtime, "swallows", handle)

    assert "step 0" in error.message
    assert calls["swallowed swallows"] == 1
