"""A scripted pooler in transaction mode: every client is given the same server session, one transaction at a time.

It speaks as much of PostgreSQL's protocol as it takes to tell messages and the ends of transactions apart. The first
client logs in to the server through it; the others are let in without being asked.
"""

from __future__ import annotations

import asyncio
import struct
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing
from urllib.parse import parse_qs, urlsplit

LET_IN = b"R" + struct.pack("!ii", 8, 0)
IDLE = b"Z" + struct.pack("!ic", 5, b"I")
MADE_UP = b"K" + struct.pack("!iii", 12, 0x7FFFFFFF, 0)  # poolers announce a process of their own invention


class Pooler:
    """One session of a server for any number of clients."""

    def __init__(self, url: str) -> None:
        self._parts = urlsplit(url)
        self._query = {name: values[0] for name, values in parse_qs(self._parts.query).items()}
        self._free = asyncio.Lock()  # held from the first message of a transaction to its end
        self._holder: StreamWriter | None = None  # the client that is given the server's answers
        self._server: StreamWriter | None = None
        self._parameters: list[bytes] = []  # what the server said of itself at the login
        self._pump: asyncio.Task[None] | None = None

    async def serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        """One client, from its login to its end."""
        try:
            size = await reader.readexactly(4)
            login = size + await reader.readexactly(int.from_bytes(size) - 4)
            async with self._free:
                if self._server is None:
                    self._server = await self._log_in(login, reader, writer)
                else:
                    writer.write(b"".join((LET_IN, *self._parameters, MADE_UP, IDLE)))
            while (request := await message(reader))[:1] != b"X":
                if self._holder is not writer:
                    await self._free.acquire()
                    self._holder = writer
                self._server.write(request)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _log_in(self, login: bytes, reader: StreamReader, writer: StreamWriter) -> StreamWriter:
        if "host" in self._query:
            path = f"{self._query['host']}/.s.PGSQL.{self._query.get('port', '5432')}"
            answers, server = await asyncio.open_unix_connection(path)
        else:
            answers, server = await asyncio.open_connection(self._parts.hostname, self._parts.port or 5432)
        server.write(login)
        while (answer := await message(answers))[:1] != b"Z":
            if answer[:1] == b"S":
                self._parameters.append(answer)
            writer.write(MADE_UP if answer[:1] == b"K" else answer)
            if answer[:1] == b"R" and int.from_bytes(answer[5:9]) in (3, 5, 10, 11):  # it asks for something
                server.write(await message(reader))
        writer.write(answer)
        self._pump = asyncio.create_task(self._hand_out(answers))
        return server

    async def _hand_out(self, answers: StreamReader) -> None:
        """Gives the server's answers to whoever has its session, and the session to the next at a transaction's end."""
        while True:
            answer = await message(answers)
            if self._holder is not None:
                self._holder.write(answer)
                if answer == IDLE:
                    self._holder = None
                    self._free.release()

    def close(self) -> None:
        """Ends the session with the server."""
        if self._pump is not None:
            self._pump.cancel()
        if self._server is not None:
            self._server.close()


async def message(reader: StreamReader) -> bytes:
    """One message with its type and length."""
    head = await reader.readexactly(5)
    return head + await reader.readexactly(int.from_bytes(head[1:]) - 4)


@asynccontextmanager
async def pooled(url: str) -> AsyncGenerator[str]:
    """The URL of a pooler for this one."""
    parts = urlsplit(url)
    pooler = Pooler(url)
    listening = await asyncio.start_server(pooler.serve, "127.0.0.1", 0)
    with closing(pooler):
        async with listening:
            port = listening.sockets[0].getsockname()[1]
            login = parts.netloc.rpartition("@")[0]
            yield f"{parts.scheme}://{login}@127.0.0.1:{port}{parts.path}?sslmode=disable"
