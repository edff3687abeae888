"""W6: many workflows with three steps done each lose their process; how long until a new one has finished them all?

Process A starts N workflows. Their fourth step waits at a gate that never opens; when all have arrived there, their
three checkpoints are durable, and A is killed with SIGKILL. Process B is then started, with an open gate.

Three clocks, because a crash has two parts that a framework decides by itself (when is a process known to be dead?
how fast is its work done again?) and one that it does not (how long does Python take to start?):

    killed    from the kill
    launched  from B saying that it is up
    dead      from the moment in which the database says that A is dead, or from B's launch if that is later
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import asyncpg

from bench import cells, tables
from bench.postgres import Server

GIVE_UP_SECONDS = 150.0


@dataclass(frozen=True, slots=True)
class Recovery:
    """How long it took until all workflows were finished, in seconds, by the three clocks above."""

    system: str
    workflows: int
    killed: float
    launched: float
    dead: float | None  # None for a system that does not tell


@dataclass(frozen=True, slots=True)
class Tables:
    """What to ask the tables of a system."""

    finished: Callable[[Any], Awaitable[int]]
    predecessor_is_dead: Callable[[Any], Awaitable[bool]] | None


TABLES = {
    "operon": Tables(tables.operon_finished, tables.operon_predecessor_is_dead),
    "dbos": Tables(tables.dbos_finished, None),
}


async def recover(server: Server, system: cells.System, module: str, workflows: int) -> Recovery:
    """Runs W6 for one system, in an empty database of its own."""
    database = f"{system.database}_recovery"
    url = await server.create_database(database)
    connection = await asyncpg.connect(url)
    asked = TABLES[system.name]
    arguments = ("--workflows", str(workflows))
    try:
        async with asyncio.timeout(GIVE_UP_SECONDS):
            async with cells.process(system, module, url, "--role", "crash", *arguments) as crashing:
                await crashing.hears("ready")  # leaving the block kills it
            killed = time.perf_counter()
            async with cells.process(system, module, url, "--role", "recover", *arguments) as recovering:
                await recovering.hears("ready")
                launched = time.perf_counter()
                dead = None
                if asked.predecessor_is_dead:
                    while not await asked.predecessor_is_dead(connection):  # noqa: ASYNC110 - no event in here
                        await asyncio.sleep(tables.POLL_SECONDS)
                    dead = time.perf_counter()
                await tables.until(lambda: asked.finished(connection), workflows)
                done = time.perf_counter()
    except TimeoutError:
        raise cells.CellFailed(
            f"{await asked.finished(connection)} of {workflows} finished after {GIVE_UP_SECONDS:.0f} s"
        ) from None
    finally:
        await connection.close()
        await server.drop_database(database)
    return Recovery(system.name, workflows, done - killed, done - launched, None if dead is None else done - dead)
