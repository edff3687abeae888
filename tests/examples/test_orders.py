"""An order that waits: paid by a message, expired without one, and the same after any crash."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from uuid import UUID, uuid4

import pytest

from examples import orders
from operon.testing import TestRuntime

CARD = orders.Payment("4242", 1999)


@pytest.fixture
async def runtime() -> AsyncGenerator[TestRuntime]:
    async with TestRuntime(orders) as runtime:
        yield runtime


async def test_an_order_is_placed_paid_and_shown_over_http(runtime: TestRuntime) -> None:
    client = runtime.app.quart.test_client()

    placed = await client.post("/orders", json={"item": "teapot"})
    order = UUID(await placed.get_data(as_text=True))
    await runtime.context.get_event(order, orders.STATUS)
    before = await (await client.get(f"/orders/{order}")).get_data(as_text=True)
    paid = await client.post(f"/orders/{order}/payment", json={"card": "4242", "cents": 1999})
    result = await runtime.context.retrieve_workflow(order).get_result()
    after = await (await client.get(f"/orders/{order}")).get_data(as_text=True)

    assert [placed.status_code, paid.status_code] == [200, 204]
    assert [before, result, after] == ["teapot: awaiting payment", True, "teapot: paid"]


async def test_an_order_without_a_payment_expires(runtime: TestRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orders, "PAYMENT_SECONDS", 0.05)

    handle = await orders.order(runtime.context, "teapot")

    assert await handle.get_result() is False
    assert await runtime.context.get_event(handle.workflow_uuid, orders.STATUS) == "teapot: expired"


async def test_a_payment_for_no_order_and_one_too_late_are_refused(
    runtime: TestRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orders, "PAYMENT_SECONDS", 0.05)
    client = runtime.app.quart.test_client()
    handle = await orders.order(runtime.context, "teapot")
    await handle.get_result()

    late = await client.post(f"/orders/{handle.workflow_uuid}/payment", json={"card": "4242", "cents": 1999})
    unknown = await client.post(f"/orders/{uuid4()}/payment", json={"card": "4242", "cents": 1999})

    assert [late.status_code, unknown.status_code] == [409, 404]


async def test_an_order_is_paid_wherever_it_crashes(runtime: TestRuntime) -> None:
    async for _crash in runtime.crash_everywhere():
        handle = await orders.order(runtime.context, "teapot")
        payment = runtime.context.send(handle.workflow_uuid, CARD, orders.PAYMENT, idempotency_key="the only payment")
        await asyncio.gather(payment)

        assert await handle.get_result() is True
        assert await runtime.context.get_event(handle.workflow_uuid, orders.STATUS) == "teapot: paid"
