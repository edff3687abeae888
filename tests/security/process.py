"""`operon start` in a process of its own: everything that it says goes to a file, and what it weighs can be asked."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil

ROOT = Path(__file__).parent.parent.parent
STARTED = re.compile(r"Operon serves http://[\d.]+:(?P<port>\d+)")
DEADLINE_SECONDS = 60


class Process:
    """A server on a free port of the loopback."""

    def __init__(self, process: asyncio.subprocess.Process, output: Path) -> None:
        self._process = process
        self._output = output
        self.port = 0

    @property
    def said(self) -> str:
        """What it wrote to standard output and standard error so far."""
        return self._output.read_text(errors="surrogateescape")

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def memory_bytes(self) -> int:
        """What it has in memory."""
        return int(psutil.Process(self.pid).memory_info().rss)

    @property
    def is_alive(self) -> bool:
        return self._process.returncode is None

    async def started(self) -> None:
        """Waits until it listens. AssertionError if it ends before."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while (match := STARTED.search(self.said)) is None:
                assert self.is_alive, self.said
                await asyncio.sleep(0.05)  # a file rings no bell
        self.port = int(match["port"])

    async def stop(self) -> None:
        """Ends it in order, if it still runs."""
        if self.is_alive:
            self._process.send_signal(signal.SIGTERM)
            await self._process.wait()


@asynccontextmanager
async def started(target: str, folder: Path, *options: str, **environment: str) -> AsyncGenerator[Process]:
    """Serves an application, and stops it at the end."""
    output = folder / "output"
    with output.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "operon.cli", "start", target, "--port", "0", *options),
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **environment},
            stdout=file,
            stderr=file,
        )
    running = Process(process, output)
    try:
        await running.started()
        yield running
    finally:
        await running.stop()
