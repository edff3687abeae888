"""The witness: a socket outside every executor, which sees each call at the moment it is made and holds it as long as
the test likes. What it has seen cannot be taken back by a rollback, a crash or a retry."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Call:
    """One call as it arrived: which errand, of which process, and when (monotonic seconds)."""

    name: str
    pid: int
    at: float


@dataclass
class Witness:
    """Counts calls; answers them once `release` is set."""

    port: int = 0
    calls: list[Call] = field(default_factory=list[Call])
    release: asyncio.Event = field(default_factory=asyncio.Event)
    _arrived: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def seen(self, count: int) -> list[Call]:
        """Waits until so many calls have arrived."""
        async with self._arrived:
            await self._arrived.wait_for(lambda: len(self.calls) >= count)
        return list(self.calls)

    @property
    def times(self) -> Counter[str]:
        """How often each errand has called."""
        return Counter(call.name for call in self.calls)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        name, pid = (await reader.readline()).decode().split()
        async with self._arrived:
            self.calls.append(Call(name, int(pid), time.monotonic()))
            self._arrived.notify_all()
        gone = asyncio.ensure_future(reader.read())
        released = asyncio.ensure_future(self.release.wait())
        await asyncio.wait((gone, released), return_when=asyncio.FIRST_COMPLETED)
        if not gone.done():
            writer.write(b"seen\n")
        await asyncio.gather(gone, return_exceptions=True)
        released.cancel()
        writer.close()


@asynccontextmanager
async def witness() -> AsyncGenerator[Witness]:
    """A witness on a free loopback port."""
    seer = Witness()
    server = await asyncio.start_server(seer._serve, "127.0.0.1", 0)  # pyright: ignore[reportPrivateUsage]
    seer.port = server.sockets[0].getsockname()[1]
    try:
        yield seer
    finally:
        server.close()
