"""What a transaction must not do, and what becomes of one that does: a typed error, no row, no hang."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

import operon
from operon.contexts import InitializerContext, TransactionContext, WorkflowContext
from operon.status import Status
from operon.testing import TestRuntime

calls: Counter[str] = Counter()
kept: list[Any] = []


@operon.initializer
async def tables(ctx: InitializerContext) -> None:
    await ctx.client.execute("create table if not exists books (title text constraint one_book primary key)")


@operon.transaction(read_only=True)
async def write_though_read_only(tx: TransactionContext) -> None:
    calls["read only"] += 1
    await tx.client.execute("insert into books (title) values ('forbidden')")


@operon.transaction
async def commit_yourself(tx: TransactionContext, how: str) -> None:
    calls[how] += 1
    await tx.client.execute("insert into books (title) values ($1)", how)
    await tx.client.execute(how)


@operon.transaction
async def with_savepoint(tx: TransactionContext, title: str) -> None:
    insert = "insert into books (title) values ($1)"
    await tx.client.execute(insert, f"{title} before")
    await tx.client.execute("savepoint here")
    await tx.client.execute(insert, f"{title} between")
    await tx.client.execute("rollback to savepoint here")
    await tx.client.execute(insert, f"{title} after")


@operon.transaction
async def swallow(tx: TransactionContext, title: str) -> str:
    """Catches the database's refusal and goes on as if nothing had been."""
    calls[title] += 1
    await tx.client.execute("insert into books (title) values ($1)", title)
    try:
        await tx.client.execute("insert into books (title) values ($1)", title)
    except asyncpg.UniqueViolationError:
        return "swallowed"
    return "not reached"


@operon.transaction
async def keep_client(tx: TransactionContext) -> None:
    kept.append(tx.client)
    await tx.client.execute("select 1")


@operon.transaction
async def wrong_sql(tx: TransactionContext) -> None:
    calls["wrong sql"] += 1
    await tx.client.execute("selekt 1")


@operon.transaction
async def too_few_arguments(tx: TransactionContext) -> None:
    calls["too few"] += 1
    await tx.client.fetch("insert into books (title) values ($1)")


@operon.transaction
async def argument_of_the_wrong_type(tx: TransactionContext) -> None:
    calls["wrong type"] += 1
    await tx.client.execute("insert into books (title) values ($1)", 42)


@operon.transaction
async def nul_in_text(tx: TransactionContext) -> None:
    calls["nul"] += 1
    await tx.client.execute("insert into books (title) values ($1)", "a\0b")


@operon.transaction
async def two_at_once(tx: TransactionContext) -> Any:
    """One connection can do one thing at a time."""
    calls["two at once"] += 1
    return await asyncio.gather(
        tx.client.fetchval("select 1 from pg_sleep(0.05)"), tx.client.fetchval("select 2 from pg_sleep(0.05)")
    )


@operon.transaction
async def own_timeout(tx: TransactionContext) -> None:
    calls["own timeout"] += 1
    raise TimeoutError("the user's own")


@operon.transaction
async def own_connection_error(tx: TransactionContext) -> None:
    calls["own connection error"] += 1
    raise ConnectionRefusedError("the user's own")


@operon.workflow
async def swallow_then_tell(ctx: WorkflowContext, title: str) -> str:
    try:
        return await swallow(ctx, title)
    except asyncpg.UniqueViolationError as error:
        return f"{error.sqlstate} {getattr(error, 'constraint_name', None)}"


@operon.workflow
async def one_statement(ctx: WorkflowContext, kind: str) -> str:
    statements: dict[str, tuple[Any, ...]] = {
        "wrong sql": ("selekt 1",),
        "too few arguments": ("insert into books (title) values ($1)",),
        "too many arguments": ("insert into books (title) values ('x')", "y"),
        "wrong type": ("insert into books (title) values ($1)", 42),
        "commit": ("commit",),
        "rollback": ("rollback",),
        "two statements": ("select 1; select 2",),
        "empty": ("",),
        "only a comment": ("-- nothing",),
        "unique": ("insert into books (title) values ('twice'), ('twice') returning title",),
    }
    try:
        await ctx.fetch(*statements[kind])
    except Exception as error:
        return type(error).__name__
    return "no error"


@pytest.fixture(scope="module")
async def runtime() -> AsyncIterator[TestRuntime]:
    async with TestRuntime(__name__, poll_seconds=0.2) as runtime:
        yield runtime


async def titles(runtime: TestRuntime) -> set[str]:
    return {row["title"] for row in await runtime.fetch("select title from books")}


async def test_a_read_only_transaction_that_writes_is_refused_by_the_database_once_and_for_all(
    runtime: TestRuntime,
) -> None:
    ctx = runtime.app.context(workflow_uuid=uuid4())

    async with asyncio.timeout(60):
        for _ in range(2):
            with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
                await write_though_read_only(ctx)

    assert calls["read only"] == 1
    assert "forbidden" not in await titles(runtime)


@pytest.mark.parametrize("how", ["commit", "  Commit ;", "rollback", "abort", "end", "begin", "start  transaction"])
async def test_a_transaction_cannot_end_itself_and_leaves_nothing_when_it_tries(runtime: TestRuntime, how: str) -> None:
    ctx = runtime.app.context(workflow_uuid=uuid4())

    for _ in range(2):
        with pytest.raises(operon.InvocationError, match="cannot begin or end itself") as refused:
            await commit_yourself(ctx, how)
        assert refused.value.hint == "no commit and no rollback: return to commit, raise to roll back"

    assert calls[how] == 1
    assert how not in await titles(runtime)


@pytest.mark.parametrize("how", ["/* well */ commit", "select 1; rollback"])
async def test_a_transaction_that_found_a_way_to_end_itself_is_an_error_that_says_so(
    runtime: TestRuntime, how: str
) -> None:
    ctx = runtime.app.context(workflow_uuid=uuid4())

    for _ in range(2):
        with pytest.raises(operon.InvocationError, match="ended its own database transaction"):
            await commit_yourself(ctx, how)

    assert calls[how] == 1


async def test_a_savepoint_may_be_rolled_back_to(runtime: TestRuntime) -> None:
    await with_savepoint(runtime.context, "kept")

    assert {"kept before", "kept after"} == {title for title in await titles(runtime) if title.startswith("kept")}


async def test_a_database_error_that_was_swallowed_is_raised_at_the_end_and_nothing_is_written(
    runtime: TestRuntime,
) -> None:
    async with asyncio.timeout(60):
        handle = await swallow_then_tell(runtime.context, "swallowed")
        told = await handle.get_result()

    assert told == "23505 one_book"
    assert calls["swallowed"] == 1
    assert "swallowed" not in await titles(runtime)


async def test_a_client_that_was_kept_is_refused_after_the_end_in_each_of_its_methods(runtime: TestRuntime) -> None:
    await keep_client(runtime.context)
    client = kept.pop()

    calls_of_it = [
        client.execute("select 1"),
        client.executemany("select $1", [(1,)]),
        client.fetch("select 1"),
        client.fetchrow("select 1"),
        client.fetchval("select 1"),
    ]
    for call in calls_of_it:
        with pytest.raises(operon.InvocationError, match="after its transaction had ended") as refused:
            await call
        assert refused.value.hint is not None
    with pytest.raises(operon.InvocationError):
        client.cursor("select 1")


@pytest.mark.parametrize(
    ("operation", "name", "error"),
    [
        (wrong_sql, "wrong sql", asyncpg.PostgresSyntaxError),
        (too_few_arguments, "too few", asyncpg.InterfaceError),
        (argument_of_the_wrong_type, "wrong type", asyncpg.DataError),
        (nul_in_text, "nul", asyncpg.CharacterNotInRepertoireError),
        (two_at_once, "two at once", asyncpg.InterfaceError),
        (own_timeout, "own timeout", TimeoutError),
        (own_connection_error, "own connection error", ConnectionRefusedError),
    ],
)
async def test_a_mistake_in_a_transaction_is_its_error_after_one_run(
    runtime: TestRuntime, operation: Any, name: str, error: type[Exception]
) -> None:
    uuid = uuid4()
    ctx = runtime.app.context(workflow_uuid=uuid)

    async with asyncio.timeout(60):
        for _ in range(2):
            with pytest.raises(error):
                await operation(ctx)

    status = await runtime.context.retrieve_workflow(uuid).get_status()
    assert status is not None
    assert status.status is Status.ERROR
    assert calls[name] == 1


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("wrong sql", "PostgresSyntaxError"),
        ("too few arguments", "InterfaceError"),
        ("too many arguments", "InterfaceError"),
        ("wrong type", "DataError"),
        ("commit", "InvocationError"),
        ("rollback", "InvocationError"),
        ("two statements", "PostgresSyntaxError"),
        ("empty", "no error"),
        ("only a comment", "no error"),
        ("unique", "UniqueViolationError"),
    ],
)
async def test_a_mistake_in_a_one_statement_transaction_is_its_error_and_holds_up_nobody(
    runtime: TestRuntime, kind: str, error: str
) -> None:
    async with asyncio.timeout(60):
        handles = [await one_statement(runtime.context, kind) for _ in range(2)]
        told = [await handle.get_result() for handle in handles]
        good = await swallow_then_tell(runtime.context, f"beside {kind}")
        await good.get_result()

    assert told == [error, error]


async def test_the_pool_is_whole_after_all_that(runtime: TestRuntime) -> None:
    assert "0 used" in repr(runtime.executor._transactions)  # pyright: ignore[reportPrivateUsage]
