"""W5: a crowd of workflows that wait for a message: how fast it comes, what each of them costs, how soon all are done.

    live    all of them stay in memory
    parked  each leaves memory as soon as it waits, and comes back from the database for its message

One process starts them, and then sends each its message; the clock of the latter runs from the first message until all
are finished in the database.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import asyncpg

from bench import cells, tables
from bench.postgres import Server

GIVE_UP_SECONDS = 240.0
GIVE_UP_SECONDS_EACH = 0.002
CONCURRENCY = 256
WARM_UP = 500
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
    arguments = ("--role", role, "--count", str(count), "--warm-up", str(WARM_UP), "--concurrency", str(CONCURRENCY))
    patience = GIVE_UP_SECONDS + count * GIVE_UP_SECONDS_EACH
    try:
        async with asyncio.timeout(patience), cells.process(system, module, url, *arguments) as running:
            base: int = (await running.hears("launched"))["resident"]
            running.says_go()
            begun = time.perf_counter()
            resident: int = (await running.hears("started"))["resident"]
            started, parked = time.perf_counter(), None
            if role == "parked":
                await tables.until(lambda: tables.operon_parked(connection), count)
                parked = time.perf_counter()
            running.says_go()
            waiting: int = (await running.hears("waiting"))["resident"]
            running.says_go()
            rung = time.perf_counter()
            await running.hears("woken")
            await tables.until(lambda: finished(connection), count + WARM_UP)
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
        bytes_each=((waiting if role == "parked" else resident) - base) / count,
        resident_bytes=base,
        finished_seconds=done - rung,
        finished_per_second=count / (done - rung),
    )
