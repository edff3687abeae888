"""Letters wait in order, up to a limit."""

from __future__ import annotations

import asyncio

import pytest

from actors.errors import MailboxFull
from actors.mailbox import Letter, Mailbox, MailboxClosed, MemoryMailbox


async def test_letters_come_out_in_the_order_they_went_in() -> None:
    mailbox: Mailbox[int] = MemoryMailbox()
    for number in (1, 2, 3):
        mailbox.put((number, None))

    assert [await mailbox.get() for _ in range(3)] == [(1, None), (2, None), (3, None)]


async def test_whoever_waits_is_woken_by_a_letter() -> None:
    mailbox = MemoryMailbox[str]()
    waiting = asyncio.create_task(mailbox.get())
    await asyncio.sleep(0)

    mailbox.put(("hello", None))

    assert await waiting == ("hello", None)


async def test_a_cancelled_get_loses_no_letter() -> None:
    mailbox = MemoryMailbox[str]()
    waiting = asyncio.create_task(mailbox.get())
    await asyncio.sleep(0)

    mailbox.put(("hello", None))
    waiting.cancel()
    await asyncio.wait((waiting,))

    assert len(mailbox) == 1


async def test_a_full_mailbox_takes_nothing_but_what_must_always_get_through() -> None:
    mailbox = MemoryMailbox[str](limit=1)
    mailbox.put(("first", None))

    with pytest.raises(MailboxFull):
        mailbox.put(("second", None))
    mailbox.put(("news", None), always=True)

    assert [await mailbox.get(), await mailbox.get()] == [("first", None), ("news", None)]


async def test_room_comes_when_it_is_half_empty() -> None:
    mailbox = MemoryMailbox[int](limit=4)
    for number in range(4):
        mailbox.put((number, None))
    waiting = [asyncio.create_task(mailbox.room(60)) for _ in range(2)]
    await asyncio.sleep(0)
    waiting[0].cancel()  # one that leaves takes nobody with it

    await mailbox.get()
    await asyncio.sleep(0)
    assert not waiting[1].done()
    await mailbox.get()

    await waiting[1]


async def test_a_closed_mailbox_gives_what_it_has_and_then_none() -> None:
    mailbox = MemoryMailbox[str]()
    mailbox.put(("last", None))
    mailbox.close()

    with pytest.raises(MailboxClosed):
        mailbox.put(("late", None))

    assert await mailbox.get() == ("last", None)
    assert await mailbox.get() is None


async def test_closing_wakes_whoever_waits() -> None:
    mailbox = MemoryMailbox[str]()
    waiting: asyncio.Task[Letter[str] | None] = asyncio.create_task(mailbox.get())
    await asyncio.sleep(0)

    mailbox.close()

    assert await waiting is None


async def test_discarding_says_how_many_letters_were_lost() -> None:
    mailbox = MemoryMailbox[str]()
    mailbox.put(("a", None))
    mailbox.put(("b", None))

    assert mailbox.discard() == 2
    assert await mailbox.get() is None
