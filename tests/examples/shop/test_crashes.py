"""The shop is killed at every record of a checkout, one after the other, and started again.

However it goes: the order ends as its customer decided, who is charged for it once or not at all, and the stock is
what it was less what was paid for.
"""

from __future__ import annotations

import asyncio
import signal
from uuid import UUID, uuid4

import pytest

from operon.database import testbed
from tests.examples.shop.stage import Stage

RECORDS_AT_LEAST = 6  # start, reserved, session, event, deadline or message, closed, handed out: some travel together
SESSIONS = "select count(*) from operon.workflows where name = 'session'"
OUTCOME = {"pay": "paid", "cancel": "cancelled"}


@pytest.mark.long
@pytest.mark.parametrize(("decision", "when"), [("pay", "before"), ("cancel", "after")])
async def test_an_order_ends_right_wherever_the_shop_is_killed(stage: Stage, decision: str, when: str) -> None:
    async with stage.shop():
        await testbed.execute(stage.shop_database, "update products set stock = 1000 where product = 'cup'")
    number, died = 0, True
    async with stage.provider():
        while died:
            number += 1
            order = uuid4()

            died = await order_in_two_lives(stage, order, decision, f"{when} {number}")

            paid = number if decision == "pay" else 0
            assert await stage.in_shop(f"select state from orders where order_id = '{order}'") == [(OUTCOME[decision],)]
            assert await stage.in_shop("select stock from products where product = 'cup'") == [(1000 - paid,)]
            assert await stage.at_provider("select count(*), count(distinct session) from charges") == [(paid, paid)]
            assert await stage.at_provider(SESSIONS) == [(number,)]
    assert number > RECORDS_AT_LEAST


async def order_in_two_lives(stage: Stage, order: UUID, decision: str, die: str) -> bool:
    """One order of a shop that dies once on the way; whether it has."""
    async with stage.shop("tests.examples.shop.mortal", DIE=die) as shop:
        buying = asyncio.create_task(buy(stage, order, decision))
        dying = asyncio.create_task(shop.died())
        await asyncio.wait((buying, dying), return_when=asyncio.FIRST_COMPLETED)
        died = await shop.stop() == -signal.SIGKILL  # it may die of what it records last, when the customer has gone
        await dying
    async with stage.shop():
        assert await buying == OUTCOME[decision]
    return died


async def buy(stage: Stage, order: UUID, decision: str) -> str:
    await stage.decide(await stage.checkout("cup", order), decision)
    return await stage.state(order)
