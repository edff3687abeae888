"""The ticket shop, as functions and as a class: a seat is sold once and a card charged once, whatever crashes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from pathlib import Path
from uuid import uuid4

import pytest

from examples import tickets, tickets_class
from examples.pretend_bank import PretendBank
from examples.tickets_class import Ticket
from operon.testing import TestRuntime
from tests.examples.served import Answer, served

CHARGED = re.compile("charged 5000 cents")


@pytest.fixture
def bank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PretendBank:
    """A bank that answers at once."""
    bank = PretendBank(tmp_path / "ledger.txt", answer_seconds=0)
    monkeypatch.setattr(tickets, "bank", bank)
    monkeypatch.setattr(tickets_class, "bank", bank)
    return bank


@pytest.fixture
async def runtime(bank: PretendBank) -> AsyncGenerator[TestRuntime]:
    async with TestRuntime(tickets) as runtime:
        yield runtime


@pytest.fixture
async def class_runtime(bank: PretendBank) -> AsyncGenerator[TestRuntime]:
    async with TestRuntime(Ticket) as runtime:
        yield runtime


async def test_a_sold_seat_is_not_sold_again(runtime: TestRuntime, bank: PretendBank) -> None:
    first = await tickets.checkout(runtime.context, "Hamlet", "A1", card="4242")
    assert await first.get_result() is True

    second = await tickets.checkout(runtime.context, "Hamlet", "A1", card="4243")

    assert await second.get_result() is False
    assert len(bank.charged()) == 1


async def test_a_declined_card_gives_the_seat_back(runtime: TestRuntime) -> None:
    handle = await tickets.checkout(runtime.context, "Hamlet", "A1", card="declined")

    assert await handle.get_result() is False
    assert await tickets.sold(runtime.context, "Hamlet") == []


async def test_buyers_at_the_same_moment_get_the_seat_once(runtime: TestRuntime, bank: PretendBank) -> None:
    handles = [await tickets.checkout(runtime.context, "Hamlet", "A1", card=str(number)) for number in range(10)]

    results = await asyncio.gather(*(handle.get_result() for handle in handles))

    assert sorted(results) == [False] * 9 + [True]
    assert len(bank.charged()) == 1


async def test_checkout_charges_once_wherever_it_crashes(runtime: TestRuntime, bank: PretendBank) -> None:
    async for _crash in runtime.crash_everywhere():
        handle = await tickets.checkout(runtime.context, "Hamlet", "A1", card="4242")

        assert await handle.get_result() is True
        assert await tickets.sold(runtime.context, "Hamlet") == ["A1"]
        assert len(bank.charged()) == 1  # one key, however many attempts, in however many runs


async def test_a_declined_card_gives_the_seat_back_wherever_it_crashes(runtime: TestRuntime) -> None:
    async for _crash in runtime.crash_everywhere():
        handle = await tickets.checkout(runtime.context, "Hamlet", "A1", card="declined")

        assert await handle.get_result() is False
        assert await tickets.sold(runtime.context, "Hamlet") == []


async def test_the_class_charges_once_wherever_it_crashes(class_runtime: TestRuntime, bank: PretendBank) -> None:
    async for _crash in class_runtime.crash_everywhere():
        handle = await Ticket.checkout(class_runtime.context, "Macbeth", "A1", card="4242")

        assert await handle.get_result() is True
        assert len(bank.charged()) == 1


async def test_the_class_gives_the_seat_of_a_declined_card_back(class_runtime: TestRuntime) -> None:
    handle = await Ticket.checkout(class_runtime.context, "Macbeth", "A1", card="declined")

    assert await handle.get_result() is False
    assert await class_runtime.fetchval("select count(buyer) from seats where show = 'Macbeth'") == 0


@pytest.mark.parametrize(("module", "show"), [("examples.tickets", "Hamlet"), ("examples.tickets_class", "Macbeth")])
async def test_a_killed_server_goes_on_and_charges_once(
    module: str, show: str, database_url: str, tmp_path: Path
) -> None:
    seat, body, key = f"/shows/{show}/seats/A1", {"card": "4242"}, str(uuid4())
    async with served(module, tmp_path, "--database-url", database_url) as shop:
        request = asyncio.create_task(shop.post(seat, body, Idempotency_Key=key))
        await shop.said(CHARGED)  # the money is taken, and the answer not there yet
        await shop.kill()
        with pytest.raises(OSError):
            await request

    async with served(module, tmp_path, "--database-url", database_url) as shop:
        again = await shop.post(seat, body, Idempotency_Key=key)
        another = await shop.post(seat, body)

    assert again == Answer(200, True)
    assert another == Answer(200, False)  # the seat is taken
    assert len(PretendBank(tmp_path / tickets.bank.ledger, 0).charged()) == 1
