"""The bank: no money is lost or made, whatever crashes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from examples import bank
from operon.testing import TestRuntime


@pytest.fixture
async def runtime() -> AsyncGenerator[TestRuntime]:
    async with TestRuntime(bank) as runtime:
        await bank.open_account(runtime.context, "ada", 1000)
        await bank.open_account(runtime.context, "bob", 0)
        yield runtime


async def balances(runtime: TestRuntime) -> dict[str, int]:
    return {row["account"]: row["cents"] for row in await runtime.fetch("select * from accounts")}


async def test_a_transfer_moves_the_money(runtime: TestRuntime) -> None:
    handle = await bank.transfer(runtime.context, "ada", "bob", 300)
    await handle.get_result()

    assert await balances(runtime) == {"ada": 700, "bob": 300}


async def test_a_transfer_of_more_than_there_is_moves_nothing(runtime: TestRuntime) -> None:
    handle = await bank.transfer(runtime.context, "ada", "bob", 1001)

    with pytest.raises(bank.InsufficientFunds, match="ada holds 1000 cents"):
        await handle.get_result()
    assert await balances(runtime) == {"ada": 1000, "bob": 0}


async def test_transfers_at_the_same_moment_do_not_overdraw(runtime: TestRuntime) -> None:
    handles = [await bank.transfer(runtime.context, "ada", "bob", 400) for _ in range(5)]

    results = await asyncio.gather(*(handle.get_result() for handle in handles), return_exceptions=True)

    assert [type(result) for result in results].count(bank.InsufficientFunds) == 3
    assert await balances(runtime) == {"ada": 200, "bob": 800}


@pytest.mark.parametrize(("target", "left"), [("bob", {"ada": 700, "bob": 300}), ("eve", {"ada": 1000, "bob": 0})])
async def test_no_money_is_lost_or_made_wherever_it_crashes(
    runtime: TestRuntime, target: str, left: dict[str, int]
) -> None:
    async for _crash in runtime.crash_everywhere():
        handle = await bank.transfer(runtime.context, "ada", target, 300)
        await asyncio.gather(handle.get_result(), return_exceptions=True)

        assert await balances(runtime) == left


async def test_errors_are_answered_with_their_status(runtime: TestRuntime) -> None:
    client = runtime.app.quart.test_client()

    unknown = await client.get("/accounts/eve")
    too_much = await client.post("/transfers", json={"source": "ada", "target": "bob", "cents": 1001})
    nothing = await client.post("/transfers", json={"source": "ada", "target": "bob", "cents": 0})

    assert [unknown.status_code, too_much.status_code, nothing.status_code] == [404, 409, 400]


async def test_a_transfer_over_http_is_answered_without_content(runtime: TestRuntime) -> None:
    client = runtime.app.quart.test_client()

    moved = await client.post("/transfers", json={"source": "ada", "target": "bob", "cents": 300})
    balance = await client.get("/accounts/bob")

    assert moved.status_code == 204
    assert await balance.get_json() == 300
