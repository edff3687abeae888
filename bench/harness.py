"""A cell of the benchmark, seen from inside the process that is measured: the closed loop, its clock, and the door.

Every cell (one system, one workload, one concurrency) runs in a process of its own, so that no system pays for the
threads, polls and garbage of another. That process only drives its system and reads its own clock and CPU; the
counters of Postgres belong to the process that started it (`bench.cells`). The two agree through lines of JSON:

    child   {"bench": "warm"}            launched, warmed up, nothing in flight
    parent  go                           after reading the counters
    child   {"bench": "done", ...}       a Timing, with its connections still open
    parent  go                           after reading the counters again

A peer's process imports this file from a virtual environment of its own, so it imports the standard library alone.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

DATABASE_URL = "BENCH_DATABASE_URL"  # in the environment, not in the arguments, which every user of a machine can read

# Warming up takes no more tasks than this: at 256 a slow peer would need several seconds for one round of them.
WARM_UP_CONCURRENCY_MAX = 32


@dataclass(frozen=True, slots=True)
class Task:
    """What one process is told to do."""

    database_url: str
    workload: str
    concurrency: int
    seconds: float
    warm_up_seconds: float
    batched: bool  # the batched floor alone: all workflows of the cell in step
    count_round_trips: bool


@dataclass(frozen=True, slots=True)
class Timing:
    """What one process found out about itself, between "go" and the end of the last workflow."""

    workflows: int
    workflows_in_warm_up: int
    seconds: float
    cpu_seconds: float
    p50_ms: float
    p99_ms: float
    round_trips: int | None


One = Callable[[], Awaitable[object]]
RoundTrips = Callable[[], int]


@dataclass(frozen=True, slots=True)
class Loop:
    """The outcome of a closed loop."""

    latencies: list[float]
    seconds: float
    cpu_seconds: float


async def closed_loop(one: One, concurrency: int, seconds: float) -> Loop:
    """Keeps `concurrency` calls of `one` in flight for `seconds`, then lets them finish.

    The clock stops with the last call, not at the deadline: at a concurrency of 256 a slow system finishes all of its
    calls in one wave, and a clock that stops before the wave would report nothing at all.
    """
    latencies: list[float] = []
    record = latencies.append
    clock = time.perf_counter
    cpu_before, began = time.process_time(), clock()
    deadline = began + seconds

    async def worker() -> None:
        before = clock()
        while before < deadline:
            await one()
            after = clock()
            record(after - before)
            before = after

    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(worker())
    return Loop(latencies, clock() - began, time.process_time() - cpu_before)


async def measure(task: Task, one: One, *, batch: int = 1, round_trips: RoundTrips | None = None) -> None:
    """Warms up, waits for the parent, runs the closed loop and answers with its Timing.

    batch: workflows in one call of `one`; the loop then keeps `concurrency / batch` calls in flight.
    round_trips: gives the number of messages sent to Postgres so far.
    """
    callers = max(1, task.concurrency // batch)
    warm = await closed_loop(one, min(callers, WARM_UP_CONCURRENCY_MAX), task.warm_up_seconds)
    await parent_says_go({"bench": "warm"})
    before = round_trips() if round_trips else 0
    loop = await closed_loop(one, callers, task.seconds)
    ordered = sorted(loop.latencies)
    timing = Timing(
        workflows=len(ordered) * batch,
        workflows_in_warm_up=len(warm.latencies) * batch,
        seconds=loop.seconds,
        cpu_seconds=loop.cpu_seconds,
        p50_ms=percentile(ordered, 0.50) * 1000,
        p99_ms=percentile(ordered, 0.99) * 1000,
        round_trips=round_trips() - before if round_trips else None,
    )
    await parent_says_go({"bench": "done", **asdict(timing)})


def resident_bytes() -> int:
    """Return the resident memory of this process. Linux only."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1_024
    raise RuntimeError("this system does not say how much memory is resident")


def percentile(ordered: list[float], fraction: float) -> float:
    """The nearest-rank percentile of a sorted list that is not empty."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * fraction))]


async def parent_says_go(message: dict[str, Any]) -> None:
    """Prints a line for the parent and waits for its answer, off the event loop."""
    print(json.dumps(message), flush=True)
    if not await asyncio.to_thread(sys.stdin.readline):
        raise EOFError("the parent is gone")


def task_from_arguments() -> Task:
    """The task of this process, from its arguments and the environment."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--workload", required=True)
    parser.add_argument("--concurrency", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--warm-up-seconds", type=float, required=True)
    parser.add_argument("--batched", action="store_true")
    parser.add_argument("--count-round-trips", action="store_true")
    options = parser.parse_args()
    return Task(
        database_url=os.environ[DATABASE_URL],
        workload=options.workload,
        concurrency=options.concurrency,
        seconds=options.seconds,
        warm_up_seconds=options.warm_up_seconds,
        batched=options.batched,
        count_round_trips=options.count_round_trips,
    )


def run(main: Coroutine[Any, Any, None]) -> None:
    """Runs a coroutine on uvloop where it is installed, on asyncio's own loop elsewhere."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(main)
        return
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)
