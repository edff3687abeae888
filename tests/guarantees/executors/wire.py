"""Counts what goes over the wire: every message exchange that the driver begins, with the statement it is about."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import asyncpg.protocol
import pytest

SESSION_LOCK = "pg_try_advisory_lock("
EXCHANGES = ("prepare", "bind", "execute", "bind_execute", "bind_execute_many", "query", "copy_in", "copy_out")


@dataclass
class Wire:
    """The exchanges of this process, in order, by their statements' text.

    Looks at the session lock are counted apart: there are a few a second, however many steps need to be certain.
    """

    texts: list[str] = field(default_factory=list[str])
    looks_at_the_lock: int = 0

    def __len__(self) -> int:
        return len(self.texts)

    def count(self, *parts: str, since: int = 0) -> int:
        """How many exchanges were about a statement with any of these parts."""
        return sum(any(part in text for part in parts) for text in self.texts[since:])

    def commits(self, since: int = 0) -> int:
        """How many of them committed something: flushes, and transactions of the application."""
        return self.count("operon.flush(", "; commit", since=since)


def text_of(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """The statement of an exchange: its text, or that of the prepared statement it is about."""
    match name:
        case "query":
            return str(args[0] if args else kwargs["query"])
        case "prepare":
            return f"prepare {args[1] if len(args) > 1 else kwargs['query']}"
        case _:
            statement = args[0] if args else kwargs["state"]
            return str(getattr(statement, "query", statement))


@contextmanager
def tapped(monkeypatch: pytest.MonkeyPatch) -> Generator[Wire]:
    """Counts on every connection that is opened from now on."""
    wire = Wire()
    protocol: Any = asyncpg.protocol.Protocol

    def counted(name: str) -> Callable[..., Any]:
        exchange = getattr(protocol, name)

        def method(self: Any, *args: Any, **kwargs: Any) -> Any:
            text = text_of(name, args, kwargs)
            if SESSION_LOCK in text:
                wire.looks_at_the_lock += 1
            else:
                wire.texts.append(text)
            return exchange(self, *args, **kwargs)

        return method

    with monkeypatch.context() as patch:
        patch.setattr(
            asyncpg.protocol, "Protocol", type("Tapped", (protocol,), {name: counted(name) for name in EXCHANGES})
        )
        yield wire
