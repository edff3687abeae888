"""An executor in a process of its own: `operon start`, in the default configuration, on a free port."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
import tempfile
import urllib.request
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from operon.database import embedded, testbed
from operon.database.stock import stock_of
from operon.testing import FOLDER, SERVER, with_database

SERVES = re.compile(rb"serves (http://\S+)")
DEADLINE_SECONDS = 60.0
PASSED_ON = ("OPERON_PARK_AFTER_SECONDS",)  # so that the suite can be run with workflows that are parked at once


class ExecutorProcess:
    """A running `operon start`."""

    def __init__(self, process: asyncio.subprocess.Process, url: str) -> None:
        self._process = process
        self.url = url

    @property
    def pid(self) -> int:
        return self._process.pid

    async def post(self, path: str, **arguments: Any) -> Any:
        """The JSON, or text, that a route answers."""
        content = json.dumps(arguments).encode() if arguments else None
        headers = {"content-type": "application/json"} if arguments else {}
        request = urllib.request.Request(self.url + path, content, headers, method="POST")

        def ask() -> bytes:
            with urllib.request.urlopen(request, timeout=60) as answer:
                body: bytes = answer.read()
                return body

        body = await asyncio.to_thread(ask)
        try:
            return json.loads(body)
        except ValueError:
            return body.decode()

    def kill(self) -> None:
        """`kill -9`: not one more instruction."""
        self._process.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """SIGTERM: drain, and go."""
        self._process.send_signal(signal.SIGTERM)

    async def ended(self) -> int:
        """Waits for the end; the exit code."""
        return await self._process.wait()


@asynccontextmanager
async def executor(
    database_url: str, witness_port: int, app: str = "errands", **settings: Any
) -> AsyncGenerator[ExecutorProcess]:
    """An executor that serves; killed at the end if it still runs."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("OPERON_") or name in PASSED_ON},
        **{f"OPERON_{name.upper()}": str(value) for name, value in settings.items()},
        "WITNESS_PORT": str(witness_port),
        "PYTHONUNBUFFERED": "1",
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "operon.cli", "start", f"tests.guarantees.executors.{app}:app",
        "--port", "0", "--database-url", database_url, "--log-level", "warning",
        stdout=asyncio.subprocess.PIPE, env=environment,
    )  # fmt: skip
    try:
        yield ExecutorProcess(process, await asyncio.wait_for(announced(process), DEADLINE_SECONDS))
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def announced(process: asyncio.subprocess.Process) -> str:
    """The URL that it says it serves."""
    assert process.stdout is not None
    async for line in process.stdout:
        if match := SERVES.search(line):
            return match[1].decode()
    raise AssertionError(f"the executor ended with {await process.wait()} before it served")


@asynccontextmanager
async def private_database(server: str | None = None) -> AsyncGenerator[str]:
    """The URL of a migrated database of its own."""
    server = server or os.environ.get(SERVER) or await testbed.embedded_server(FOLDER)
    stock = stock_of(server)
    name = await stock.take()
    try:
        yield with_database(server, name)
    finally:
        stock.give_back(name)


@asynccontextmanager
async def private_folder() -> AsyncGenerator[Path]:
    """A folder for an embedded server of a test's own, which it may stop and crash, or use up."""
    folder = Path(tempfile.mkdtemp(prefix="operon-own-", dir="/tmp"))  # a socket's path has to be short
    try:
        yield folder
    finally:
        await asyncio.to_thread(embedded.EmbeddedPostgres(folder).remove)


async def until(database_url: str, question: str, *args: Any) -> Any:
    """Asks again and again until the first column of the first row is true; gives it."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while True:
            rows = await testbed.fetch(database_url, question, *args)
            if rows and rows[0][0]:
                return rows[0][0]
            await asyncio.sleep(0.05)  # between two looks at a row, never instead of one
