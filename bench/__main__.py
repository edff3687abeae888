"""`python -m bench`: Operon, the bare floor and a peer, side by side on one Postgres, in one run.

The cells are interleaved: each system runs a load before any of them runs the next one, and every other load is run
in the opposite order, so that whatever the machine does meanwhile hits all of them alike.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

from bench import messaging, recovery, report, requests, waiting
from bench.cells import Cell, CellFailed, Figures, System, count_round_trips, run_cell
from bench.peers import environment
from bench.postgres import Server, fdatasync_us, server

LOADS = ("W1", "W2", "W3", "W3sql")
WORKLOADS = (*LOADS, "W4", "W5", "W6", "W7", "W8")
README = Path(__file__).parent / "README.md"

# A run that takes longer has met something that is not the subject: what is left is skipped, and said so.
RUN_SECONDS_MAX = 480.0

# What is not in the plan of a run is a run of its own: `--only W5 --waiting 1000000`.
PEER_WAITING_MAX = 10_000


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """How long and how wide to measure."""

    workloads: tuple[str, ...]
    concurrencies: tuple[int, ...]
    round_trips_at: tuple[int, ...]
    seconds: float
    warm_up_seconds: float
    crashed_workflows: int
    crashed_workflows_of_peer: int
    messages: int
    messages_of_peer: int
    waiting_workflows: int
    waiting_workflows_of_peer: int


FULL = Plan(WORKLOADS, (1, 32, 256), (1, 32, 256), 3.0, 0.5, 10_000, 2_000, 1_000, 200, 10_000, 2_000)
QUICK = Plan(WORKLOADS, (1, 32), (1,), 1.0, 0.3, 1_000, 500, 100, 50, 1_000, 200)

OPERON = System(
    "operon",
    {
        "W1": "bench.workflows",
        "W2": "bench.steps",
        "W3": "bench.transactions",
        "W3sql": "bench.transactions",
        "W4": "bench.correspondents",
        "W5": "bench.crowd",
        "W6": "bench.interrupted",
        "W7": "bench.correspondents",
        "W8": "bench.site",
    },
)
FLOOR = System("floor", {**dict.fromkeys(LOADS, "bench.floor"), **dict.fromkeys(("W4", "W7"), "bench.floor_messages")})
FLOOR_BATCHED = System("floor batched", dict.fromkeys(("W1", "W2", "W3sql"), "bench.floor"), batched=True)


def dbos() -> System:
    modules = {
        **dict.fromkeys(("W1", "W2", "W3"), "bench.peers.dbos_bench"),
        **dict.fromkeys(("W4", "W7"), "bench.peers.dbos_correspondents"),
        "W5": "bench.peers.dbos_crowd",
        "W6": "bench.peers.dbos_recovery",
        "W8": "bench.peers.dbos_site",
    }
    return System("dbos", modules, python=environment.python_of("dbos"))


PEERS = {"dbos": dbos}


class Run:
    """One run: its server, its plan, and what it found out so far."""

    def __init__(self, on: Server, plan: Plan, systems: list[System], rounds: int) -> None:
        self._server = on
        self._plan = plan
        self._systems = systems
        self._rounds = rounds
        self._deadline = time.monotonic() + rounds * RUN_SECONDS_MAX
        self.figures: list[Figures] = []
        self.passages: list[messaging.Passage] = []
        self.crowds: list[waiting.Crowd] = []
        self.recoveries: list[recovery.Recovery] = []
        self.requests: list[requests.Requests] = []
        self.failures: list[str] = []

    async def loads(self) -> None:
        """Every load on every system."""
        urls = {system.name: await self._server.create_database(system.database) for system in self._systems}
        order = list(self._systems)
        for workload in (name for name in LOADS if name in self._plan.workloads):
            for concurrency in self._plan.concurrencies:
                # In step with nobody, the batched floor is the floor.
                cells = {
                    Cell(system, workload, concurrency): urls[system.name]
                    for system in order
                    if workload in system.modules and not (system.batched and concurrency == 1)
                }
                await self._side_by_side(cells)
                order.reverse()
        for system in self._systems:
            await self._server.drop_database(system.database)

    async def _side_by_side(self, cells: dict[Cell, str]) -> None:
        """The same load on each system, in turns; of several rounds the one of median speed is kept."""
        rounds: dict[Cell, list[Figures]] = {cell: [] for cell in cells}
        for _ in range(self._rounds):
            for cell, url in cells.items():
                if figures := await self._cell(cell, url):
                    rounds[cell].append(figures)
        for cell, found in rounds.items():
            if not found:
                continue
            median = sorted(found, key=lambda figures: figures.workflows_per_second)[len(found) // 2]
            if cell.system is OPERON and cell.concurrency in self._plan.round_trips_at:
                median = dataclasses.replace(median, round_trips=await self._round_trips(cell, cells[cell]))
            self.figures.append(median)

    async def _cell(self, cell: Cell, url: str) -> Figures | None:
        label = f"{cell.workload} at {cell.concurrency}, {cell.system.name}"
        if time.monotonic() > self._deadline:
            self._failed(label, "skipped, the run has taken its time")
            return None
        try:
            figures = await run_cell(self._server, cell, url, self._plan.seconds, self._plan.warm_up_seconds)
        except CellFailed as failure:
            self._failed(label, str(failure))
            return None
        progress(f"{label}: {report.number(figures.workflows_per_second)} wf/s, p50 {report.number(figures.p50_ms)} ms")
        return figures

    async def _round_trips(self, cell: Cell, url: str) -> float | None:
        try:
            return await count_round_trips(cell, url)
        except CellFailed as failure:
            self._failed(f"round trips of {cell.workload} at {cell.concurrency}", str(failure))
            return None

    async def recovery(self) -> None:
        """W6 on every system that recovers."""
        for system in self._in("W6"):
            peer = system is not OPERON
            workflows = self._plan.crashed_workflows_of_peer if peer else self._plan.crashed_workflows
            try:
                done = await recovery.recover(self._server, system, system.modules["W6"], workflows)
            except CellFailed as failure:
                self._failed(f"W6, {system.name}", str(failure))
                continue
            self.recoveries.append(done)
            progress(f"W6, {system.name}: {workflows:,} finished {done.launched:.2f} s after the launch")

    async def messages(self) -> None:
        """W4 and W7 on every system that has messages; each load on all of them before the next."""
        for load in messaging.LOADS:
            for system in self._in("W7" if load == "W7" else "W4"):
                module = system.modules["W7" if load == "W7" else "W4"]
                count = self._plan.messages if system in (OPERON, FLOOR) else self._plan.messages_of_peer
                if load == messaging.PARKED and system is not OPERON:
                    continue  # it keeps in memory whoever waits
                if load == messaging.LIVE and system is FLOOR:
                    continue  # there is nothing by hand that could be told from afar
                try:
                    done = await messaging.pass_messages(self._server, system, module, load, count)
                except CellFailed as failure:
                    self._failed(f"{load}, {system.name}", str(failure))
                    continue
                self.passages.append(done)
                progress(f"{load}, {system.name}: p50 {report.number(done.p50_ms)} ms")

    async def waiting(self) -> None:
        """W5 on every system that has messages."""
        for system in self._in("W5"):
            peer = system is not OPERON
            workflows = self._plan.waiting_workflows_of_peer if peer else self._plan.waiting_workflows
            for role in (waiting.LIVE,) if peer else (waiting.LIVE, waiting.PARKED, waiting.IN_TWO):
                if role == waiting.LIVE and workflows > waiting.LIVE_MAX:
                    continue
                try:
                    done = await waiting.wait(self._server, system, system.modules["W5"], role, workflows)
                except CellFailed as failure:
                    self._failed(f"W5 {role}, {system.name}", str(failure))
                    continue
                self.crowds.append(done)
                progress(f"W5 {role}, {system.name}: {workflows:,} woken and finished in {done.finished_seconds:.2f} s")

    async def http(self) -> None:
        """W8 on every system that has a server for it."""
        seconds, warm_up_seconds = self._plan.seconds, self._plan.warm_up_seconds
        for system in self._in("W8"):
            module = system.modules["W8"]
            try:
                done = await requests.post(self._server, system, module, seconds, warm_up_seconds, self._rounds)
            except CellFailed as failure:
                self._failed(f"W8, {system.name}", str(failure))
                continue
            self.requests += done
            rates = ", ".join(f"{one.route} {report.number(one.requests_per_second)}" for one in done)
            progress(f"W8, {system.name}: requests/s: {rates}")

    def _in(self, workload: str) -> list[System]:
        """The systems that have a workload, if it is to be run."""
        chosen = workload in self._plan.workloads
        return [system for system in self._systems if chosen and workload in system.modules]

    def _failed(self, label: str, why: str) -> None:
        self.failures.append(f"{label}: {why}")
        progress(f"{label}: FAILED: {why}")

    def __repr__(self) -> str:
        return f"<Run {len(self.figures)} cells, {len(self.failures)} failed>"


def progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


async def machine(on: Server) -> dict[str, str]:
    facts = {
        "cores": str(os.cpu_count()),
        "Python": platform.python_version(),
        "fdatasync us": f"{fdatasync_us():.0f}",
        "load": f"{os.getloadavg()[0]:.2f}",
    }
    return {**facts, **await on.facts()}


async def main(options: argparse.Namespace) -> int:
    plan = dataclasses.replace(QUICK if options.quick else FULL, workloads=tuple(options.only))
    if options.seconds:
        plan = dataclasses.replace(plan, seconds=options.seconds)
    if options.waiting:
        of_peer = min(options.waiting, PEER_WAITING_MAX)
        plan = dataclasses.replace(plan, waiting_workflows=options.waiting, waiting_workflows_of_peer=of_peer)
    systems = [OPERON, *(PEERS[name]() for name in options.peers), FLOOR, FLOOR_BATCHED]
    async with server(options.database_url) as on:
        facts = await machine(on)
        run = Run(on, plan, systems, options.rounds)
        await run.loads()
        await run.messages()
        await run.waiting()
        await run.recovery()
        await run.http()
    parts = [report.facts_line(facts)]
    parts += [report.table(run.figures)] if run.figures else []
    parts += [report.messages_table(run.passages)] if run.passages else []
    parts += [report.waiting_table(run.crowds)] if run.crowds else []
    parts += [report.recovery_table(run.recoveries)] if run.recoveries else []
    parts += [report.requests_table(run.requests)] if run.requests else []
    results = "\n\n".join(parts)
    print(results)
    for failure in run.failures:
        print(f"FAILED {failure}")
    if options.json:
        options.json.write_text(json.dumps(as_json(facts, run), indent=1))
    if options.write:
        report.write_results(README, results)
    return 1 if run.failures else 0


def as_json(facts: dict[str, str], run: Run) -> dict[str, Any]:
    return {
        "machine": facts,
        "cells": [dataclasses.asdict(figures) for figures in run.figures],
        "messages": [dataclasses.asdict(passage) for passage in run.passages],
        "waiting": [dataclasses.asdict(crowd) for crowd in run.crowds],
        "recovery": [dataclasses.asdict(recovery) for recovery in run.recoveries],
        "requests": [dataclasses.asdict(requests) for requests in run.requests],
        "failures": run.failures,
    }


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a minute: 1 s per cell, 1 and 32 at once, no peer")
    parser.add_argument("--only", type=names(WORKLOADS), default=WORKLOADS, help="such as W1,W2")
    parser.add_argument("--seconds", type=float, help="per cell; 3 by default, 1 with --quick")
    parser.add_argument(
        "--rounds", type=int, default=1, help="run each cell so often and keep the median; 1 by default"
    )
    parser.add_argument("--waiting", type=int, help="W5's workflows; 10,000 by default, for 1,000,000 allow an hour")
    parser.add_argument("--peers", type=names(tuple(PEERS)), help="dbos or none; dbos by default, none with --quick")
    parser.add_argument("--json", type=Path, help="a file for the figures")
    parser.add_argument("--write", action="store_true", help="put the tables into bench/README.md")
    parser.add_argument(
        "--database-url", help="a server to use in place of a private one; needs the right to create databases"
    )
    options = parser.parse_args()
    if options.peers is None:
        options.peers = () if options.quick else ("dbos",)
    return options


def names(known: tuple[str, ...]) -> Any:
    """A parser of comma-separated names; `none` for no name at all."""

    def parse(text: str) -> tuple[str, ...]:
        chosen = () if text == "none" else tuple(text.split(","))
        if unknown := set(chosen) - set(known):
            raise argparse.ArgumentTypeError(f"there is no {', '.join(unknown)}; there are {', '.join(known)}")
        return chosen

    return parse


if __name__ == "__main__":
    sys.exit(asyncio.run(main(arguments())))
