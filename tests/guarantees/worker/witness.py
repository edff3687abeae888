"""The outside world: a listener that writes down each call of a communicator when it hears it, and only then answers.

It is not a table of the same database: such a witness would die, retry and roll back together with what it watches.

The test holds a `Witness`; a worker's communicators and its main function talk to it over a Unix socket. An answer can
be withheld, which keeps a step in the middle of what it does.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec


class Call(msgspec.Struct, frozen=True):
    """What a communicator, or a transaction from its inside, says to the world."""

    case: str
    life: int
    workflow: UUID
    key: str
    name: str
    attempt: int
    payload: str


class News(msgspec.Struct, frozen=True):
    """What a client of the application learns: a workflow was started, or it ended."""

    case: str
    life: int
    workflow: UUID
    what: str  # started, result, error
    value: Any = None


class Message(msgspec.Struct, frozen=True):
    """One line on the socket."""

    call: Call | None = None
    news: News | None = None


class Witness:
    """The test's side: everything that was heard, in the order of hearing."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.news: list[News] = []
        self._heard = asyncio.Condition()
        self._withheld: dict[tuple[str, int, str], asyncio.Event] = {}

    def withhold(self, case: str, life: int, name: str) -> asyncio.Event:
        """Calls of this name in this life of this case are answered when the event is set."""
        return self._withheld.setdefault((case, life, name), asyncio.Event())

    async def until(self, heard: Any) -> None:
        """Waits until `heard()` is true of what was heard."""
        async with self._heard, asyncio.timeout(60):
            await self._heard.wait_for(heard)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of a worker, which may be cut at any moment."""
        with contextlib.suppress(OSError), contextlib.closing(writer):
            while line := await reader.readline():
                message = msgspec.json.decode(line, type=Message)
                async with self._heard:
                    if message.news is not None:
                        self.news.append(message.news)
                    if message.call is not None:
                        self.calls.append(message.call)
                    self._heard.notify_all()
                if (call := message.call) is not None and (
                    gate := self._withheld.get((call.case, call.life, call.name))
                ):
                    await gate.wait()
                writer.write(b"\n")
                await writer.drain()


@asynccontextmanager
async def listening(path: Path) -> AsyncGenerator[Witness]:
    """A witness on a socket; its workers are gone when the block ends."""
    witness = Witness()
    server = await asyncio.start_unix_server(witness.serve, path)
    try:
        yield witness
    finally:
        server.close()


# ------------------------------------------------------------------ the worker's side


async def call(workflow: UUID, key: str, name: str, attempt: int, payload: str) -> None:
    """Says it to the world, and waits for the answer.

    It is said before anything else can happen in this process: who is stopped meanwhile has called, or has not.
    """
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(os.environ["WITNESS"])
    connection.sendall(encode_call(workflow, key, name, attempt, payload))
    reader, writer = await asyncio.open_unix_connection(sock=connection)
    with contextlib.closing(writer):
        if await reader.readline() != b"\n":
            raise ConnectionResetError("the witness is gone")


def call_blocking(workflow: UUID, key: str, name: str, attempt: int, payload: str) -> None:
    """The same from a thread."""
    tell_blocking(encode_call(workflow, key, name, attempt, payload))


def tell(workflow: UUID, what: str, value: Any = None) -> None:
    """Says what a client of the application has learned."""
    news = News(os.environ["CASE"], int(os.environ["LIFE"]), workflow, what, value)
    tell_blocking(msgspec.json.encode(Message(news=news)) + b"\n")


def tell_blocking(line: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(os.environ["WITNESS"])
        connection.sendall(line)
        connection.recv(1)


def encode_call(workflow: UUID, key: str, name: str, attempt: int, payload: str) -> bytes:
    said = Call(os.environ["CASE"], int(os.environ["LIFE"]), UUID(int=workflow.int), key, name, attempt, payload)
    return msgspec.json.encode(Message(call=said)) + b"\n"
