"""`python -m bench.neighbours`: what a healthy workflow feels of a bad one beside it. Run on demand; three minutes.

Two executors share a database, each with 500 clients, who start a healthy workflow of one step, await it, and pause. So
a thousand are on their way, in turns, and the machine is not at its limit. Then one of these moves in with the first:

    poison workflow   30 workflows that crash as soon as they run; their name is suspended after 20
    poison message    20 workflows that crash at a message, which is set aside after three deliveries
    memory hog        5 workflows that allocate until there is no memory; the process has 256 MB left (RLIMIT_AS)
    CPU loop          a workflow that computes for ever; it blocks the loop of its process until it is interrupted

The latencies of the healthy, from start to result, are told for the executor that has the bad neighbour and for the
other one, each beside those of the same two processes just before.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import resource
import sys
import time
from pathlib import Path
from typing import Any

import operon
from bench import cells, harness, report
from bench.letters import figures
from bench.postgres import Server, server
from operon.contexts import InvokingContext
from operon.runtime.loop import settle_garbage

CLIENTS = 500  # of each executor
PAUSE_SECONDS = 2.0  # of a client between two workflows, on average
HEADROOM_BYTES = 256 * 1024 * 1024
BLOCK_BYTES = 8 * 1024 * 1024
TROUBLES = ("poison workflow", "poison message", "memory hog", "CPU loop")

WORDS = operon.Topic("words", str, on_poison="skip")


@operon.communicator
async def greet(ctx: operon.CommunicatorContext, name: str) -> str:
    return f"Hello, {name}"


@operon.workflow
async def healthy(ctx: operon.WorkflowContext, name: str) -> str:
    return await greet(ctx, name)


@operon.workflow
async def crashes(ctx: operon.WorkflowContext) -> None:
    raise MemoryError("as if there were none left")


@operon.workflow
async def reads(ctx: operon.WorkflowContext) -> str | None:
    message = await ctx.recv(WORDS)
    if message == "poison":
        raise MemoryError("as if there were none left")
    return message


@operon.workflow
async def hogs(ctx: operon.WorkflowContext) -> None:
    blocks: list[bytearray] = []
    while True:
        blocks.append(bytearray(BLOCK_BYTES))


@operon.workflow
async def computes(ctx: operon.WorkflowContext) -> None:
    while True:
        pass


async def move_in(ctx: InvokingContext, trouble: str) -> None:
    """Starts the bad neighbours, and does not wait for their end."""
    match trouble:
        case "poison workflow":
            for _ in range(30):
                await crashes(ctx)
        case "poison message":
            for _ in range(20):
                handle = await reads(ctx)
                for word in ("poison", "good"):
                    await ctx.send(handle.workflow_uuid, word, WORDS)
        case "memory hog":
            limit_memory(HEADROOM_BYTES)
            for _ in range(5):
                await hogs(ctx)
        case "CPU loop":
            await computes(ctx)
        case _:
            pass


def limit_memory(left_bytes: int) -> None:
    """Leaves this process so much address space more than it has. Linux only."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + left_bytes, resource.RLIM_INFINITY))


async def live(ctx: InvokingContext, seconds: float) -> dict[str, Any]:
    """The clients' latencies, of those workflows that were due within these seconds.

    From when they were due: a loop that stands still keeps its clients from starting, and that is what they feel too.
    """
    latencies: list[float] = []
    failed: list[float] = []
    clock = time.perf_counter
    deadline = clock() + seconds

    async def client() -> None:
        due = clock() + random.uniform(0, 2 * PAUSE_SECONDS)
        while due < deadline:
            await asyncio.sleep(due - clock())
            try:
                await (await healthy(ctx, "neighbour")).get_result()
            except MemoryError:  # a hog leaves none to its own process, the client's code among the rest
                failed.append(clock() - due)
            else:
                latencies.append(clock() - due)
            due = clock() + random.uniform(0, 2 * PAUSE_SECONDS)

    async with asyncio.TaskGroup() as clients:
        for _ in range(CLIENTS):
            clients.create_task(client())
    return {**figures(latencies), "max_ms": max(latencies) * 1000, "workflows": len(latencies), "failed": len(failed)}


async def executor(seconds: float, trouble: str) -> None:
    """One of the two: alone first, then with its neighbours."""
    async with operon.Operon(__name__, database_url=os.environ[harness.DATABASE_URL]) as app:
        settle_garbage()
        ctx = app.context()
        await live(ctx, 2 * PAUSE_SECONDS)
        await harness.parent_says_go({"bench": "warm"})
        await harness.parent_says_go({"bench": "alone", **await live(ctx, seconds)})
        moving = asyncio.create_task(move_in(ctx, trouble))
        await harness.parent_says_go({"bench": "beside", **await live(ctx, seconds)})
        await moving


async def measure(on: Server, seconds: float, trouble: str) -> list[tuple[str, ...]]:
    """The two executors with one trouble; a row for each."""
    system = cells.System("neighbours", {})
    url = await on.create_database("neighbours")
    arguments = ("--seconds", str(seconds), "--executor")
    async with (
        cells.process(system, "bench.neighbours", url, *arguments, trouble) as beside,
        cells.process(system, "bench.neighbours", url, *arguments, "none") as other,
    ):
        both = (beside, other)
        found: dict[str, list[dict[str, Any]]] = {}
        for kind in ("warm", "alone", "beside"):
            async with asyncio.timeout(120 + 10 * seconds):
                found[kind] = [await each.hears(kind) for each in both]
            if kind != "beside":
                for each in both:
                    each.says_go()
    return [
        row(trouble if place == "same" else "", place, alone, with_it)
        for place, alone, with_it in zip(("same", "other"), found["alone"], found["beside"], strict=True)
    ]


def row(trouble: str, place: str, alone: dict[str, Any], beside: dict[str, Any]) -> tuple[str, ...]:
    times = f"{beside['p99_ms'] / alone['p99_ms']:.1f}x"
    before = [report.number(alone[name]) for name in ("p50_ms", "p99_ms")]
    after = [report.number(beside[name]) for name in ("p50_ms", "p99_ms", "max_ms")]
    return (trouble, place, *before, *after, times, report.number(beside["workflows"]), str(beside["failed"]))


HEADERS = (
    "neighbour",
    "executor",
    "alone p50 ms",
    "p99 ms",
    "beside p50 ms",
    "p99 ms",
    "max ms",
    "p99",
    "workflows",
    "failed",
)


async def main(options: argparse.Namespace) -> None:
    if options.executor:
        await executor(options.seconds, options.executor)
        return
    print("| " + " | ".join(HEADERS) + " |\n|" + "|".join(":--" if n < 2 else "--:" for n in range(len(HEADERS))) + "|")
    async with server(options.database_url) as on:
        for trouble in options.only or TROUBLES:
            print(f"{trouble}: load {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)
            for line in await measure(on, options.seconds, trouble):
                print("| " + " | ".join(line) + " |", flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.neighbours", description="Healthy workflows beside bad ones."
    )
    parser.add_argument("--seconds", type=float, default=15.0, help="of each phase")
    parser.add_argument("--only", action="append", choices=TROUBLES, help="may be given more than once")
    parser.add_argument("--database-url", help="a server to make a database on; a private one by default")
    parser.add_argument("--executor", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    harness.run(main(arguments()))
