"""A proxy in front of Postgres that cuts connections at the worst moments: just before a COMMIT is forwarded, just
after, after the server has answered it but before the client hears so, and so that it reaches the server only when
something else has landed meanwhile. No client can tell these apart."""

from __future__ import annotations

import asyncio
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit, urlunsplit

BIND = b"B"
QUERY = b"Q"
SOCKET = ".s.PGSQL.5432"
FATES = ("refused", "landed", "in the dark", "late")


class CuttingProxy:
    """Forwards, and cuts a share of the transactions' commits and of the committer's flushes once it is armed."""

    def __init__(self, upstream: Path, rng: random.Random) -> None:
        self._upstream = upstream
        self._rng = rng
        self._tasks: set[asyncio.Task[None]] = set()
        self.share = 0.0  # of the commits to cut
        self.cuts: Counter[str] = Counter()  # "flush landed", "commit refused", ...
        self.bytes_sent = 0  # by clients
        self._late: list[asyncio.Future[None]] = []  # what is under way until the next flush has landed

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, both ways."""
        to_reader, to_writer = await asyncio.open_unix_connection(str(self._upstream))
        flushes = flushing = False

        def answered() -> None:
            nonlocal flushing
            if flushing:
                flushing = False
                self._flush_landed()

        answers = asyncio.create_task(pump(to_reader, writer, answered))
        self._tasks.add(answers)
        answers.add_done_callback(self._tasks.discard)
        try:
            while chunk := await reader.read(1 << 20):
                self.bytes_sent += len(chunk)
                flushes = flushes or b"operon.flush" in chunk
                what = self._commit(chunk, flushes)
                if what is None or self._rng.random() >= self.share:
                    flushing = what == "flush"
                    to_writer.write(chunk)
                    continue
                await self._cut(what, chunk, answers, to_reader, to_writer, writer)
                return
        except ConnectionError:
            pass
        finally:
            answers.cancel()
            for end in (to_writer, writer):
                end.close()

    def _commit(self, chunk: bytes, flushes: bool) -> str | None:
        if flushes and chunk.startswith(BIND):
            return "flush"
        return "commit" if chunk.startswith(QUERY) and b"; commit\0" in chunk else None

    async def _cut(
        self,
        what: str,
        chunk: bytes,
        answers: asyncio.Task[None],
        to_reader: asyncio.StreamReader,
        to_writer: asyncio.StreamWriter,
        writer: asyncio.StreamWriter,
    ) -> None:
        match self._rng.choice(FATES):
            case "refused":  # it never reaches the server
                self.cuts[f"{what} refused"] += 1
            case "landed":  # the server has committed; its answer is lost
                answers.cancel()
                await asyncio.gather(answers, return_exceptions=True)
                to_writer.write(chunk)
                await to_reader.read(1 << 16)
                self.cuts[f"{what} landed"] += 1
            case "late":
                answers.cancel()
                writer.close()
                self._late.append(landed := asyncio.get_running_loop().create_future())
                await landed
                to_writer.write(chunk)
                await to_writer.drain()
                self.cuts[f"{what} late"] += 1
            case _:  # sent, and nobody waits
                to_writer.write(chunk)
                await to_writer.drain()
                self.cuts[f"{what} in the dark"] += 1

    def _flush_landed(self) -> None:
        late, self._late = self._late, []
        for landed in late:
            landed.set_result(None)


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answered: Callable[[], None]) -> None:
    """What the server says, until either side is gone."""
    try:
        while chunk := await reader.read(1 << 20):
            answered()
            writer.write(chunk)
        writer.close()
    except ConnectionError:
        writer.close()


@asynccontextmanager
async def cutting_proxy(url: str, seed: int) -> AsyncGenerator[tuple[str, CuttingProxy]]:
    """The URL that leads through the proxy, and the proxy."""
    parts = urlsplit(url)
    upstream = Path(parse_qs(parts.query)["host"][0]) / SOCKET
    folder = Path(tempfile.mkdtemp(prefix="operon-proxy-", dir="/tmp"))
    proxy = CuttingProxy(upstream, random.Random(seed))
    server = await asyncio.start_unix_server(proxy.serve, str(folder / SOCKET))
    try:
        yield urlunsplit(parts._replace(query=f"host={folder}&port=5432")), proxy
    finally:
        server.close()
        shutil.rmtree(folder)
