"""What can end, be waited for and be watched: the base of a Ref and of a dynamic child.

The rule: a lifetime ends once, for good, and everyone who watches hears of it exactly once, also those who came late.
A restart is not an end: the name, the Ref and the mailbox outlive it (as in Akka, and unlike an Erlang pid).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from actors.exits import Exit

__all__ = ["Lifetime"]

log = logging.getLogger("actors")


class Lifetime:
    """A name, and the exit once there is one."""

    # No dict, and watchers only when somebody watches: a supervisor may own a hundred thousand of these.
    __slots__ = ("_watchers", "exit", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.exit: Exit | None = None  # None while it lives, or is between two lives
        self._watchers: dict[Callable[[Exit], object], None] | None = None

    def watch(self, callback: Callable[[Exit], object]) -> None:
        """Call back once, with the exit, when it ends: at once if it has ended. Must not block or raise."""
        if self.exit is not None:
            call(callback, self.exit)
            return
        if self._watchers is None:
            self._watchers = {}
        self._watchers[callback] = None

    def unwatch(self, callback: Callable[[Exit], object]) -> None:
        """Take a callback back. Unknown ones are ignored, because the end may have been faster."""
        if self._watchers is not None:
            self._watchers.pop(callback, None)

    async def wait(self) -> Exit:
        """Wait until it has ended for good and return how. Tells it nothing: to end it, stop it first."""
        if self.exit is not None:
            return self.exit
        ended: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()

        def tell(exit: Exit) -> None:
            if not ended.done():
                ended.set_result(exit)

        self.watch(tell)
        try:
            return await ended
        finally:
            self.unwatch(tell)

    def end(self, exit: Exit) -> None:
        """End it. For its supervisor; a second end is ignored: a zombie that wakes up is no news."""
        if self.exit is not None:
            return
        self.exit = exit
        if self._watchers is None:
            return
        watchers, self._watchers = self._watchers, None
        for callback in watchers:
            call(callback, exit)


def call(callback: Callable[[Exit], object], exit: Exit) -> None:
    """Call somebody else's code where an exception has nowhere to go."""
    try:
        callback(exit)
    except Exception:
        log.exception("a watcher raised", extra={"watcher": repr(callback)})
