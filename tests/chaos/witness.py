"""The outside world: a process that writes down each call when it hears it, takes its time, and answers.

Its memory is a file that is only appended to. It is no part of what is killed, and no table of the database: a witness
there would die, retry and roll back together with what it watches.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sys
from pathlib import Path

import msgspec

from tests.chaos.application import Call

SECONDS = 0.03  # that a call takes, on average
LONG_SHARE, LONG_SECONDS = 0.02, 1.5  # some take longer than an executor needs to be declared dead


class Witness:
    """Hears calls and appends them to a file."""

    def __init__(self, file: Path, seed: int) -> None:
        self._file = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._rng = random.Random(seed)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One call."""
        with contextlib.suppress(OSError), contextlib.closing(writer):
            if line := await reader.readline():
                os.write(self._file, line)
                seconds = self._rng.expovariate(1 / SECONDS)
                await asyncio.sleep(LONG_SECONDS if self._rng.random() < LONG_SHARE else seconds)
                writer.write(b"seen\n")
                await writer.drain()


def heard(file: Path) -> list[Call]:
    """Every call, in the order of hearing."""
    return [msgspec.json.decode(line, type=Call) for line in file.read_bytes().splitlines()] if file.exists() else []


async def main(socket: str, file: str, seed: str) -> None:
    server = await asyncio.start_unix_server(Witness(Path(file), int(seed)).serve, socket, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
