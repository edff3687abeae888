"""The runtime needs no more of the database than to read and write the rows of its own schema and call its functions.

The role that runs the application here owns nothing, may create nothing, and has no rights beside those that
`operon migrate --print-grants` prints; everything that the runtime does is done by it.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import asyncpg
import pytest

import operon
from operon.cli.grants import grants
from operon.database import testbed
from tests.security.conftest import Database

PRICES = operon.Topic("prices", int)


@operon.communicator(retry=operon.Retry(max_attempts=2, interval_seconds=0.01))
async def ask(ctx: operon.CommunicatorContext) -> int:
    if ctx.attempt == 1:
        raise ConnectionError("not yet")
    return ctx.attempt


@operon.transaction
async def write(tx: operon.TransactionContext) -> int:
    return int(await tx.client.fetchval("insert into bookings values (default) returning id"))


@operon.transaction(read_only=True)
async def read(tx: operon.TransactionContext) -> int:
    return int(await tx.client.fetchval("select count(*) from bookings"))


@operon.workflow
async def child(ctx: operon.WorkflowContext, price: int) -> int:
    await ctx.set_event("price", price)
    return price + int(await ctx.fetchval("select 1"))


@operon.workflow
async def everything(ctx: operon.WorkflowContext) -> list[Any]:
    """Every kind of step, and two waits that leave memory."""
    await ctx.set_event("ready", True)
    price = await ctx.recv(PRICES)
    await ctx.sleep_until(ctx.now() + timedelta(seconds=0.3))
    started = await child(ctx, price or 0)
    event = await ctx.get_event(started.workflow_uuid, "price", owned=True)
    return [price, event, await started.get_result(), await ask(ctx), await write(ctx), await read(ctx)]


@pytest.fixture
async def least(database: Database) -> Database:
    """The database, with the printed rights for the role and a table of the application's own."""
    await testbed.execute(database.url, grants(database.owner, database.role))
    await testbed.execute(database.url, "create table public.bookings (id int generated always as identity)")
    await testbed.execute(database.url, f"grant select, insert on public.bookings to {database.role}")
    return database


async def test_a_role_that_may_only_read_and_write_rows_runs_everything(least: Database) -> None:
    app = operon.Operon(__name__, database_url=least.as_role, park_after_seconds=0.05, poll_seconds=0.2)
    async with app:
        handle = await everything(app.context(user="ada"))
        await app.context().get_event(handle.workflow_uuid, "ready")
        await app.executor.crash()
        await app.context(user="ada").send(handle.workflow_uuid, 7, PRICES, idempotency_key="once", owned=True)
        result = await app.context().retrieve_workflow(handle.workflow_uuid).get_result(timeout=60)
        await app.context().send(handle.workflow_uuid, 8, PRICES, ignore_finished=True)
        cancelled = await everything(app.context())
        await cancelled.cancel()
        with pytest.raises(operon.WorkflowCancelledError):
            await cancelled.get_result(timeout=60)

    assert result == [7, 7, 8, 2, 1, 1]


@pytest.mark.parametrize(
    "statement",
    [
        "create table operon.mine (id int)",
        "create schema mine",
        "drop table operon.checkpoints",
        "truncate operon.checkpoints",
        "alter table operon.workflows disable trigger all",
        "create or replace function operon.clock() returns timestamptz language sql as 'select now()'",
        "create role another",
        "select pg_read_file('/etc/hostname')",
        "copy operon.workflows to program 'cat'",
        "set role postgres",
    ],
)
async def test_the_same_role_may_do_nothing_else(least: Database, statement: str) -> None:
    with pytest.raises((asyncpg.InsufficientPrivilegeError, asyncpg.InvalidParameterValueError)):
        await testbed.execute(least.as_role, statement)


async def test_without_rights_on_the_schema_an_application_does_not_start(database: Database) -> None:
    app = operon.Operon(__name__, database_url=database.as_role)

    with pytest.raises((operon.OperonError, asyncpg.InsufficientPrivilegeError)):
        async with app:
            pass
