"""An actor under a dynamic supervisor: one for each room, device or customer, by the ten thousand."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from actors.actor import Actor, serve
from actors.dynamic import DynamicSupervisor
from actors.exits import NORMAL, SHUTDOWN, Exit
from actors.mailbox import Mailbox, MemoryMailbox
from actors.ref import Ref
from actors.restart import Restart

__all__ = ["spawn_actor"]

M = TypeVar("M")


def spawn_actor(
    supervisor: DynamicSupervisor,
    name: str,
    make: Callable[[], Actor[M]],
    *,
    restart: Restart = Restart.TRANSIENT,
    mailbox: Callable[[], Mailbox[M]] | None = None,
) -> Ref[M]:
    """Start an actor at once and return its Ref; it can be told things before its `started` hook has run.

    An actor only returns when it was asked to stop, so PERMANENT and TRANSIENT are the same here. Raises what
    `DynamicSupervisor.spawn` raises.
    """
    letters: Mailbox[M] = mailbox() if mailbox is not None else MemoryMailbox()
    ref: Ref[M] = Ref(name, letters, letters.close)

    async def run() -> None:
        await serve(make, ref, letters, lambda: None)

    def ended(exit: Exit) -> None:
        letters.discard()
        ref.end(SHUTDOWN if exit is NORMAL else exit)

    again = Restart.TEMPORARY if restart is Restart.TEMPORARY else Restart.TRANSIENT
    supervisor.spawn(name, run, restart=again).watch(ended)
    return ref
