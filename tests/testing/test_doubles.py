"""Doubles: another function in the place of a step's, recorded and recovered like the real one, and gone afterwards."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest

import operon
from operon import CommunicatorContext, TransactionContext, WorkflowContext
from operon.errors import InvocationError
from operon.testing import TestRuntime


@operon.communicator(retry=operon.Retry(max_attempts=3, interval_seconds=0.001))
async def charge(ctx: CommunicatorContext, card: str) -> bool:
    raise AssertionError("the real bank was called")


@operon.communicator
def weigh(ctx: CommunicatorContext) -> int:
    return 1


@operon.transaction
async def stock(tx: TransactionContext, item: str) -> int:
    found: int = await tx.client.fetchval("select 7")
    return found


@operon.workflow
async def buy(ctx: WorkflowContext, card: str) -> tuple[bool, int]:
    paid = await charge(ctx, card)
    return paid, await stock(ctx, "book")


class Shelf:
    @operon.transaction
    @staticmethod
    async def books(tx: TransactionContext) -> int:
        return 3


@pytest.fixture
async def runtime() -> AsyncGenerator[TestRuntime]:
    async with TestRuntime(__name__, Shelf) as runtime:
        yield runtime


async def pay(ctx: CommunicatorContext, card: str) -> bool:
    return card == "4242"


async def test_a_double_answers_in_the_place_of_a_communicator(runtime: TestRuntime) -> None:
    with runtime.double(charge, pay):
        paid = await (await buy(runtime.context, "4242")).get_result()
        declined = await (await buy(runtime.context, "1111")).get_result()

    assert (paid, declined) == ((True, 7), (False, 7))


async def test_a_double_answers_in_the_place_of_a_transaction(runtime: TestRuntime) -> None:
    async def sold_out(tx: TransactionContext, item: str = "") -> int:
        return int(await tx.client.fetchval("select 0"))

    with runtime.double(charge, pay), runtime.double(stock, sold_out), runtime.double(Shelf.books, sold_out):
        assert await (await buy(runtime.context, "4242")).get_result() == (True, 0)
        assert await Shelf.books(runtime.context) == 0


async def test_the_real_one_is_back_afterwards(runtime: TestRuntime) -> None:
    async def broken(tx: TransactionContext) -> int:
        raise LookupError

    with pytest.raises(LookupError), runtime.double(Shelf.books, broken):
        await Shelf.books(runtime.context)

    assert await Shelf.books(runtime.context) == 3


async def test_a_double_in_a_double_is_the_one_that_counts(runtime: TestRuntime) -> None:
    async def two(ctx: CommunicatorContext) -> int:
        return 2

    with runtime.double(weigh, two):
        with runtime.double(weigh, lambda ctx: 3):  # in a thread, as the real one
            inner = await weigh(runtime.context)
        outer = await weigh(runtime.context)

    assert (inner, outer, await weigh(runtime.context)) == (3, 2, 1)


async def test_a_double_is_recorded_and_tried_again_like_the_real_one(runtime: TestRuntime) -> None:
    keys: list[str] = []

    async def fail_twice(ctx: CommunicatorContext, card: str) -> bool:
        keys.append(ctx.idempotency_key)
        if ctx.attempt < 3:
            raise ConnectionError("the bank is closed")
        return True

    with runtime.double(charge, fail_twice):
        handle = await buy(runtime.context, "4242")
        await handle.get_result()

    assert keys == [f"{handle.workflow_uuid}:0"] * 3
    rows = await runtime.fetch("select name, kind, attempts, output from operon.readable_checkpoints order by step")
    assert [tuple(row) for row in rows] == [
        ("charge", "communicator", 3, "true"),
        ("stock", "transaction", 1, "7"),
    ]


async def test_a_double_is_called_once_for_each_crash_at_most(runtime: TestRuntime) -> None:
    keys: set[str] = set()

    async def paid(ctx: CommunicatorContext, card: str) -> bool:
        keys.add(ctx.idempotency_key)
        return True

    with runtime.double(charge, paid):
        async for _crash in runtime.crash_everywhere():
            handle = await buy(runtime.context, "4242")

            assert await handle.get_result() == (True, 7)
            assert len(keys) == 1


def test_a_workflow_has_no_double() -> None:
    with pytest.raises(InvocationError, match="only communicators and transactions"):
        TestRuntime(__name__).double(buy, pay).__enter__()  # type: ignore[call-overload]  # pyright: ignore


def test_the_double_of_a_transaction_is_async() -> None:
    with pytest.raises(InvocationError, match="async def"):
        TestRuntime(__name__).double(Shelf.books, lambda tx: 1).__enter__()  # type: ignore  # pyright: ignore
