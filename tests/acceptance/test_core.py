"""What an application counts on from its first day: operations run, answer, and leave the rows that they say they do."""

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
from tests.acceptance.gates import gates

calls: Counter[str] = Counter()
initialized: list[str] = []


@operon.initializer
async def tables(ctx: InitializerContext) -> None:
    await ctx.client.execute("create table if not exists notes (id bigint generated always as identity, note text)")
    await ctx.client.execute("insert into notes (note) values ($1)", f"initialized for {ctx.config['shop']}")
    initialized.append(ctx.config["shop"])


class OutOfInk(Exception):
    """A user's own error."""


@operon.transaction
async def write(tx: TransactionContext, note: str) -> str:
    await tx.client.execute("insert into notes (note) values ($1)", note)
    return note.upper()


@operon.transaction
async def write_silently(tx: TransactionContext, note: str) -> None:
    calls[note] += 1
    await tx.client.execute("insert into notes (note) values ($1)", note)


@operon.transaction
async def write_and_fail(tx: TransactionContext, note: str) -> None:
    calls[note] += 1
    await tx.client.execute("insert into notes (note) values ($1)", note)
    raise OutOfInk(note)


@operon.transaction(read_only=True)
async def count(tx: TransactionContext, note: str) -> int:
    calls[note] += 1
    found: int = await tx.client.fetchval("select count(*) from notes where note = $1", note)
    return found


@operon.communicator
async def post_letter(ctx: CommunicatorContext, letter: str) -> int:
    calls[letter] += 1
    return calls[letter]


@operon.communicator
async def wait_at(ctx: CommunicatorContext, gate: str) -> str:
    await gates[gate].pass_()
    return gate


@operon.workflow
async def note_down(ctx: WorkflowContext, note: str) -> str:
    return await write(ctx, note)


@operon.workflow
async def note_down_then_fail(ctx: WorkflowContext, good: str, bad: str) -> None:
    await write(ctx, good)
    await write_and_fail(ctx, bad)


@operon.workflow
async def fail_and_count(ctx: WorkflowContext, note: str) -> str:
    calls["body of " + note] += 1
    await write_and_fail(ctx, note)
    return "not reached"


@operon.workflow
async def write_and_read(ctx: WorkflowContext, note: str) -> int:
    await write(ctx, note)
    return await count(ctx, note)


@operon.workflow
async def wait(ctx: WorkflowContext, gate: str) -> str:
    return await wait_at(ctx, gate)


@operon.transaction
async def shop_in_transaction(tx: TransactionContext) -> str:
    return str(tx.config["shop"])


@operon.communicator
def shop_in_communicator(ctx: CommunicatorContext) -> str:
    return str(ctx.config["shop"])


@operon.workflow
async def shops(ctx: WorkflowContext) -> list[str]:
    return [ctx.config["shop"], await shop_in_transaction(ctx), await shop_in_communicator(ctx)]


@operon.workflow
async def first_note(ctx: WorkflowContext) -> str:
    first: str = await ctx.fetchval("select note from notes order by id limit 1")
    return first


@pytest.fixture(scope="module")
async def runtime() -> AsyncIterator[TestRuntime]:
    async with TestRuntime(__name__, poll_seconds=0.2, config={"shop": "Quill & Co"}) as runtime:
        yield runtime


async def notes(runtime: TestRuntime, note: str) -> int:
    found: int = await runtime.fetchval("select count(*) from notes where note = $1", note)
    return found


async def test_a_workflow_runs_a_transaction_and_gives_its_result(runtime: TestRuntime) -> None:
    handle = await note_down(runtime.context, "hello")

    assert await handle.get_result() == "HELLO"
    assert await notes(runtime, "hello") == 1


async def test_a_transaction_without_a_result_has_none_the_first_time_and_every_time(runtime: TestRuntime) -> None:
    ctx = runtime.app.context(workflow_uuid=uuid4())

    results: list[Any] = [await write_silently(ctx, "silent") for _ in range(3)]  # type: ignore[func-returns-value]

    assert results == [None, None, None]
    assert calls["silent"] == 1
    assert await notes(runtime, "silent") == 1


async def test_a_hundred_workflows_one_after_another_succeed(runtime: TestRuntime) -> None:
    for number in range(100):
        handle = await note_down(runtime.context, f"hundred {number}")
        assert await handle.get_result() == f"HUNDRED {number}"

    assert await runtime.fetchval("select count(*) from notes where note like 'hundred %'") == 100


async def test_a_failing_transaction_is_rolled_back_alone_and_its_error_reaches_the_caller(
    runtime: TestRuntime,
) -> None:
    handle = await note_down_then_fail(runtime.context, "kept", "dropped")

    with pytest.raises(OutOfInk, match="dropped"):
        await handle.get_result()
    assert await notes(runtime, "kept") == 1
    assert await notes(runtime, "dropped") == 0


async def test_a_single_communicator_runs_once_for_each_uuid(runtime: TestRuntime) -> None:
    ctx = runtime.app.context(workflow_uuid=uuid4())

    first = await post_letter(ctx, "letter")
    again = await post_letter(ctx, "letter")
    another = await post_letter(runtime.context, "letter")

    assert (first, again, another) == (1, 1, 2)


async def test_an_error_is_recorded_and_given_again_without_running_anything(runtime: TestRuntime) -> None:
    ctx = runtime.app.context(workflow_uuid=uuid4())

    for _ in range(3):
        handle = await fail_and_count(ctx, "ink")
        with pytest.raises(OutOfInk, match="ink"):
            await handle.get_result()

    assert calls["ink"] == 1
    assert calls["body of ink"] == 1


async def test_a_checkpoint_commits_in_the_database_transaction_of_the_users_own_writes(runtime: TestRuntime) -> None:
    handle = await write_and_read(runtime.context, "same transaction")
    assert await handle.get_result() == 1

    [row] = await runtime.fetch(
        "select c.xmin = n.xmin as together from operon.checkpoints c, notes n "
        "where c.workflow_uuid = $1 and c.step = 0 and n.note = 'same transaction'",
        handle.workflow_uuid,
    )

    assert row["together"]


async def test_what_a_read_only_transaction_found_is_recorded_too(runtime: TestRuntime) -> None:
    ctx = runtime.app.context(workflow_uuid=uuid4())
    before = await count(ctx, "counted")
    await write(runtime.context, "counted")

    again = await count(ctx, "counted")
    anew = await count(runtime.context, "counted")

    assert (before, again, anew) == (0, 0, 1)
    assert calls["counted"] == 2


async def test_the_status_is_pending_while_it_runs_and_success_afterwards_on_every_handle(runtime: TestRuntime) -> None:
    handle = await wait(runtime.context, "status")
    retrieved = runtime.context.retrieve_workflow(handle.workflow_uuid)
    await gates["status"].reached.wait()

    running = [await handle.get_status(), await retrieved.get_status()]
    gates["status"].open()
    await handle.get_result()
    finished = [await handle.get_status(), await retrieved.get_status()]

    assert [status and status.status for status in running] == [Status.PENDING, Status.PENDING]
    assert [status and status.status for status in finished] == [Status.SUCCESS, Status.SUCCESS]
    assert {status and status.workflow_name for status in running + finished} == {"wait"}
    assert {status and status.workflow_uuid for status in running + finished} == {handle.workflow_uuid}


async def test_a_retrieved_handle_gives_the_result_and_knows_its_uuid(runtime: TestRuntime) -> None:
    started = await note_down(runtime.context, "retrieved")

    by_uuid = runtime.context.retrieve_workflow(started.workflow_uuid)
    by_text = runtime.context.retrieve_workflow(str(started.workflow_uuid))

    assert await by_uuid.get_result() == await by_text.get_result() == "RETRIEVED"
    assert by_uuid.workflow_uuid == by_text.workflow_uuid == started.workflow_uuid


async def test_an_initializer_ran_before_any_workflow_with_a_configuration_and_a_database(
    runtime: TestRuntime,
) -> None:
    handle = await first_note(runtime.context)

    assert await handle.get_result() == "initialized for Quill & Co"
    assert initialized == ["Quill & Co"]


async def test_every_kind_of_operation_sees_the_configuration(runtime: TestRuntime) -> None:
    handle = await shops(runtime.context)

    assert await handle.get_result() == ["Quill & Co"] * 3
