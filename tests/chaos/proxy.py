"""A proxy between an executor and Postgres: the network, and all that it may do.

    cut       a connection ends at a commit: before it is forwarded, after it was answered, or with nobody looking
    silence   nothing passes in either direction, and nobody is told; afterwards the connections go on, with whatever
              was under way, or are gone. A late message of an executor that was long declared dead comes from here
    deaf      notifications are dropped, and everything else passes

It goes silent instead of a network namespace being cut off: that needs no root, and what was sent still arrives, which
is worse than if it were lost.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

SOCKET = ".s.PGSQL.5432"
CHUNK = 1 << 16
NOTIFICATION = b"A"
GONE = (OSError, RuntimeError)  # what uvloop says of a connection that was aborted is the second


class Proxy:
    """One executor's way to Postgres."""

    def __init__(self, folder: Path, upstream: Path, rng: random.Random) -> None:
        folder.mkdir()
        self.folder = folder
        self._upstream = upstream
        self._rng = rng
        self._flow = asyncio.Event()
        self._flow.set()
        self._links: set[Link] = set()
        self._to_cut = 0
        self.deaf = False
        self.counts: Counter[str] = Counter()

    async def open(self) -> None:
        """Begins to take connections."""
        self._server = await asyncio.start_unix_server(self._serve, str(self.folder / SOCKET), backlog=256)

    def cut(self, commits: int) -> None:
        """The next commits are the last of their connections."""
        self._to_cut += commits

    async def silence(self, seconds: float, *, late: bool) -> None:
        """Lets nothing pass for a time. `late`: what was under way arrives then; else it never does."""
        self._flow.clear()
        await asyncio.sleep(seconds)
        if not late:
            for link in list(self._links):
                link.abort()
        self.counts["held back"] += sum(link.held for link in self._links)
        self._flow.set()

    def heal(self) -> None:
        """From now on it only forwards."""
        self._to_cut = 0
        self.deaf = False
        self._flow.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._flow.wait()
        try:
            to_reader, to_writer = await asyncio.open_unix_connection(str(self._upstream))
        except OSError:  # the server is away
            writer.close()
            return
        link = Link(writer, to_writer)
        self._links.add(link)
        answers = asyncio.create_task(self._answers(link, to_reader))
        try:
            while chunk := await self._read(link, reader):
                what = link.commit(chunk) if self._to_cut else None
                link.listens = link.listens or b"LISTEN" in chunk
                link.flushes = link.flushes or b"operon.flush" in chunk
                if what is None:
                    to_writer.write(chunk)
                    continue
                self._to_cut -= 1
                await self._cut(what, chunk, link, answers, to_reader)
                return
        except GONE:
            pass
        finally:
            self._links.discard(link)
            answers.cancel()
            link.close()

    async def _read(self, link: Link, reader: asyncio.StreamReader) -> bytes:
        chunk = await reader.read(CHUNK)
        if not self._flow.is_set():
            link.held += bool(chunk)
            await self._flow.wait()
            link.held = 0
        return b"" if link.aborted else chunk

    async def _answers(self, link: Link, reader: asyncio.StreamReader) -> None:
        drop = Dropper(lambda: self.deaf)
        try:
            while chunk := await self._read(link, reader):
                link.client.write(drop(chunk) if link.listens else chunk)
        except GONE:
            pass
        self.counts["notifications dropped"] += drop.dropped
        link.close()

    async def _cut(
        self, what: str, chunk: bytes, link: Link, answers: asyncio.Task[None], to_reader: asyncio.StreamReader
    ) -> None:
        fate = self._rng.choice(("refused", "landed", "in the dark"))
        self.counts[f"{what} {fate}"] += 1
        if fate == "refused":
            return
        if fate == "landed":  # the server has committed; its answer is lost
            answers.cancel()
            await asyncio.gather(answers, return_exceptions=True)
        link.server.write(chunk)
        await (to_reader.read(CHUNK) if fate == "landed" else link.server.drain())


class Link:
    """One connection, both halves of it."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.client = client
        self.server = server
        self.listens = False
        self.flushes = False
        self.held = 0
        self.aborted = False

    def commit(self, chunk: bytes) -> str | None:
        """Whether a message commits something: a flush of the committer, or a transaction with its checkpoint."""
        if self.flushes and chunk.startswith(b"B"):
            return "flush"
        return "commit" if chunk.startswith(b"Q") and b"; commit\0" in chunk else None

    def abort(self) -> None:
        """Ends it without a word, and without what is under way."""
        self.aborted = True
        for half in (self.client, self.server):
            half.transport.abort()

    def close(self) -> None:
        for half in (self.client, self.server):
            half.close()


class Dropper:
    """Takes notifications out of what a server says. It begins between two messages, where a client asks to listen."""

    def __init__(self, deaf: Callable[[], bool]) -> None:
        self._deaf = deaf
        self._left = b""
        self.dropped = 0

    def __call__(self, chunk: bytes) -> bytes:
        data, kept, at = self._left + chunk, bytearray(), 0
        while at + 5 <= len(data) and at + (size := 1 + int.from_bytes(data[at + 1 : at + 5])) <= len(data):
            if data[at : at + 1] == NOTIFICATION and self._deaf():
                self.dropped += 1
            else:
                kept += data[at : at + size]
            at += size
        self._left = data[at:]
        return bytes(kept)
