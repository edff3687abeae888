"""Errors: kept as what they were, recorded where they are an answer, retried where they are weather."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from uuid import uuid4

import asyncpg
import pytest

import operon
from operon.contexts import CommunicatorContext, InitializerContext, TransactionContext, WorkflowContext
from operon.status import Status
from operon.testing import TestRuntime
from tests.acceptance.gates import Gates

calls: Counter[str] = Counter()
gates = Gates()
times: dict[str, list[float]] = {}


class Refused(Exception):
    """A user's error with a code of its own."""

    def __init__(self, reason: str, code: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code


@operon.initializer
async def tables(ctx: InitializerContext) -> None:
    await ctx.client.execute("create table if not exists seats (seat text constraint one_seat primary key)")


@operon.transaction
async def take(tx: TransactionContext, seat: str) -> str:
    calls["take " + seat] += 1
    await tx.client.execute("insert into seats (seat) values ($1)", seat)
    return seat


@operon.transaction(read_only=True)
async def refuse_reading(tx: TransactionContext, name: str) -> int:
    calls[name] += 1
    await tx.client.fetchval("select count(*) from seats")
    raise Refused(name, 7)


@operon.transaction
async def conflict(tx: TransactionContext, name: str, times: int, sqlstate: str) -> int:
    """Fails as Postgres fails a transaction that cannot be serialized, so many times."""
    calls[name] += 1
    await tx.client.execute("insert into seats (seat) values ($1)", f"{name} {calls[name]}")
    if calls[name] <= times:
        await tx.client.execute(f"do $$ begin raise exception 'a conflict' using errcode = '{sqlstate}'; end $$")
    return calls[name]


@operon.transaction(isolation="REPEATABLE READ")
async def swap(tx: TransactionContext, first: str, second: str, name: str) -> None:
    """Locks two rows, one after the other: two of these the wrong way round are a deadlock."""
    calls[name] += 1
    await tx.client.execute("update seats set seat = seat where seat = $1", first)
    if calls[name] == 1:
        gates[name].reached.set()
        await gates[f"not {name}"].pass_()
    await tx.client.execute("update seats set seat = seat where seat = $1", second)


@operon.communicator(retry=operon.Retry(max_attempts=3, interval_seconds=0.2, backoff_rate=1, jitter=False))
async def call(ctx: CommunicatorContext, name: str, fails: int) -> tuple[int, int, str]:
    calls[name] += 1
    times.setdefault(name, []).append(time.monotonic())
    if calls[name] <= fails:
        raise Refused(f"{name} attempt {ctx.attempt}", ctx.attempt)
    return ctx.attempt, ctx.max_attempts, ctx.idempotency_key


@operon.communicator(retry=None)
async def call_once(ctx: CommunicatorContext, name: str) -> None:
    calls[name] += 1
    raise Refused(name, 99)


@operon.communicator(retry=operon.Retry(interval_seconds=0, retry_on=ConnectionError))
def call_unless_refused(ctx: CommunicatorContext, name: str) -> None:
    calls[name] += 1
    raise Refused(name)


@operon.workflow
async def refuse(ctx: WorkflowContext, reason: str, code: int | None) -> None:
    calls[reason] += 1
    raise Refused(reason, code)


@operon.workflow
async def refuse_reading_twice(ctx: WorkflowContext, name: str) -> list[int | None]:
    codes: list[int | None] = []
    for _ in range(2):
        try:
            await refuse_reading(ctx, name)
        except Refused as refused:
            codes.append(refused.code)
    return codes


@operon.workflow
async def take_or_tell(ctx: WorkflowContext, seat: str, gate: str) -> tuple[str, str]:
    """Tells how the database refused, as the workflow sees it before a crash and after one."""
    try:
        taken = await take(ctx, seat)
    except asyncpg.UniqueViolationError as error:
        taken = ""
        told = " ".join(getattr(error, part, "?") for part in ("sqlstate", "table_name", "constraint_name"))
    else:
        told = "taken"
    calls[f"told {seat}"] += 1
    await stop_at(ctx, gate)
    return taken, told


@operon.communicator
async def stop_at(ctx: CommunicatorContext, gate: str) -> None:
    await gates[gate].pass_()


@operon.workflow
async def call_in_workflow(ctx: WorkflowContext, name: str, fails: int) -> str:
    try:
        attempt, attempts, _ = await call(ctx, name, fails)
    except operon.MaxRetriesExceeded as error:
        return f"{error.message}: {[str(one) for one in error.errors]}"
    return f"attempt {attempt} of {attempts}"


class Elsewhere:
    """Operations that were not given to the application."""

    @operon.workflow
    @staticmethod
    async def workflow(ctx: WorkflowContext) -> None: ...

    @operon.transaction
    @staticmethod
    async def transaction(tx: TransactionContext) -> None: ...

    @operon.communicator
    @staticmethod
    async def communicator(ctx: CommunicatorContext) -> None: ...


@operon.workflow
async def reach_elsewhere(ctx: WorkflowContext) -> list[str]:
    refusals: list[str] = []
    for operation in (Elsewhere.workflow, Elsewhere.transaction, Elsewhere.communicator):
        try:
            await operation(ctx)
        except operon.UnknownOperationError as error:
            refusals.append(error.message.split()[0])
    return refusals


@pytest.fixture(scope="module")
async def runtime() -> AsyncIterator[TestRuntime]:
    async with TestRuntime(__name__, poll_seconds=0.2) as runtime:
        yield runtime


@pytest.mark.parametrize("code", [409, None])
async def test_an_error_keeps_its_class_its_message_and_its_code_for_everybody_who_asks(
    runtime: TestRuntime, code: int | None
) -> None:
    handle = await refuse(runtime.context, "no seats", code)
    with pytest.raises(Refused, match=r"^no seats$") as live:
        await handle.get_result()

    retrieved = runtime.context.retrieve_workflow(handle.workflow_uuid)
    status = await retrieved.get_status()
    with pytest.raises(Refused, match=r"^no seats$") as later:
        await retrieved.get_result()

    assert (live.value.reason, live.value.code) == (later.value.reason, later.value.code) == ("no seats", code)
    assert status is not None
    assert (status.status, status.error) == (Status.ERROR, "no seats")


async def test_the_error_of_a_read_only_transaction_is_recorded(runtime: TestRuntime) -> None:
    ctx = runtime.app.context(workflow_uuid=uuid4())

    for _ in range(2):
        with pytest.raises(Refused) as refused:
            await refuse_reading(ctx, "reading")
        assert refused.value.code == 7
    handle = await refuse_reading_twice(runtime.context, "reading in a workflow")

    assert await handle.get_result() == [7, 7]
    assert calls["reading"] == 1
    assert calls["reading in a workflow"] == 2


async def test_the_loser_of_a_key_conflict_is_told_by_the_database_and_told_the_same_on_replay(
    runtime: TestRuntime,
) -> None:
    winner = await take_or_tell(runtime.context, "A1", "winner")
    await gates["winner"].reached.wait()
    loser = await take_or_tell(runtime.context, "A1", "loser")
    await gates["loser"].reached.wait()

    await runtime.crash()
    gates["winner"].open()
    gates["loser"].open()

    assert await winner.get_result() == ("A1", "taken")
    assert await loser.get_result() == ("", "23505 seats one_seat")
    assert calls["take A1"] == 2
    assert calls["told A1"] == 4
    again = await take_or_tell(runtime.app.context(workflow_uuid=winner.workflow_uuid), "A1", "winner")
    assert await again.get_result() == ("A1", "taken")


@pytest.mark.parametrize("sqlstate", ["40001", "40P01"])
async def test_a_transaction_is_run_again_until_it_can_be_serialized_and_has_happened_once(
    runtime: TestRuntime, sqlstate: str
) -> None:
    ran = await conflict(runtime.context, f"conflict {sqlstate}", 10, sqlstate)

    assert ran == 11
    assert await runtime.fetchval("select count(*) from seats where seat like $1", f"conflict {sqlstate} %") == 1


async def test_a_deadlock_is_nobodys_error(runtime: TestRuntime) -> None:
    await take(runtime.context, "left")
    await take(runtime.context, "right")

    async with asyncio.TaskGroup() as group:
        group.create_task(swap(runtime.context, "left", "right", "one"))
        group.create_task(swap(runtime.context, "right", "left", "other"))
        await gates["one"].reached.wait()
        await gates["other"].reached.wait()
        gates["not one"].open()
        gates["not other"].open()

    assert calls["one"] + calls["other"] >= 3  # at least one of them was run again


async def test_a_communicator_that_succeeds_at_its_last_attempt_has_succeeded(runtime: TestRuntime) -> None:
    handle = await call_in_workflow(runtime.context, "third time", 2)

    assert await handle.get_result() == "attempt 3 of 3"
    assert calls["third time"] == 3


async def test_the_interval_between_attempts_is_in_seconds(runtime: TestRuntime) -> None:
    await call(runtime.context, "paced", 2)

    first, second, third = times["paced"]
    assert second - first >= 0.19  # a timer may be a millisecond early by another clock
    assert third - second >= 0.19


async def test_used_up_attempts_are_recorded_with_every_error_and_not_tried_again(runtime: TestRuntime) -> None:
    ctx = runtime.app.context(workflow_uuid=uuid4())

    for _ in range(2):
        with pytest.raises(operon.MaxRetriesExceeded, match="call failed 3 times") as exceeded:
            await call(ctx, "hopeless", 9)
        assert [type(error) for error in exceeded.value.errors] == [Refused] * 3
        assert [str(error) for error in exceeded.value.errors] == [f"hopeless attempt {n}" for n in (1, 2, 3)]
        assert [getattr(error, "code", None) for error in exceeded.value.errors] == [1, 2, 3]

    assert calls["hopeless"] == 3


async def test_without_retries_the_error_itself_is_raised_and_recorded_after_one_attempt(runtime: TestRuntime) -> None:
    ctx = runtime.app.context(workflow_uuid=uuid4())

    for _ in range(2):
        with pytest.raises(Refused, match=r"^only once$") as refused:
            await call_once(ctx, "only once")
        assert refused.value.code == 99

    assert calls["only once"] == 1


async def test_an_error_that_is_not_worth_another_attempt_is_raised_as_it_is(runtime: TestRuntime) -> None:
    with pytest.raises(Refused, match=r"^final$"):
        await call_unless_refused(runtime.context, "final")

    assert calls["final"] == 1


async def test_an_operation_of_another_application_is_refused_with_where_it_is(runtime: TestRuntime) -> None:
    for operation in (Elsewhere.workflow, Elsewhere.transaction, Elsewhere.communicator):
        with pytest.raises(operon.UnknownOperationError, match=r"Elsewhere\.\w+ at .*test_failures.py:\d+") as refused:
            await operation(runtime.context)
        assert refused.value.hint == "pass its module or class to Operon(...)"

    handle = await reach_elsewhere(runtime.context)
    assert await handle.get_result() == ["Elsewhere.workflow", "Elsewhere.transaction", "Elsewhere.communicator"]
