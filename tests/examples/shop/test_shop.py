"""The shop over HTTP: one order, one payment, and a stock that is right however it ends."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import httpx
import pytest

from tests.examples.shop.stage import Stage


async def test_a_paid_order_is_handed_out(open_stage: Stage) -> None:
    order = uuid4()

    said = await open_stage.decide(await open_stage.checkout("cup", order), "pay")

    assert [said, await open_stage.state(order)] == ["paid", "paid"]
    assert await open_stage.in_shop("select stock from products where product = 'cup'") == [(11,)]
    assert await open_stage.at_provider("select cents from charges") == [(499,)]


async def test_a_cancelled_order_is_put_back(open_stage: Stage) -> None:
    order = uuid4()

    said = await open_stage.decide(await open_stage.checkout("cup", order), "cancel")

    assert [said, await open_stage.state(order)] == ["cancelled", "cancelled"]
    assert await open_stage.in_shop("select stock from products where product = 'cup'") == [(12,)]
    assert await open_stage.at_provider("select cents from charges") == []


async def test_the_last_one_is_sold_once(open_stage: Stage) -> None:
    first, second = uuid4(), uuid4()

    await open_stage.checkout("samovar", first)
    to_pay = await open_stage.checkout("samovar", second)

    assert to_pay == f"{open_stage.shop_url}/orders/{second}"
    assert await open_stage.state(second) == "sold out"


async def test_a_form_that_is_sent_twice_is_one_order(open_stage: Stage) -> None:
    order = uuid4()

    urls = await asyncio.gather(*(open_stage.checkout("cup", order) for _ in range(3)))

    assert len(set(urls)) == 1
    assert await open_stage.in_shop("select stock from products where product = 'cup'") == [(11,)]


async def test_only_the_first_decision_counts(open_stage: Stage) -> None:
    order = uuid4()
    url = await open_stage.checkout("cup", order)

    said = await asyncio.gather(*(open_stage.decide(url, "pay") for _ in range(3)))
    too_late = await open_stage.decide(url, "cancel")

    assert [*said, too_late] == ["paid"] * 4
    assert await open_stage.at_provider("select cents from charges") == [(499,)]


async def test_who_forges_the_webhook_gets_nothing_for_free(open_stage: Stage) -> None:
    order = uuid4()
    await open_stage.checkout("cup", order)

    forged = await open_stage.customer.post(
        f"{open_stage.shop_url}/orders/{order}/settled", json={"session": str(uuid4())}
    )

    assert forged.status_code == 204
    assert await open_stage.state(order) == "cancelled"


async def test_an_order_that_nobody_pays_is_closed_at_the_provider_too(stage: Stage) -> None:
    order = uuid4()
    async with stage.provider(), stage.shop(PAYMENT_SECONDS="0.1"):
        url = await stage.checkout("cup", order)

        state = await stage.state(order)
        too_late = await stage.decide(url, "pay")

    assert [state, too_late] == ["cancelled", "cancelled"]
    assert await stage.at_provider("select cents from charges") == []
    assert await stage.in_shop("select stock from products where product = 'cup'") == [(12,)]


async def test_both_are_killed_while_the_customer_thinks_and_the_payment_goes_through(stage: Stage) -> None:
    order = uuid4()
    async with stage.provider() as provider, stage.shop() as shop:
        url = await stage.checkout("cup", order)
        await asyncio.gather(provider.kill(), shop.kill())

    async with stage.provider(), stage.shop():
        said = await stage.decide(url, "pay")
        state = await stage.state(order)

    assert [said, state] == ["paid", "paid"]
    assert await stage.at_provider("select cents from charges") == [(499,)]


async def test_a_payment_while_the_shop_is_down_reaches_it_when_it_is_back(stage: Stage) -> None:
    order = uuid4()
    async with stage.provider():
        async with stage.shop() as shop:
            url = await stage.checkout("cup", order)
            await shop.kill()
        said = await stage.decide(url, "pay")

        async with stage.shop():
            state = await stage.state(order)

    assert [said, state] == ["paid", "paid"]


@pytest.mark.long
async def test_without_a_provider_nothing_stays_reserved(stage: Stage) -> None:
    order = uuid4()
    async with stage.shop():
        url = await stage.checkout("cup", order)  # some ten seconds of attempts

        state = await stage.state(order)

    assert url == f"{stage.shop_url}/orders/{order}"
    assert state == "cancelled, for payments are out of order"
    assert await stage.in_shop("select stock from products where product = 'cup'") == [(12,)]


async def test_the_index_lists_products_and_orders(open_stage: Stage) -> None:
    await open_stage.checkout("cup", uuid4())

    page = (await open_stage.customer.get(open_stage.shop_url)).text
    orders = (await open_stage.customer.get(f"{open_stage.shop_url}/orders")).json()

    assert [text in page for text in ("cup", "4.99", "samovar", "reserved")] == [True] * 4
    assert [(each["product"], each["state"]) for each in orders] == [("cup", "reserved")]


async def test_an_unknown_session_is_not_found(open_stage: Stage) -> None:
    answers = [
        await open_stage.customer.get(f"{open_stage.payment_url}/pay/{uuid4()}"),
        await open_stage.customer.get(f"{open_stage.shop_url}/orders/{uuid4()}"),
    ]

    assert [answer.status_code for answer in answers] == [httpx.codes.NOT_FOUND] * 2
