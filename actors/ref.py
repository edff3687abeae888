"""The address of an actor, and all that others can do with it. Survives restarts; the actor behind it does not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextvars import Context
from typing import Generic, TypeVar

from actors.errors import ActorDead, AskTimeout, MailboxFull
from actors.exits import Exit
from actors.lifetime import Lifetime
from actors.mailbox import Letter, Mailbox, MailboxClosed
from actors.reply import Reply

__all__ = ["Ref"]

M_contra = TypeVar("M_contra", contravariant=True)
T = TypeVar("T")


class Ref(Lifetime, Generic[M_contra]):
    """Sends to one child of a supervisor, stops it, and knows when it has ended for good (`exit`, `wait`, `watch`).

    The Ref of a child that is no actor is a `Ref[Never]`: there is nothing that can be told to it.
    """

    __slots__ = ("_mailbox", "_stop")

    def __init__(self, name: str, mailbox: Mailbox[M_contra], stop: Callable[[], None]) -> None:
        super().__init__(name)
        self._mailbox = mailbox
        self._stop = stop

    async def tell(self, message: M_contra, *, timeout: float = 5.0) -> None:
        """Send a message. While the mailbox is full, wait for room: at most `timeout` seconds, then `MailboxFull`.

        Returning means that the message is in the mailbox, not that it was handled. Raises `ActorDead`.
        """
        await self._put_when_there_is_room((message, None), time.monotonic() + timeout)

    def tell_nowait(self, message: M_contra) -> None:
        """Send a message, or raise `MailboxFull` or `ActorDead` at once."""
        self._put((message, None))

    def notify(self, message: M_contra) -> None:
        """Send a message even if the mailbox is full: for what there can only be few of, as the news of a monitor."""
        self._put((message, None), always=True)

    async def ask(self, question: Callable[[Reply[T]], M_contra], *, timeout: float = 5.0) -> T:
        """Send what `question` makes of a reply, and return what it is answered with.

        `question` is usually the message's class, with `reply: Reply[int]` as its one field, as in
        `await counter.ask(Total)`; a message with more fields is asked with a lambda.

        Raises `AskTimeout` after `timeout` seconds, `ActorCrashed` when the actor crashes on this message, `ActorDead`,
        and `MailboxFull` when there was no room for it in all that time.
        """
        loop = asyncio.get_running_loop()
        deadline = time.monotonic() + timeout
        answer: asyncio.Future[T] = loop.create_future()
        reply = Reply(answer)

        def too_late() -> None:
            reply.fail(
                AskTimeout(
                    f"{self.name!r} did not answer within {timeout:g} s",
                    hint="it may be busy, or restarting, or have no answer to this message",
                )
            )

        def dead(_exit: Exit) -> None:
            reply.fail(self._dead())

        await self._put_when_there_is_room((question(reply), reply), deadline)
        # A timer that answers, not one that cancels: nothing to tell apart from a cancellation of the caller.
        timer = loop.call_later(deadline - time.monotonic(), too_late, context=Context())
        self.watch(dead)
        try:
            return await answer
        finally:
            timer.cancel()
            self.unwatch(dead)

    def stop(self) -> None:
        """Ask it to stop; `await wait()` to know that it has. Never restarted after that.

        An actor first handles what it was told before. Other children are cancelled. To be sure of an end, use the
        supervisor's `stop`, which cancels at once and counts the seconds.
        """
        if self.exit is None:
            self._stop()

    def _put(self, letter: Letter[M_contra], *, always: bool = False) -> None:
        try:
            self._mailbox.put(letter, always=always)
        except MailboxClosed:
            raise self._dead() from None
        except MailboxFull as full:
            raise MailboxFull(f"{self.name!r}: {full.message}", hint=full.hint) from None

    async def _put_when_there_is_room(self, letter: Letter[M_contra], deadline: float) -> None:
        while True:
            try:
                self._put(letter)
            except MailboxFull:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise
                await self._mailbox.room(left)
            else:
                return

    def _dead(self) -> ActorDead:
        if self.exit is None:
            return ActorDead(f"{self.name!r} was told to stop")
        return ActorDead(f"{self.name!r} has ended ({self.exit})", hint="watch it, or start another one")

    def __repr__(self) -> str:
        return f"<Ref {self.name}: {self.exit or 'alive'}, {len(self._mailbox)} messages>"
