"""Hear of an end, as a message: exactly one Down for each monitor, at once if it has happened already.

A restart is not an end. To hear of those, `observe` the supervisor.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from actors.exits import Exit
from actors.lifetime import Lifetime

__all__ = ["Down", "Monitor"]


@dataclass(frozen=True, slots=True)
class Down:
    """What was watched under this name has ended for good."""

    name: str
    exit: Exit


class Monitor:
    """Delivers one Down when `watched` (a Ref, or a dynamic child) has ended.

    `deliver` is called in the supervisor: it must be quick and must not raise. An actor that watches another hands in
    its own `self.ref.notify`, which gets the Down through even when its mailbox is full.
    """

    __slots__ = ("_deliver", "watched")

    def __init__(self, watched: Lifetime, deliver: Callable[[Down], object]) -> None:
        self.watched = watched
        self._deliver = deliver
        watched.watch(self._ended)

    def cancel(self) -> None:
        """Stop watching. No Down comes after this."""
        self.watched.unwatch(self._ended)

    def _ended(self, exit: Exit) -> None:
        self._deliver(Down(self.watched.name, exit))

    def __repr__(self) -> str:
        return f"<Monitor of {self.watched.name}>"
