"""An actor: state that only one message at a time can touch.

The rule is "panic means restart": an exception out of `receive` ends this object, and a fresh one, made by the same
factory, goes on with the next message. Nothing half-changed survives, and the message that crashed is not tried again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

from anyio import CancelScope

from actors.errors import ActorCrashed, ActorsError
from actors.exits import SHUTDOWN, Exit, exit_of
from actors.mailbox import Mailbox
from actors.ref import Ref

__all__ = ["Actor", "serve"]

M = TypeVar("M")
M_contra = TypeVar("M_contra", contravariant=True)

# An actor that never has to wait would keep the event loop to itself until its mailbox is empty.
TURN = 64


class Actor(Generic[M_contra]):
    """Override `receive`, and the two hooks if there is something to open and close."""

    _ref: Ref[M_contra] | None = None

    async def receive(self, message: M_contra) -> None:
        """Handle one message. The next one waits until this returns; an exception crashes the actor."""
        raise NotImplementedError(f"{type(self).__name__} has no receive")

    async def started(self) -> None:
        """Prepare before the first message. Whoever starts the actor waits for this; an exception fails the start."""

    async def stopped(self, exit: Exit) -> None:
        """Clean up after the last message, however it came to be the last. Shielded; counts towards `stop_timeout`."""

    @property
    def ref(self) -> Ref[M_contra]:
        """This actor's own address, from `started` on."""
        if self._ref is None:
            raise ActorsError(f"{type(self).__name__} was not started by a supervisor")
        return self._ref

    @ref.setter
    def ref(self, ref: Ref[M_contra]) -> None:
        self._ref = ref


async def serve(make: Callable[[], Actor[M]], ref: Ref[M], mailbox: Mailbox[M], started: Callable[[], None]) -> Exit:
    """Live one life of an actor: make it, start it, hand it letters until the mailbox is closed and empty."""
    actor = make()
    actor.ref = ref
    await actor.started()
    started()
    exit: Exit = SHUTDOWN
    try:
        await handle_letters(actor, ref.name, mailbox)
    except BaseException as error:
        # Only its supervisor cancels an actor, so here a cancellation is always one that was asked for.
        exit = exit_of(error, asked=True)
        raise
    finally:
        with CancelScope(shield=True):
            await actor.stopped(exit)
    return exit


async def handle_letters(actor: Actor[M], name: str, mailbox: Mailbox[M]) -> None:
    handled = 0
    while (letter := await mailbox.get()) is not None:
        message, reply = letter
        try:
            await actor.receive(message)
        except Exception as error:
            if reply is not None:
                crashed = ActorCrashed(f"{name!r} crashed on {type(message).__name__}: {type(error).__name__}: {error}")
                crashed.__cause__ = error
                reply.fail(crashed)
            raise
        handled += 1
        if handled % TURN == 0:
            await asyncio.sleep(0)
