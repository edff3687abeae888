"""Counts round trips: every message exchange that asyncpg starts, whoever asked for it.

asyncpg makes each connection's protocol from `asyncpg.protocol.Protocol`, so a subclass in its place sees them all.
The counting costs a call per query, so it is done in a run of its own and never in one whose time is reported.
"""

from __future__ import annotations

from typing import Any

import asyncpg.protocol

EXCHANGES = (
    "prepare",
    "bind",
    "execute",
    "bind_execute",
    "bind_execute_many",
    "query",
    "copy_in",
    "copy_out",
    "close_statement",
    "close_portal",
)


class RoundTripCounter:
    """A count of the round trips of this process, from `install` on; install it before the first connection."""

    def __init__(self) -> None:
        self.count = 0

    def install(self) -> None:
        counter = self

        def counted(name: str) -> Any:
            exchange = getattr(asyncpg.protocol.Protocol, name)

            def method(self: Any, *args: Any, **kwargs: Any) -> Any:
                counter.count += 1
                return exchange(self, *args, **kwargs)

            return method

        methods = {name: counted(name) for name in EXCHANGES}
        protocol: Any = asyncpg.protocol
        protocol.Protocol = type("CountingProtocol", (protocol.Protocol,), methods)
