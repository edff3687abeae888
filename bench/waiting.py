"""W5: a crowd of workflows that wait for a message: how fast it comes, what each of them costs, how soon all are done.

    live    all of them stay in memory
    parked  each leaves memory as soon as it waits, and comes back from the database for its message
    parked in two   the same in two executors, as `operon start --workers 2` has them: half of the crowd each

A process starts them, and then sends each its message; the clock of the latter runs from the first message until all
are finished in the database.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import asyncpg

from bench import cells, tables
from bench.postgres import Server

GIVE_UP_SECONDS = 240.0
GIVE_UP_SECONDS_EACH = 0.002
CONCURRENCY = 256
WARM_UP = 500
LIVE, PARKED, IN_TWO = "live", "parked", "parked in two"
LIVE_MAX = 100_000  # more of them, in memory at once, is not what anybody should do: they are measured parked alone


@dataclass(frozen=True, slots=True)
class Crowd:
    """What a crowd of waiting workflows cost, and how soon it was through."""

    system: str
    role: str
    workflows: int
    started_per_second: float
    parked_per_second: float | None  # from the first start to the last that is parked
    bytes_each: float
    resident_bytes: int  # of the process before the crowd came
    finished_seconds: float
    finished_per_second: float


async def wait(server: Server, system: cells.System, module: str, role: str, count: int) -> Crowd:
    """Runs W5 for one system, in an empty database of its own; CellFailed if it gives no result."""
    database = f"{system.database}_crowd"
    url = await server.create_database(database)
    connection = await asyncpg.connect(url)
    finished = tables.dbos_finished if system.name == "dbos" else tables.operon_finished
    executors = 2 if role == IN_TWO else 1
    kind, each = LIVE if role == LIVE else PARKED, count // executors
    arguments = ("--role", kind, "--count", str(each), "--warm-up", str(WARM_UP), "--concurrency", str(CONCURRENCY))
    patience = GIVE_UP_SECONDS + count * GIVE_UP_SECONDS_EACH
    try:
        async with asyncio.timeout(patience), AsyncExitStack() as stack:
            running: list[cells.Process] = []
            base = 0
            for _ in range(executors):  # one after the other: they warm up
                process = await stack.enter_async_context(cells.process(system, module, url, *arguments))
                running.append(process)
                base += (await process.hears("launched"))["resident"]
            begun = said_go(running)
            resident = sum([fact["resident"] for fact in await heard(running, "started")])
            started, parked = time.perf_counter(), None
            if kind == PARKED:
                await tables.until(lambda: tables.operon_parked(connection), each * executors)
                parked = time.perf_counter()
            said_go(running)
            waiting = sum([fact["resident"] for fact in await heard(running, "waiting")])
            rung = said_go(running)
            await heard(running, "woken")
            await tables.until(lambda: finished(connection), (each + WARM_UP) * executors)
            done = time.perf_counter()
    except TimeoutError:
        raise cells.CellFailed(f"{await finished(connection)} of {count} finished after {patience:.0f} s") from None
    finally:
        await connection.close()
        await server.drop_database(database)
    return Crowd(
        system=system.name,
        role=role,
        workflows=count,
        started_per_second=count / (started - begun),
        parked_per_second=None if parked is None else count / (parked - begun),
        bytes_each=((waiting if kind == PARKED else resident) - base) / count,
        resident_bytes=base,
        finished_seconds=done - rung,
        finished_per_second=count / (done - rung),
    )


def said_go(running: list[cells.Process]) -> float:
    """Says go to all of them, and gives the moment."""
    for process in running:
        process.says_go()
    return time.perf_counter()


async def heard(running: list[cells.Process], word: str) -> list[dict[str, Any]]:
    """What each of them says, when it does."""
    return [await process.hears(word) for process in running]
