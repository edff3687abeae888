"""What the processes of W4, W5 and W7 agree on: their arguments, and the line on which one tells the other who is done.

W4b's sender is in another process than the workflows it sends to, and wants to know when each of them is finished, by
its own clock. No framework is asked for that, as they would answer at very different cost: the receiver says so over a
connection of the loopback, which takes some 0.05 ms and is the same for everybody.

Imported by the peers too, so it imports the standard library alone.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass

from bench.harness import DATABASE_URL, percentile

MESSAGE = "Hamlet, row A, seat 1"
TOPIC = "seat"
FOREVER_SECONDS = 3600.0  # for a peer that must be told how long to wait


@dataclass(frozen=True, slots=True)
class Part:
    """What a process of W4, W5 or W7 is told to do."""

    database_url: str
    role: str
    count: int  # messages, workflows or events
    warm_up: int  # as many before that, whose time does not count
    concurrency: int
    port: int  # W4b's sender: where the receiver says who is done
    workflows: tuple[str, ...] = ()  # ... and who they are


def part_from_arguments() -> Part:
    parser = argparse.ArgumentParser()
    parser.add_argument("--role", required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--warm-up", type=int, default=0)
    parser.add_argument("--concurrency", type=int, default=1)
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    url = os.environ[DATABASE_URL]
    return Part(url, options.role, options.count, options.warm_up, options.concurrency, options.port)


class FinishLine:
    """The receiver's end: a server on the loopback for one sender, who is told every workflow that is finished."""

    def __init__(self) -> None:
        self._writer: asyncio.StreamWriter | None = None

    @contextlib.asynccontextmanager
    async def open(self, workflows: Iterable[str]) -> AsyncIterator[int]:
        """Gives the port to connect to; the first line for who connects names the workflows."""
        names = " ".join(workflows)

        async def connected(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(f"{names}\n".encode())
            self._writer = writer

        server = await asyncio.start_server(connected, "127.0.0.1", 0)
        async with server:
            yield server.sockets[0].getsockname()[1]

    def finished(self, workflow: str) -> None:
        if self._writer is not None:
            self._writer.write(f"{workflow}\n".encode())


async def send_and_wait(part: Part, send: Callable[[str], Awaitable[object]]) -> list[float]:
    """Sends to each workflow, `concurrency` at a time, and waits for its end; the seconds from one to the other."""
    reader, writer = await asyncio.open_connection("127.0.0.1", part.port, limit=2**24)
    names = (await reader.readline()).decode().split()
    ends = {name: asyncio.get_running_loop().create_future() for name in names}

    async def listen() -> None:
        while line := await reader.readline():
            ends[line.decode().strip()].set_result(time.perf_counter())

    async def run(queue: list[str]) -> list[float]:
        latencies: list[float] = []

        async def sender() -> None:
            while queue:
                name = queue.pop()
                begun = time.perf_counter()
                await send(name)
                latencies.append(await ends[name] - begun)

        async with asyncio.TaskGroup() as senders:
            for _ in range(part.concurrency):
                senders.create_task(sender())
        return latencies

    listening = asyncio.create_task(listen())
    await run(names[: part.warm_up])
    latencies = await run(names[part.warm_up :])
    listening.cancel()
    writer.close()
    return latencies


async def in_turns(count: int, concurrency: int, one: Callable[[int], Awaitable[object]]) -> None:
    """Calls `one` with 0, 1, 2, ..., so many at a time."""
    numbers = iter(range(count))

    async def worker() -> None:
        for number in numbers:
            await one(number)

    async with asyncio.TaskGroup() as workers:
        for _ in range(concurrency):
            workers.create_task(worker())


def figures(latencies: list[float]) -> dict[str, float]:
    """The two percentiles that are reported, in milliseconds."""
    ordered = sorted(latencies)
    return {"p50_ms": percentile(ordered, 0.50) * 1000, "p99_ms": percentile(ordered, 0.99) * 1000}
