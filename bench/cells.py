"""A cell of the benchmark, seen from the process that orders it: starts the process, reads the counters around it.

Whatever a system does outside its own process (Postgres' work, commits, WAL) is read here, between the moment in
which the process says that it is warm and the moment in which it says that it is done.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.harness import DATABASE_URL, Timing
from bench.postgres import Server

ROOT = Path(__file__).parent.parent

# A cell that hangs must not hold up the others: the slowest one measured (a peer, 256 workflows of 20 ms CPU each)
# needs some 10 seconds for its last wave.
GRACE_SECONDS = 60.0


class CellFailed(Exception):
    """The process of a cell ended without a result."""


@dataclass(frozen=True, slots=True, eq=False)  # one is itself, and a key of dictionaries
class System:
    """Something to measure: how to start a process of it, and its database."""

    name: str
    modules: dict[str, str]  # workload to the module that runs it
    python: str = sys.executable
    batched: bool = False
    measures_round_trips: bool = False

    @property
    def database(self) -> str:
        return "bench_" + self.name.replace(" ", "_")


@dataclass(frozen=True, slots=True)
class Cell:
    """One system under one load."""

    system: System
    workload: str
    concurrency: int


@dataclass(frozen=True, slots=True)
class Figures:
    """What a cell cost. Everything is per workflow unless its name says otherwise; None where it was not measured."""

    system: str
    workload: str
    concurrency: int
    workflows: int
    workflows_per_second: float
    p50_ms: float
    p99_ms: float
    commits: float  # transactions that wrote
    transactions: float  # those that only read as well
    wal_bytes: float
    round_trips: float | None
    client_cpu_us: float
    server_cpu_us: float | None
    other_cores: float | None  # how many cores somebody else kept busy meanwhile


class Process:
    """A started process of a system, and the lines of JSON that it prints."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self._log = log

    @property
    def pid(self) -> int:
        return self._process.pid

    async def hears(self, kind: str) -> dict[str, Any]:
        """The next message of the process, which must be of this kind."""
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            if not line.startswith(b'{"bench"'):
                continue  # a peer may print what it likes
            message: dict[str, Any] = json.loads(line)
            if message.pop("bench") == kind:
                return message
        await self._process.wait()
        lines = [line for line in self._log.read_text(errors="replace").splitlines() if line.strip()]
        raise CellFailed(lines[-1] if lines else f"ended before it was {kind}")

    def says_go(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(b"go\n")

    async def ends(self) -> None:
        await self._process.wait()

    async def kill(self) -> None:
        """SIGKILL, and the certainty that it is gone."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()


@contextlib.asynccontextmanager
async def process(system: System, module: str, database_url: str, *arguments: str) -> AsyncIterator[Process]:
    """Starts a module in the Python of a system; killed at the end if it is still there."""
    with tempfile.NamedTemporaryFile(prefix="operon-bench-", suffix=".log") as log:
        started = Process(
            await asyncio.create_subprocess_exec(
                *(system.python, "-m", module, *arguments),
                cwd=ROOT,
                env={**os.environ, DATABASE_URL: database_url},
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            ),
            Path(log.name),
        )
        try:
            yield started
        finally:
            await started.kill()


async def run_cell(server: Server, cell: Cell, database_url: str, seconds: float, warm_up_seconds: float) -> Figures:
    """Runs one cell; CellFailed if its process gives no result."""
    system = cell.system
    transactions_before = await server.transactions(system.database)
    async with deadline(seconds + warm_up_seconds), started(cell, database_url, seconds, warm_up_seconds) as running:
        await running.hears("warm")
        before = await server.counters()
        running.says_go()
        timing = Timing(**await running.hears("done"))
        after = await server.counters()
        running.says_go()
        await running.ends()
    transactions = await server.transactions(system.database) - transactions_before
    count = timing.workflows
    server_cpu, others = None, None
    if before.cpu_seconds is not None and after.cpu_seconds is not None:
        server_cpu = after.cpu_seconds - before.cpu_seconds
        others = max(0.0, after.busy_seconds - before.busy_seconds - server_cpu - timing.cpu_seconds) / timing.seconds
    return Figures(
        system=system.name,
        workload=cell.workload,
        concurrency=cell.concurrency,
        workflows=count,
        workflows_per_second=count / timing.seconds,
        p50_ms=timing.p50_ms,
        p99_ms=timing.p99_ms,
        commits=(after.write_transactions - before.write_transactions) / count,
        # Over the whole life of the process, as Postgres' count comes late; a launch costs some tens of transactions.
        transactions=transactions / (count + timing.workflows_in_warm_up),
        wal_bytes=(after.wal_bytes - before.wal_bytes) / count,
        round_trips=None,
        client_cpu_us=timing.cpu_seconds / count * 1e6,
        server_cpu_us=None if server_cpu is None else server_cpu / count * 1e6,
        other_cores=others,
    )


async def count_round_trips(cell: Cell, database_url: str) -> float:
    """Round trips per workflow, in a short run of its own; CellFailed if its process gives no result."""
    async with deadline(0.5), started(cell, database_url, 0.3, 0.2, "--count-round-trips") as running:
        await running.hears("warm")
        running.says_go()
        timing = Timing(**await running.hears("done"))
        running.says_go()
        await running.ends()
    return (timing.round_trips or 0) / timing.workflows


@contextlib.asynccontextmanager
async def started(
    cell: Cell, database_url: str, seconds: float, warm_up_seconds: float, *more: str
) -> AsyncIterator[Process]:
    """The process of a cell."""
    arguments = ["--workload", cell.workload, "--concurrency", str(cell.concurrency)]
    arguments += ["--seconds", str(seconds), "--warm-up-seconds", str(warm_up_seconds), *more]
    if cell.system.batched:
        arguments.append("--batched")
    async with process(cell.system, cell.system.modules[cell.workload], database_url, *arguments) as running:
        yield running


@contextlib.asynccontextmanager
async def deadline(seconds: float) -> AsyncIterator[None]:
    """Turns a process that hangs into CellFailed, so that the other cells are run."""
    try:
        async with asyncio.timeout(seconds + GRACE_SECONDS):
            yield
    except TimeoutError:
        raise CellFailed(f"no result after {seconds + GRACE_SECONDS:.0f} s") from None
