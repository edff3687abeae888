"""An example served by `operon start`, or by another server, in a process of its own that can be killed."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anyio import to_thread

ROOT = Path(__file__).parent.parent.parent
STARTED = re.compile(r"(?:Operon serves|Running on) (?P<url>http://\S+)")


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    value: Any


class Served:
    """A server in a folder, from the moment that it listens."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._said: list[str] = []
        self.url = ""

    async def said(self, pattern: re.Pattern[str]) -> re.Match[str]:
        """Waits for a line of the output, of those not waited for yet. AssertionError if the process ends before."""
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self._said.append(line.decode())
            if (match := pattern.search(self._said[-1])) is not None:
                return match
        raise AssertionError(f"it ended without saying {pattern.pattern!r}:\n{''.join(self._said)}")

    async def get(self, path: str, **headers: str) -> Answer:
        return await self._request("GET", path, None, headers)

    async def post(self, path: str, body: Any, **headers: str) -> Answer:
        """Posts JSON. OSError if the process dies before it answers."""
        return await self._request("POST", path, json.dumps(body).encode(), headers)

    async def kill(self) -> None:
        """`kill -9`"""
        self._process.send_signal(signal.SIGKILL)
        await self._process.wait()

    async def died(self) -> None:
        """Waits until it has ended, by whatever hand."""
        await self._process.wait()

    async def stop(self) -> int:
        """Ends it in order, if it still runs; its exit code, negative for the signal that it died of."""
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
        await self._process.communicate()
        return await self._process.wait()

    async def _request(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> Answer:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        typed = {"Content-Type": "application/json", **named}
        request = urllib.request.Request(self.url + path, body, typed, method=method)
        return await to_thread.run_sync(answer, request)


def answer(request: urllib.request.Request) -> Answer:
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return Answer(response.status, value_of(response))
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, value_of(error))


def value_of(response: Any) -> Any:
    """A text, what JSON says, or None for no content."""
    content = response.read()
    return json.loads(content) if "json" in (response.headers["content-type"] or "") else content.decode() or None


@asynccontextmanager
async def served(
    module: str,
    folder: Path,
    *options: str,
    operon: tuple[str, ...] = (sys.executable, "-m", "operon.cli"),
    environment: Mapping[str, str] | None = None,
) -> AsyncGenerator[Served]:
    """Serves an example from a folder on a free port, and stops it at the end.

    operon: the command to do it with; the Operon that is under test here by default.
    environment: variables beside those of this process.
    """
    async with started((*operon, "start", module, "--port", "0", *options), folder, environment) as running:
        yield running


@asynccontextmanager
async def started(
    command: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None
) -> AsyncGenerator[Served]:
    """A server of an example, in a folder that has the examples, from when it listens; stopped at the end."""
    if not (folder / "examples").exists():
        shutil.copytree(ROOT / "examples", folder / "examples")
    source = {"PYTHONPATH": str(ROOT)} if command[0] == sys.executable else {}
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env={**os.environ, **source, **(environment or {})},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    running = Served(process)
    try:
        running.url = (await running.said(STARTED))["url"]
        yield running
    finally:
        await running.stop()
