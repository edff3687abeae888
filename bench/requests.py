"""W8: what a workflow costs behind HTTP. 32 connections of another process post to a server, one request at a time.

bare    a handler of the same server without a workflow
spawn   a handler that starts a workflow and answers with its UUID
result  a workflow that answers with its result
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import psutil

from bench import cells
from bench.postgres import Server

ROUTES = ("bare", "spawn", "result")
CONNECTIONS = 32
GIVE_UP_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Requests:
    """What one route of one system answered."""

    system: str
    route: str
    connections: int
    requests: int
    requests_per_second: float
    p50_ms: float
    p99_ms: float
    server_cpu_us: float  # of the serving process, per request: what is left where others keep the cores busy


async def post(
    server: Server, system: cells.System, module: str, seconds: float, warm_up_seconds: float, rounds: int
) -> list[Requests]:
    """Asks each route of one system in turns; of several rounds the median. CellFailed if there is no result."""
    database = f"{system.database}_requests"
    url = await server.create_database(database)
    found: dict[str, list[Requests]] = {route: [] for route in ROUTES}
    try:
        async with asyncio.timeout(rounds * len(ROUTES) * (seconds + warm_up_seconds) + GIVE_UP_SECONDS):
            async with cells.process(system, module, url) as serving:
                port = (await serving.hears("serving"))["port"]
                for _ in range(rounds):
                    for route in ROUTES:
                        found[route].append(await load(system.name, route, serving.pid, port, seconds, warm_up_seconds))
    except TimeoutError:
        raise cells.CellFailed("no result in time") from None
    finally:
        await server.drop_database(database)
    return [sorted(each, key=lambda one: one.requests_per_second)[len(each) // 2] for each in found.values()]


async def load(system: str, route: str, pid: int, port: int, seconds: float, warm_up_seconds: float) -> Requests:
    """Asks one route."""
    arguments = ("--port", str(port), "--path", f"/{route}", "--connections", str(CONNECTIONS))
    lasting = ("--seconds", str(seconds), "--warm-up-seconds", str(warm_up_seconds))
    before = cpu_seconds(pid)
    async with cells.process(CLIENTS, "bench.clients", "", *arguments, *lasting) as asking:
        done = await asking.hears("done")
    count = done["count"]
    cpu_us = (cpu_seconds(pid) - before) / (count + done["count_in_warm_up"]) * 1e6
    return Requests(system, route, CONNECTIONS, count, count / done["seconds"], done["p50_ms"], done["p99_ms"], cpu_us)


def cpu_seconds(pid: int) -> float:
    used: float = sum(psutil.Process(pid).cpu_times()[:2])  # in user code, and in the kernel
    return used


CLIENTS = cells.System("clients", {})
