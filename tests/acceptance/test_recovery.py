"""After a death: what was pending goes on, with its user and its place, and what somebody alive runs is left alone."""

from __future__ import annotations

import asyncio
from collections import Counter
from uuid import uuid4

import operon
from operon.app import Operon
from operon.contexts import CommunicatorContext, InitializerContext, TransactionContext, WorkflowContext
from operon.status import Status
from operon.testing import TestRuntime
from tests.acceptance.gates import gates

calls: Counter[str] = Counter()
order: list[str] = []


class Shop:
    @operon.initializer
    @staticmethod
    async def tables(ctx: InitializerContext) -> None:
        order.append("initializer")
        await ctx.client.execute("create table if not exists sales (sale text not null)")

    @operon.transaction
    @staticmethod
    async def sell(tx: TransactionContext, sale: str) -> str:
        await tx.client.execute("insert into sales (sale) values ($1)", sale)
        return f"{sale} to {tx.authenticated_user} as {','.join(tx.authenticated_roles)}"

    @operon.communicator
    @staticmethod
    async def deliver(ctx: CommunicatorContext, sale: str) -> str:
        calls[sale] += 1
        keys.setdefault(sale, set()).add(ctx.idempotency_key)
        await gates[sale].pass_()
        return f"by {ctx.authenticated_user}"

    @operon.workflow
    @staticmethod
    async def order(ctx: WorkflowContext, sale: str) -> list[str]:
        order.append("body")
        calls[f"body of {sale}"] += 1
        return [await ctx.invoke(Shop).sell(sale), await ctx.invoke(Shop).deliver(sale)]


keys: dict[str, set[str]] = {}


class OldShop:
    """An application that has forgotten `Shop.order`."""

    @operon.workflow
    @staticmethod
    async def other(ctx: WorkflowContext) -> str:
        return "other"


async def test_a_pending_workflow_goes_on_after_a_crash_with_its_user_and_every_handle_has_its_result() -> None:
    async with TestRuntime(Shop, poll_seconds=0.2) as runtime:
        ctx = runtime.app.context(user="ada", roles=("buyer", "admin"))
        handle = await Shop.order(ctx, "book")
        await gates["book"].reached.wait()

        await runtime.crash()
        recovered = runtime.context.retrieve_workflow(handle.workflow_uuid)
        gates["book"].open()

        result = await handle.get_result()
        status = await recovered.get_status()
        assert result == await recovered.get_result() == ["book to ada as buyer,admin", "by ada"]
        assert calls["body of book"] == 2
        assert len(keys["book"]) == 1  # one idempotency key for every attempt
        assert await runtime.fetchval("select count(*) from sales") == 1
        assert status is not None
        assert (status.authenticated_user, status.authenticated_roles) == ("ada", ("buyer", "admin"))
        assert status.attempts == 2


async def test_an_orderly_restart_waits_for_what_runs_and_the_next_life_has_its_result() -> None:
    async with TestRuntime(Shop, poll_seconds=0.2) as runtime:
        handle = await Shop.order(runtime.app.context(user="ada"), "pen")
        await gates["pen"].reached.wait()
        gates["pen"].open()

        await runtime.restart()

        retrieved = runtime.context.retrieve_workflow(handle.workflow_uuid)
        assert await retrieved.get_result() == ["pen to ada as ", "by ada"]
        assert calls["pen"] == 1
        assert await runtime.fetchval("select count(*) from sales") == 1


async def test_a_shutdown_that_cannot_wait_leaves_the_rest_to_the_next_life() -> None:
    async with TestRuntime(Shop, poll_seconds=0.2, shutdown_seconds=0.1) as runtime:
        handle = await Shop.order(runtime.app.context(user="ada"), "ink")
        await gates["ink"].reached.wait()

        await runtime.restart()
        gates["ink"].open()

        retrieved = runtime.context.retrieve_workflow(handle.workflow_uuid)
        assert await retrieved.get_result() == ["ink to ada as ", "by ada"]
        assert calls["ink"] == 2
        assert await runtime.fetchval("select count(*) from sales") == 1


async def test_only_the_workflows_of_a_dead_executor_are_taken_over() -> None:
    async with TestRuntime(Shop, poll_seconds=0.2) as runtime:
        dying = Operon(Shop, database_url=runtime.database_url, poll_seconds=0.2)
        async with dying:
            mine = await Shop.order(runtime.app.context(user="ada"), "mine")
            theirs = await Shop.order(dying.context(user="bob"), "theirs")
            await gates["mine"].reached.wait()
            await gates["theirs"].reached.wait()

            await dying.executor.crash()
            gates["mine"].open()
            gates["theirs"].open()

            assert await mine.get_result() == ["mine to ada as ", "by ada"]
            elsewhere = runtime.context.retrieve_workflow(theirs.workflow_uuid)
            assert await elsewhere.get_result() == ["theirs to bob as ", "by bob"]
        mine_status, theirs_status = await mine.get_status(), await elsewhere.get_status()
        assert mine_status is not None
        assert theirs_status is not None
        assert (mine_status.attempts, theirs_status.attempts) == (1, 2)
        assert calls["mine"] == 1
        assert calls["body of theirs"] == 2


async def test_initializers_run_before_what_is_recovered() -> None:
    async with TestRuntime(Shop, poll_seconds=0.2, shutdown_seconds=0.1) as runtime:
        handle = await Shop.order(runtime.app.context(user="ada"), "first things")
        await gates["first things"].reached.wait()
        order.clear()

        await runtime.restart()
        gates["first things"].open()
        await runtime.context.retrieve_workflow(handle.workflow_uuid).get_result()

        assert order == ["initializer", "body"]


async def test_a_workflow_whose_code_is_gone_stays_pending_at_no_cost_and_runs_when_the_code_is_back() -> None:
    async with TestRuntime(Shop, poll_seconds=0.05) as runtime:
        waiting = uuid4()
        async with Operon(Shop, database_url=runtime.database_url, shutdown_seconds=0.05) as shop:
            await Shop.order(shop.context(user="ada", workflow_uuid=waiting), "patient")
            await gates["patient"].reached.wait()
            await runtime.app.__aexit__(None, None, None)
        async with Operon(OldShop, database_url=runtime.database_url, poll_seconds=0.05) as old:
            # It looks for work, several times, while it does its own.
            looks = 0
            while looks < 20:
                assert await (await OldShop.other(old.context())).get_result() == "other"
                looks += 1
            pending = await old.context().retrieve_workflow(waiting).get_status()

        gates["patient"].open()
        await runtime.app.__aenter__()
        result = await runtime.context.retrieve_workflow(waiting).get_result()

        assert pending is not None
        assert (pending.status, pending.executor) == (Status.PENDING, None)
        assert result == ["patient to ada as ", "by ada"]
        budget = "select crash_count from operon.workflows where workflow_uuid = $1"
        assert await runtime.fetchval(budget, waiting) == 0


async def test_a_caller_who_waits_through_a_crash_gets_the_result() -> None:
    async with TestRuntime(Shop, poll_seconds=0.2) as runtime:
        handle = await Shop.order(runtime.app.context(user="ada"), "waited for")
        single = asyncio.create_task(Shop.deliver(runtime.app.context(user="bob"), "single"))
        waiting = asyncio.create_task(handle.get_result())
        await gates["waited for"].reached.wait()
        await gates["single"].reached.wait()

        await runtime.crash()
        gates["waited for"].open()
        gates["single"].open()

        assert await waiting == ["waited for to ada as ", "by ada"]
        assert await single == "by bob"


async def test_a_crash_after_any_checkpoint_gives_the_same_result_and_one_sale() -> None:
    gates["everywhere"].open()
    async with TestRuntime(Shop, poll_seconds=0.2) as runtime:
        crashes = 0
        async for crash in runtime.crash_everywhere():
            keys.pop("everywhere", None)
            handle = await Shop.order(runtime.app.context(user="ada"), "everywhere")

            assert await handle.get_result() == ["everywhere to ada as ", "by ada"]
            assert len(keys["everywhere"]) == 1
            assert await runtime.fetchval("select count(*) from sales") == 1
            crashes = crash
        assert crashes == 3
