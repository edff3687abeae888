"""W8's load: clients of an HTTP server in a process of their own, each with one connection and one request at a time.

They are written on asyncio's protocols and understand no more of HTTP than they need, because they share the machine
with the server: a client library takes more of it than the servers that are measured.

Runs for every system, so it imports the standard library alone.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import time
from typing import cast

from bench import harness

BODY = json.dumps({"item": "Hamlet, row A, seat 1"}).encode()
LENGTH = re.compile(rb"^content-length: *(\d+)", re.IGNORECASE | re.MULTILINE)
HEAD_ENDS = b"\r\n\r\n"


class Client(asyncio.Protocol):
    """One connection, which asks again as soon as it is answered, until the deadline."""

    def __init__(self, path: str, deadline: float, latencies: list[float]) -> None:
        head = f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {len(BODY)}"
        self._request = head.encode() + HEAD_ENDS + BODY
        self._deadline = deadline
        self._latencies = latencies
        self._answer = b""
        self._asked = 0.0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name
        self._ask()

    def data_received(self, data: bytes) -> None:
        self._answer += data
        head, ends, body = self._answer.partition(HEAD_ENDS)
        length = LENGTH.search(head)
        if not ends or (length is not None and len(body) < int(length[1])):
            return
        if length is None or not head.startswith(b"HTTP/1.1 200"):
            self._end(RuntimeError(self._answer[:500].decode(errors="replace")))
            return
        now = time.perf_counter()
        self._latencies.append(now - self._asked)
        if now < self._deadline:
            self._ask()
        else:
            self._end(None)

    def connection_lost(self, error: Exception | None) -> None:
        self._end(error or ConnectionError("the server closed the connection"))

    def _ask(self) -> None:
        self._answer = b""
        self._asked = time.perf_counter()
        self._transport.write(self._request)

    def _end(self, error: Exception | None) -> None:
        if self.done.done():
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)
        self._transport.close()

    def __repr__(self) -> str:
        return f"<Client: {len(self._latencies)} answers to all clients>"


async def ask(port: int, path: str, connections: int, seconds: float) -> list[float]:
    """Seconds that each request took. Raises what a connection ended with; RuntimeError for any answer but 200."""
    loop, latencies = asyncio.get_running_loop(), list[float]()
    deadline = time.perf_counter() + seconds
    clients = [
        (await loop.create_connection(lambda: Client(path, deadline, latencies), "127.0.0.1", port))[1]
        for _ in range(connections)
    ]
    await asyncio.gather(*(client.done for client in clients))
    return latencies


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--path", required=True)
    parser.add_argument("--connections", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--warm-up-seconds", type=float, required=True)
    options = parser.parse_args()
    warm = await ask(options.port, options.path, options.connections, options.warm_up_seconds)
    began = time.perf_counter()
    latencies = sorted(await ask(options.port, options.path, options.connections, options.seconds))
    figures = {
        "count": len(latencies),
        "count_in_warm_up": len(warm),
        "seconds": time.perf_counter() - began,
        "p50_ms": harness.percentile(latencies, 0.50) * 1000,
        "p99_ms": harness.percentile(latencies, 0.99) * 1000,
    }
    await harness.parent_says_go({"bench": "done", **figures})


if __name__ == "__main__":
    harness.run(main())
