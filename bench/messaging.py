"""W4 and W7: how long a message, or an event, is on its way.

W4a         two workflows write to each other, one message at a time: ms per message
W4b live    1,000 workflows wait for a message, in memory; another process sends it: from the send to the end
W4b parked  the same, and nobody is in memory: they come back from the database for it
W7          a workflow sets an event that somebody in the same process waits for: from the one to the other
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import asyncpg

from bench import cells, tables
from bench.postgres import Server

GIVE_UP_SECONDS = 240.0
SENDERS = 32
LIVE, PARKED = "W4b live", "W4b parked"
LOADS = ("W4a", LIVE, PARKED, "W7")


@dataclass(frozen=True, slots=True)
class Passage:
    """The time of a message or event; W4a has an average alone."""

    system: str
    load: str
    count: int
    p50_ms: float
    p99_ms: float | None


async def pass_messages(server: Server, system: cells.System, module: str, load: str, count: int) -> Passage:
    """Runs one load for one system, in an empty database of its own; CellFailed if it gives no result."""
    database = f"{system.database}_messages"
    url = await server.create_database(database)
    try:
        async with asyncio.timeout(GIVE_UP_SECONDS):
            if load.startswith("W4b"):
                found = await between_processes(system, module, url, count, parked=load == PARKED)
            else:
                role = {"W4a": "exchange", "W7": "publish"}[load]
                async with cells.process(system, module, url, *arguments(role, count)) as running:
                    found = await running.hears("done")
    except TimeoutError:
        raise cells.CellFailed(f"no result after {GIVE_UP_SECONDS:.0f} s") from None
    finally:
        await server.drop_database(database)
    return Passage(system.name, load, count, found["p50_ms"], found["p99_ms"])


async def between_processes(system: cells.System, module: str, url: str, count: int, *, parked: bool) -> dict[str, Any]:
    """W4b: one process in which workflows wait, one that sends."""
    receive = "receive parked" if parked else "receive"
    async with cells.process(system, module, url, *arguments(receive, count)) as receiving:
        port = (await receiving.hears("waiting"))["port"]
        if parked:
            connection = await asyncpg.connect(url)
            await tables.until(lambda: tables.operon_parked(connection), count + warm_up(count))
            await connection.close()
        more = ("--port", str(port), "--concurrency", str(SENDERS))
        async with cells.process(system, module, url, *arguments("send", count), *more) as sending:
            return await sending.hears("done")


def arguments(role: str, count: int) -> tuple[str, ...]:
    return ("--role", role, "--count", str(count), "--warm-up", str(warm_up(count)))


def warm_up(count: int) -> int:
    return max(10, count // 5)
