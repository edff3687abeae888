"""Workflows and messages from psql, triggers and other languages: `operon.start` and `operon.send`, in plain SQL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import msgspec
import pytest

import operon
from operon import InitializerContext, Operon, Status, Topic, WorkflowContext
from operon.testing import TestRuntime
from tests.acceptance.facts import parked, until, waits_for


class Payment(msgspec.Struct, frozen=True):
    cents: int


PAYMENT = Topic("payment", Payment)

TABLES = """
create table orders (id integer primary key, workflow uuid);
create table payments (workflow uuid, cents integer);

create function start_order() returns trigger language plpgsql as $$
begin
    new.workflow := operon.start('checkout', json_build_object('show', 'Hamlet', 'seats', new.id));
    return new;
end $$;
create trigger start_order before insert on orders for each row execute function start_order();

create function pay() returns trigger language plpgsql as $$
begin
    perform operon.send(new.workflow, json_build_object('cents', new.cents), 'payment');
    return new;
end $$;
create trigger pay after insert on payments for each row execute function pay();
"""


@operon.initializer
async def tables(ctx: InitializerContext) -> None:
    if await ctx.client.fetchval("select to_regclass('orders')") is None:
        await ctx.client.execute(TABLES)


@operon.workflow
async def checkout(ctx: WorkflowContext, show: str, seats: int = 1) -> str:
    payment = await ctx.recv(PAYMENT, required=True)
    return f"{seats} of {show} for {payment.cents}"


@operon.workflow
async def receive(ctx: WorkflowContext, times: int = 1) -> list[Any]:
    return [await ctx.recv() for _ in range(times)]


@pytest.fixture(scope="module")
async def runtime() -> AsyncIterator[TestRuntime]:
    async with TestRuntime(__name__, poll_seconds=0.2) as runtime:
        yield runtime


@pytest.fixture
async def psql(runtime: TestRuntime) -> AsyncIterator[asyncpg.Connection]:
    """A connection that knows nothing of the runtime."""
    connection = await asyncpg.connect(runtime.database_url)
    yield connection
    await connection.close()


async def result(runtime: TestRuntime, workflow_uuid: UUID) -> Any:
    return await runtime.context.retrieve_workflow(workflow_uuid).get_result(timeout=60)


# ---------------------------------------------------------------------- start


async def test_a_workflow_is_started_with_its_arguments_by_name(runtime: TestRuntime, psql: asyncpg.Connection) -> None:
    uuid = await psql.fetchval("""select operon.start('checkout', '{"show": "Hamlet", "seats": 2}')""")
    await psql.execute("""select operon.send($1, '{"cents": 50}', 'payment')""", uuid)

    assert await result(runtime, uuid) == "2 of Hamlet for 50"


async def test_defaults_of_the_operation_count(runtime: TestRuntime, psql: asyncpg.Connection) -> None:
    uuid = await psql.fetchval("""select operon.start(name => 'checkout', inputs => '{"show": "Lear"}')""")
    await psql.execute("""select operon.send(destination => $1, body => '{"cents": 7}', topic => 'payment')""", uuid)

    assert await result(runtime, uuid) == "1 of Lear for 7"


async def test_a_chosen_uuid_makes_a_start_idempotent(runtime: TestRuntime, psql: asyncpg.Connection) -> None:
    uuid = uuid4()

    started = [await psql.fetchval("select operon.start('receive', '{}', $1)", uuid) for _ in range(3)]
    attached = await receive(runtime.context.using(workflow_uuid=uuid))
    await psql.execute("select operon.send($1, '1')", uuid)

    assert started == [uuid] * 3
    assert await attached.get_result() == [1]


async def test_a_uuid_of_another_operation_is_refused(runtime: TestRuntime, psql: asyncpg.Connection) -> None:
    handle = await receive(runtime.context)

    with pytest.raises(asyncpg.PostgresError, match="another operation") as raised:
        await psql.execute("""select operon.start('checkout', '{"show": "Hamlet"}', $1)""", handle.workflow_uuid)

    assert raised.value.sqlstate == "OP409"


@pytest.mark.parametrize("inputs", ["[1]", '"text"', "null", "7"])
async def test_arguments_without_names_are_refused(psql: asyncpg.Connection, inputs: str) -> None:
    with pytest.raises(asyncpg.InvalidParameterValueError, match="arguments by name"):
        await psql.execute("select operon.start('receive', $1)", inputs)


async def test_wrong_arguments_are_the_workflows_error(runtime: TestRuntime, psql: asyncpg.Connection) -> None:
    uuid = await psql.fetchval("""select operon.start('checkout', '{"show": 7}')""")

    with pytest.raises(operon.DecodingError, match="show"):
        await result(runtime, uuid)


async def test_an_operation_that_nobody_has_waits_until_somebody_does(
    runtime: TestRuntime, psql: asyncpg.Connection
) -> None:
    uuid = await psql.fetchval("select operon.start('of another application')")

    status = await runtime.context.retrieve_workflow(uuid).get_status()

    assert status is not None
    assert (status.status, status.executor) == (Status.PENDING, None)


# ---------------------------------------------------------------------- the caller's transaction


async def test_what_was_rolled_back_has_not_happened(runtime: TestRuntime, psql: asyncpg.Connection) -> None:
    handle = await receive(runtime.context)
    uuid = uuid4()

    async with psql.transaction():
        savepoint = psql.transaction()
        await savepoint.start()
        await psql.execute("select operon.start('receive', '{}', $1)", uuid)
        await psql.execute("select operon.send($1, '1')", uuid)
        await psql.execute("select operon.send($1, '\"rolled back\"', null, 'key')", handle.workflow_uuid)
        await savepoint.rollback()
    await psql.execute("select operon.send($1, '\"committed\"', null, 'key')", handle.workflow_uuid)

    assert await handle.get_result() == ["committed"]
    assert await runtime.context.retrieve_workflow(uuid).get_status() is None


async def test_what_is_not_committed_is_not_seen(runtime: TestRuntime, psql: asyncpg.Connection) -> None:
    handle = await receive(runtime.context)
    await waits_for(handle, "recv")

    async with psql.transaction():
        await psql.execute("select operon.send($1, '1')", handle.workflow_uuid)
        with pytest.raises(operon.ResultTimeout):
            await handle.get_result(timeout=0.3)

    assert await handle.get_result() == [1]


async def test_a_trigger_starts_a_workflow_and_another_one_sends_to_it(
    runtime: TestRuntime, psql: asyncpg.Connection
) -> None:
    uuid = await psql.fetchval("insert into orders (id) values (3) returning workflow")
    await psql.execute("insert into payments values ($1, 150)", uuid)

    assert await result(runtime, uuid) == "3 of Hamlet for 150"


async def test_a_trigger_that_fails_later_starts_nothing(runtime: TestRuntime, psql: asyncpg.Connection) -> None:
    await psql.execute("insert into orders (id) values (4)")
    before = await runtime.fetchval("select count(*) from operon.workflows")

    with pytest.raises(asyncpg.UniqueViolationError):
        await psql.execute("insert into orders (id) values (5), (6), (4)")

    assert await runtime.fetchval("select count(*) from operon.workflows") == before


async def test_a_transaction_of_a_workflow_may_send_too(runtime: TestRuntime, psql: asyncpg.Connection) -> None:
    handle = await receive(runtime.context)
    other = await send_by_sql(runtime.context, handle.workflow_uuid)

    await other.get_result()

    assert await handle.get_result() == ["from a transaction"]


@operon.workflow
async def send_by_sql(ctx: WorkflowContext, to: UUID) -> None:
    await ctx.execute("select operon.send($1, '\"from a transaction\"')", to)


# ---------------------------------------------------------------------- send


async def test_messages_of_sql_and_of_python_are_one_queue(runtime: TestRuntime, psql: asyncpg.Connection) -> None:
    handle = await receive(runtime.context, 4)

    for number in range(0, 4, 2):
        await psql.execute("select operon.send($1, $2)", handle.workflow_uuid, str(number))
        await runtime.context.send(handle.workflow_uuid, number + 1)

    assert await handle.get_result() == [0, 1, 2, 3]


async def test_an_idempotency_key_counts_once(runtime: TestRuntime, psql: asyncpg.Connection) -> None:
    handle = await receive(runtime.context, 2)
    query = "select operon.send($1, $2, idempotency_key => 'quote \" and \\ and ünï\n')"

    told = [await psql.fetchval(query, handle.workflow_uuid, str(number)) for number in range(2)]
    await runtime.context.send(handle.workflow_uuid, 7, idempotency_key='quote " and \\ and ünï\n')
    await runtime.context.send(handle.workflow_uuid, "end")

    assert told == [True, False]
    assert await handle.get_result() == [0, "end"]


async def test_a_parked_workflow_is_woken(psql: asyncpg.Connection) -> None:
    async with TestRuntime(__name__, evict_always=True, poll_seconds=0.2) as runtime:
        handle = await receive(runtime.context)
        await parked(runtime, handle.workflow_uuid)

        await runtime.execute("select operon.send($1, '1')", handle.workflow_uuid)

        assert await handle.get_result(timeout=60) == [1]


async def test_a_parked_workflow_whose_executor_is_gone_is_woken_by_another(runtime: TestRuntime) -> None:
    async with Operon(__name__, database_url=runtime.database_url, park_after_seconds=0) as other:
        handle = await receive(other.context())
        await until(lambda: handle.workflow_uuid not in other.executor.incarnation.live)

    await runtime.execute("select operon.send($1, '1')", handle.workflow_uuid)

    assert await result(runtime, handle.workflow_uuid) == [1]


async def test_what_cannot_be_sent_says_why(runtime: TestRuntime, psql: asyncpg.Connection) -> None:
    handle = await receive(runtime.context, 0)
    await handle.get_result()
    await handle.get_status()
    waiting = await receive(runtime.context)
    codes: list[str | None] = []

    for statement, *args in [
        ("select operon.send($1, '1')", uuid4()),
        ("select operon.send($1, '1', '')", waiting.workflow_uuid),
        ("select operon.send($1, '1', 'unwanted', mailbox_limit => 0)", waiting.workflow_uuid),
    ]:
        with pytest.raises(asyncpg.PostgresError) as raised:
            await psql.execute(statement, *args)
        codes.append(raised.value.sqlstate)
    sent = await psql.fetchval("select operon.send($1, '1')", handle.workflow_uuid)

    assert codes == ["OP404", "22023", "OP429"]
    assert sent is False
    query = "select reason from operon.dead_letters where destination = $1"
    assert await runtime.fetchval(query, handle.workflow_uuid) == "finished"
