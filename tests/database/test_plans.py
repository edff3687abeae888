"""Plans: however many workflows wait and however many have finished, nothing that runs all the time reads them all.

Counted, not timed: the server counts each scan of a whole table, whoever makes it, also inside of a function.
"""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import pytest

import operon
from operon import EventKey, TransactionContext, WorkflowContext
from operon.testing import TestRuntime

DONE = EventKey("done", int)

FILL = """
insert into operon.workflows (workflow_uuid, name, version, inputs, status, output, owner)
select gen_random_uuid(), 'receive', '', '{{}}', 1, 'null', 1 from generate_series(1, {finished});
insert into operon.workflows (
    workflow_uuid, name, version, inputs, owner, wait_kind, wait_what, wait_topics, wake_at
)
select gen_random_uuid(), 'receive', '', '{{"times": 1}}', 1, 0, 'recv topic', '{{topic}}',
    clock_timestamp() + make_interval(days => 1 + n % 300)
from generate_series(1, {waiting}) as n;
insert into operon.notifications (destination, topic, body)
select workflow_uuid, 'other', '1' from operon.workflows where wait_kind is not null;
insert into operon.events (workflow_uuid, step, key, value)
select workflow_uuid, 0, 'done', '1' from operon.workflows where wait_kind is not null;
insert into operon.waits (target, waiter, key)
select workflow_uuid, workflow_uuid, 'never' from operon.workflows where wait_kind is not null;
insert into operon.monitors (ref, target, watcher)
select gen_random_uuid(), workflow_uuid, workflow_uuid from operon.workflows where wait_kind is not null;
insert into operon.checkpoints (workflow_uuid, step, kind, name, output)
select workflow_uuid, 0, 5, 'now', '1' from operon.workflows where wait_kind is not null;
"""
MOST_READ = 20_000  # rows in all; a fifth of those who wait in the large case
LARGE = ("workflows", "checkpoints", "notifications", "events", "waits", "monitors")
READ = """
select (select sum(idx_tup_read) from pg_stat_user_indexes where schemaname = 'operon' and relname = any ($1))
    + (select sum(seq_tup_read) from pg_stat_user_tables where schemaname = 'operon' and relname = any ($1))
"""
SCANS = "select relname, seq_scan from pg_stat_user_tables where schemaname = 'operon' and relname = any ($1)"


@operon.workflow
async def receive(ctx: WorkflowContext, times: int) -> int:
    """Everything that is written for those who wait."""
    total = 0
    for _ in range(times):
        total += await ctx.recv("topic", 3600)
    await ctx.set_event(DONE, total)
    return total


@operon.transaction
async def note(ctx: TransactionContext) -> None:
    await ctx.client.execute("select 1")


@operon.workflow
async def ask(ctx: WorkflowContext, times: int) -> int | None:
    await note(ctx)
    child = await receive(ctx, times)
    ref = await ctx.monitor(child.workflow_uuid)
    for number in range(times):
        await ctx.send(child.workflow_uuid, number, "topic", idempotency_key=number)
    done, result = await asyncio.gather(ctx.get_event(child.workflow_uuid, DONE), child.get_result())
    down = await ctx.recv(operon.DOWN, required=True)
    return done if done == result and down.ref == ref else None


async def scans(runtime: TestRuntime) -> dict[str, int]:
    """How often each of the large tables was read as a whole, by sessions that have ended."""
    return {row["relname"]: row["seq_scan"] for row in await runtime.fetch(SCANS, list(LARGE))}


async def told(runtime: TestRuntime) -> None:
    """Ends every session of the runtime, and so has each one tell what it has counted."""
    await runtime.restart()
    query = "select count(*) from pg_stat_activity where datname = current_database() and application_name = 'operon'"
    while await runtime.fetchval(query) > 20:  # noqa: ASYNC110 - no bell rings
        await asyncio.sleep(0.01)


async def work(runtime: TestRuntime, *, restart: bool = True) -> list[Any]:
    """Something of everything: parked and brought back, sent to, cancelled in time, recovered."""
    handles = [await ask(runtime.context.using(timeout=3600), 3) for _ in range(10)]
    results = [await handle.get_result(timeout=60) for handle in handles]
    for handle in handles:
        await handle.get_status()
        await runtime.context.get_event(handle.workflow_uuid, DONE, timeout=0)
    if not restart:
        return results
    parked = await receive(runtime.context, 1)
    await runtime.crash()
    await runtime.context.send(parked.workflow_uuid, 7, "topic", idempotency_key="k")
    return [*results, await runtime.context.retrieve_workflow(parked.workflow_uuid).get_result(timeout=60)]


@pytest.mark.parametrize(
    ("waiting", "finished"),
    [
        pytest.param(2_000, 20_000),
        pytest.param(100_000, 1_000_000, marks=pytest.mark.long),
    ],
)
async def test_nothing_that_runs_all_the_time_reads_a_whole_table(waiting: int, finished: int) -> None:
    async with TestRuntime(__name__, evict_always=True, poll_seconds=0.1, check_replay=False) as runtime:
        for statement in FILL.format(waiting=waiting, finished=finished).split(";\n"):
            if statement.strip():
                await runtime.execute(statement)
        await runtime.execute("analyze")
        await told(runtime)
        before, read = await scans(runtime), await runtime.fetchval(READ, LARGE)

        results = await work(runtime)
        await told(runtime)

        assert results == [3] * 10 + [7]
        assert await scans(runtime) == before
        assert await runtime.fetchval(READ, LARGE) - read < MOST_READ


@pytest.mark.parametrize("small", ["empty", "nearly empty"])
async def test_plans_that_were_made_while_the_tables_were_small_do_not_read_them_as_a_whole_later(small: str) -> None:
    """Postgres keeps a plan until a table is analyzed again, and until then a hundred thousand rows may have come."""
    async with TestRuntime(__name__, evict_always=True, poll_seconds=0.1, check_replay=False) as runtime:
        if small == "nearly empty":
            await work(runtime, restart=False)
        await runtime.execute("analyze")
        await work(runtime, restart=False)
        for statement in FILL.format(waiting=2_000, finished=20_000).split(";\n"):
            if statement.strip():
                await runtime.execute(statement)
        await runtime.execute("select pg_stat_force_next_flush()")
        await runtime.execute("select pg_stat_reset()")

        results = await work(runtime, restart=False)
        await told(runtime)

        assert results == [3] * 10
        assert await runtime.fetchval(READ, LARGE) < 5_000


async def test_what_an_application_asks_on_a_connection_of_ours_is_planned_as_on_any_other() -> None:
    settings = (
        "select current_setting('enable_' || n) as value from unnest('{seqscan,hashjoin,mergejoin}'::text[]) as n"
    )
    async with TestRuntime(__name__) as runtime:
        ours = await runtime.executor.look_ups.ask(lambda connection: connection.fetch(settings))

        theirs = await runtime.executor.query(settings)

        assert [row["value"] for row in ours] == ["off"] * 3
        assert [row["value"] for row in theirs] == ["on"] * 3


PARKED = """
insert into operon.workflows (
    workflow_uuid, name, version, inputs, owner, wait_kind, wait_what, wait_topics, wake_at
)
select gen_random_uuid(), 'receive', '', '{"times": 1}', $1, 0, 'recv topic', '{topic}',
    clock_timestamp() + make_interval(days => 1 + n % 300)
from generate_series(1, 100000) as n
"""


async def test_a_restart_reads_nothing_of_a_hundred_thousand_that_are_parked() -> None:
    async with TestRuntime(__name__, poll_seconds=0.1, check_replay=False) as runtime:
        await runtime.execute(PARKED, runtime.executor.incarnation.number)
        await runtime.execute("analyze")
        await told(runtime)
        before = await runtime.fetchval(READ, LARGE)

        await runtime.crash()
        handle = await receive(runtime.context, 1)
        await runtime.context.send(handle.workflow_uuid, 7, "topic")
        assert await handle.get_result(timeout=60) == 7
        await told(runtime)

        assert await runtime.fetchval(READ, LARGE) - before < 1_000


READ_OF_MAILBOXES = (
    "select sum(idx_tup_read)::int from pg_stat_user_indexes where schemaname = 'operon' and relname = 'notifications'"
)


@operon.workflow
async def send(ctx: WorkflowContext, to: UUID, times: int) -> None:
    for number in range(times):
        await ctx.send(to, number, "other")


async def test_a_message_costs_the_same_however_many_are_in_its_mailbox() -> None:
    """Also by plans that were made while there were none."""
    async with TestRuntime(__name__, park_after_seconds=0, check_replay=False) as runtime:
        crowded, empty = [(await receive(runtime.context.using(timeout=3600), 9_000)).workflow_uuid for _ in range(2)]
        for times in (1, 3):
            await (await send(runtime.context, empty, times)).get_result(timeout=60)
        await runtime.execute(
            "insert into operon.notifications (destination, topic, body) "
            "select $1, 'other', '1' from generate_series(1, 5000)",
            crowded,
        )

        for times in (1, 3, 20):
            await (await send(runtime.context, crowded, times)).get_result(timeout=60)
        await told(runtime)

        assert await runtime.fetchval(READ_OF_MAILBOXES) < 1_000
