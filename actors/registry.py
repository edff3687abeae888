"""Names for what is alive: unique, and free again when the named one has ended.

There is no global registry. Make one where the tree is made and hand it to whoever looks things up. A registry of
counters, `Registry[Ref[Add | Total]]`, gives back Refs that a type checker lets you tell those messages to.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

from actors.errors import ActorDead, NameTaken
from actors.lifetime import Lifetime

__all__ = ["Registry"]

L = TypeVar("L", bound=Lifetime)


class Registry(Generic[L]):
    """Finds Refs (or dynamic children) by name."""

    def __init__(self) -> None:
        self._entries: dict[str, L] = {}

    def register(self, entry: L, name: str | None = None) -> None:
        """Enter something under `name` (its own by default), until it ends. Raises `NameTaken` and `ActorDead`."""
        key = entry.name if name is None else name
        if entry.exit is not None:
            raise ActorDead(f"{entry.name!r} has ended ({entry.exit}) and cannot be registered")
        if key in self._entries:
            raise NameTaken(f"{key!r} is registered already: {self._entries[key]!r}")
        self._entries[key] = entry
        entry.watch(lambda _exit: self._drop(key, entry))

    def unregister(self, name: str) -> None:
        """Free a name. Unknown ones are ignored, because the end may have been faster."""
        self._entries.pop(name, None)

    def find(self, name: str) -> L | None:
        """Return what is alive under this name."""
        return self._entries.get(name)

    def _drop(self, name: str, entry: L) -> None:
        # The name may have been freed and taken by another one since.
        if self._entries.get(name) is entry:
            del self._entries[name]

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._entries))

    def __len__(self) -> int:
        return len(self._entries)
