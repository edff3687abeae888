"""Where messages wait for an actor: bounded, in order, and outliving the actor's crashes.

The in-memory one is a deque, and a future while somebody waits. (A memory object stream per actor costs 8.5 kB and
makes garbage collection slow; an empty MemoryMailbox costs 0.8 kB.) Put another one behind the protocol when letters
must survive the process.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Generic, Never, Protocol, TypeAlias, TypeVar

from actors.errors import ActorsError, MailboxFull
from actors.reply import Reply

__all__ = ["Letter", "Mailbox", "MailboxClosed", "MemoryMailbox"]

M = TypeVar("M")

# A message, and the reply that is failed if the actor crashes on it. A plain tuple: one is made for every message.
Letter: TypeAlias = tuple[M, Reply[Never] | None]


class MailboxClosed(ActorsError):
    """No letters are taken any more. A Ref turns it into `ActorDead`."""


class Mailbox(Protocol[M]):
    """What a Ref puts letters into and an actor takes them out of. Many may put; one takes."""

    def put(self, letter: Letter[M], *, always: bool = False) -> None:
        """Add a letter. Raises `MailboxFull` at the limit, unless `always`, and `MailboxClosed`."""
        ...

    async def room(self, timeout: float) -> None:
        """Wait until it is worth trying `put` again, at most `timeout` seconds."""
        ...

    async def get(self) -> Letter[M] | None:
        """Take the oldest letter, waiting for one; None when it is closed and empty."""
        ...

    def close(self) -> None:
        """Take no more letters. Those that are in can still be taken out."""
        ...

    def discard(self) -> int:
        """Close, and throw away what is in. Returns how many letters that were."""
        ...

    def __len__(self) -> int: ...


class MemoryMailbox(Generic[M]):
    """At most `limit` letters, in memory."""

    __slots__ = ("_arrival", "_closed", "_letters", "_room", "limit")

    def __init__(self, limit: int = 1_000) -> None:
        self.limit = limit
        self._letters: deque[Letter[M]] = deque()
        self._arrival: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._closed = False

    def put(self, letter: Letter[M], *, always: bool = False) -> None:
        """Add a letter. Raises `MailboxFull` at the limit, unless `always`, and `MailboxClosed`."""
        if self._closed:
            raise MailboxClosed("the mailbox is closed")
        if len(self._letters) >= self.limit and not always:
            raise MailboxFull(
                f"the mailbox holds {len(self._letters)} messages, its limit",
                hint="send more slowly, wait with `tell`, or give the actor a larger mailbox",
            )
        self._letters.append(letter)
        if self._arrival is not None:
            resolve(self._arrival)

    async def room(self, timeout: float) -> None:
        """Wait until it is half empty (so that many who wait do not all wake up for one place), or closed."""
        if self._closed or len(self._letters) < self.limit:
            return
        if self._room is None:
            self._room = asyncio.get_running_loop().create_future()
        # Not `await self._room`: one waiter's cancellation would cancel the future of all.
        await asyncio.wait((self._room,), timeout=timeout)

    async def get(self) -> Letter[M] | None:
        """Take the oldest letter, waiting for one; None when it is closed and empty."""
        while not self._letters:
            if self._closed:
                return None
            self._arrival = asyncio.get_running_loop().create_future()
            try:
                await self._arrival
            finally:
                self._arrival = None
        letter = self._letters.popleft()
        if self._room is not None and len(self._letters) <= self.limit // 2:
            self._wake_putters()
        return letter

    def close(self) -> None:
        """Take no more letters. Those that are in can still be taken out."""
        self._closed = True
        if self._arrival is not None:
            resolve(self._arrival)
        self._wake_putters()

    def discard(self) -> int:
        """Close, and throw away what is in. Returns how many letters that were."""
        self.close()
        left = len(self._letters)
        self._letters.clear()
        return left

    def _wake_putters(self) -> None:
        if self._room is not None:
            resolve(self._room)
            self._room = None

    def __len__(self) -> int:
        return len(self._letters)

    def __repr__(self) -> str:
        return f"<MemoryMailbox {len(self._letters)}/{self.limit}{' closed' if self._closed else ''}>"


def resolve(future: asyncio.Future[None]) -> None:
    """Wake whoever waits; nothing if that is done, or was cancelled."""
    if not future.done():
        future.set_result(None)
