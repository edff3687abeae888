"""A proxy in front of Postgres whose connections go half open on demand: both ends believe in them, nothing passes."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit, urlunsplit

SOCKET = ".s.PGSQL.5432"


class Muffler:
    """Forwards, until it is told to swallow."""

    def __init__(self, upstream: Path) -> None:
        self._upstream = upstream
        self._lines: list[asyncio.Event] = []  # of each connection, set while it passes anything
        self._tasks: set[asyncio.Task[None]] = set()
        self._half_open: list[asyncio.StreamWriter] = []

    @property
    def connections(self) -> int:
        """How many there have been."""
        return len(self._lines)

    def cut_off(self) -> None:
        """Every connection that there is goes half open; later ones work."""
        for passing in self._lines:
            passing.clear()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, both ways, until the client leaves."""
        passing = asyncio.Event()
        passing.set()
        self._lines.append(passing)
        to_reader, to_writer = await asyncio.open_unix_connection(str(self._upstream))
        self._tasks.add(asyncio.create_task(pump(to_reader, writer, passing)))
        await pump(reader, to_writer, passing)
        if not passing.is_set():  # the server never hears that the client left
            self._half_open.append(to_writer)
            writer.close()

    async def close(self) -> None:
        """Now the server hears it."""
        for writer in self._half_open:
            writer.close()
        await asyncio.gather(*self._tasks)


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, passing: asyncio.Event) -> None:
    """What one side says, and that it is gone."""
    with contextlib.suppress(ConnectionError):
        while chunk := await reader.read(1 << 20):
            if passing.is_set():
                writer.write(chunk)
    if passing.is_set():
        writer.close()


@asynccontextmanager
async def muffler(url: str) -> AsyncGenerator[tuple[str, Muffler]]:
    """The URL that leads through the proxy, and the proxy."""
    parts = urlsplit(url)
    upstream = Path(parse_qs(parts.query)["host"][0]) / SOCKET
    folder = Path(tempfile.mkdtemp(prefix="operon-muffler-", dir="/tmp"))
    proxy = Muffler(upstream)
    server = await asyncio.start_unix_server(proxy.serve, str(folder / SOCKET))
    try:
        yield urlunsplit(parts._replace(query=f"host={folder}&port=5432")), proxy
    finally:
        server.close()
        await proxy.close()
        shutil.rmtree(folder)
