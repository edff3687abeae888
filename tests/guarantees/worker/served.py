"""The application as a server: `operon start tests.guarantees.worker.served:app`, and a client for it."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import NamedTuple

import msgspec

import operon
from tests.guarantees.worker import application
from tests.guarantees.worker.case import DEADLINE_SECONDS, Case
from tests.guarantees.worker.life import SETTINGS

app = operon.Operon(application, **SETTINGS)


class Answer(NamedTuple):
    """What a client keeps of an answer."""

    status: int
    workflow_uuid: str
    body: bytes


class Served:
    """A server in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.process = process
        self.port = port

    async def post(self, path: str, body: object, key: str) -> Answer:
        """One request on a connection of its own. Raises OSError or EOFError when the server dies."""
        content = msgspec.json.encode(body)
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n"
            head += f"idempotency-key: {key}\r\ncontent-length: {len(content)}\r\n\r\n"
            writer.write(head.encode() + content)
            status, *headers = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
            answered = await reader.read()
        finally:
            writer.close()
        fields = dict(header.lower().split(": ", 1) for header in headers if header)
        if len(answered) != int(fields.get("content-length", len(answered))):
            raise EOFError("the server died in the middle of an answer")
        return Answer(int(status.split()[1]), fields.get("operon-workflowuuid", ""), answered)

    async def kill(self) -> None:
        """SIGKILL, and its end."""
        self.process.kill()
        await self.process.wait()


@asynccontextmanager
async def serving(case: Case, life: int) -> AsyncGenerator[Served]:
    """The server, from the command line to its end."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "operon.cli", "start", "tests.guarantees.worker.served:app", "--port", "0"),
        env={**os.environ, **case.environment(life)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            line = await process.stdout.readline() if process.stdout else b""
        announced = re.search(rb"http://127\.0\.0\.1:(\d+)", line)
        assert announced is not None, f"the server said {line!r}"
        yield Served(process, int(announced[1]))
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
