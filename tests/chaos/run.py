"""One run: everything is set up, the faults happen, the dust settles, and what is left is looked at.

work and faults    for as long as the run is to take
another round      as long as too few faults have bitten, and there is time: a busy machine does less in the same time
no new orders      the faults are over; everybody is healed
settling           every order is filled, nobody waits, each slot has one living executor
the end            everybody drains; then the checker asks
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from operon.database import testbed
from tests.chaos import checker
from tests.chaos.desk import Desk
from tests.chaos.evidence import evidence, missing
from tests.chaos.faults import Faults
from tests.chaos.fleet import Fleet, Slot
from tests.chaos.plan import plan
from tests.chaos.proxy import Proxy
from tests.chaos.server import Server
from tests.chaos.witness import heard

SETTLE_SECONDS = 120.0
ROUND_SECONDS = 30.0

UNSETTLED = """
select (select count(*) from operon.workflows where status = 0)
    + (select count(*) from operon.waits) + (select count(*) from operon.notifications)
    + abs((select count(*) from operon.executors where state <> 2) - $1)
"""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a run."""

    violations: list[str]
    missing: list[str]
    counts: dict[str, int]
    rounds: int
    settled_seconds: float


async def run(
    folder: Path, seed: int, seconds: float, slots: int, lease_seconds: float, most_seconds: float = 0.0
) -> Verdict:
    """A whole run. `folder` is left with the logs of the executors.

    What has to have bitten is that of a run of `seconds`; one that lacks some goes on until `most_seconds` of faults.
    """
    sockets = {"WITNESS": str(folder / "witness"), "DESK": str(folder / "desk")}
    fleet = Fleet(folder, lease_seconds, random.Random(f"fleet {seed}"), sockets)
    desk = Desk(seed)
    server = Server(folder)
    faults = Faults(fleet, server, desk)
    calls = folder / "calls"
    logs = [folder / f"{number}.log" for number in range(slots)]
    try:
        await server.start()
        await testbed.execute(server.url(), checker.WATCH)
        async with witness(sockets["WITNESS"], calls, seed), living(fleet, server, desk, sockets["DESK"], slots, seed):
            await asyncio.sleep(2 * lease_seconds)  # each of them is there, and believes that the others are
            await faults.happen(plan(seed, seconds, slots))
            rounds = 1
            while seconds + rounds * ROUND_SECONDS <= most_seconds:
                server.harvest()
                if not missing(await evidence(fleet, server, desk, faults, heard(calls), logs), seconds):
                    break
                await faults.happen(plan(seed, ROUND_SECONDS, slots, rounds))
                rounds += 1
            desk.close()
            began = time.monotonic()
            settled = await settle(server, desk, slots)
            settled_seconds = time.monotonic() - began
            await fleet.stop()
        server.harvest()
        violations = [*fleet.violations, *settled]
        violations += [f"a client met {text}: {count}" for text, count in desk.errors.items() if not is_weather(text)]
        violations += await checker.check(server, desk, heard(calls), logs)
        counts = await evidence(fleet, server, desk, faults, heard(calls), logs)
        return Verdict(violations, missing(counts, seconds), counts, rounds, settled_seconds)
    finally:
        await server.stop()


async def settle(server: Server, desk: Desk, slots: int) -> list[str]:
    """Waits until all work is done; what is left of it after a time."""
    try:
        async with asyncio.timeout(SETTLE_SECONDS):
            await desk.done()
            while await server.ask(UNSETTLED, slots):  # noqa: ASYNC110 - rows ring no bell
                await asyncio.sleep(0.1)
    except TimeoutError:
        left = [str(uuid) for uuid in desk.orders if uuid not in desk.answers]
        return [
            f"not settled after {SETTLE_SECONDS:g} s: {desk}, {await server.ask(UNSETTLED, slots)} rows; {left[:5]}"
        ]
    return []


def is_weather(error: str) -> bool:
    """What a client may meet: an executor that shuts down or is full, and a database that does not come back."""
    return error.startswith(("ExecutorStopped", "ExecutorFull", "DatabaseUnavailable"))


@asynccontextmanager
async def living(fleet: Fleet, server: Server, desk: Desk, socket: str, slots: int, seed: int) -> AsyncGenerator[None]:
    """The desk and the executors, each behind a proxy."""
    serving = await asyncio.start_unix_server(desk.serve, socket, backlog=256)
    for number in range(slots):
        proxy = Proxy(fleet.logs / f"proxy-{number}", server.socket, random.Random(f"proxy {seed} {number}"))
        await proxy.open()
        fleet.slots.append(Slot(number, server, proxy, fleet))
    tasks = [asyncio.create_task(slot.run()) for slot in fleet.slots]
    try:
        yield
    finally:
        fleet.kill()
        await desk.end()
        await asyncio.wait(tasks, timeout=10)
        serving.close()


@asynccontextmanager
async def witness(socket: str, file: Path, seed: int) -> AsyncGenerator[None]:
    """The witness' process."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.chaos.witness", socket, str(file), str(seed), env=dict(os.environ)
    )
    try:
        async with asyncio.timeout(30):
            while not os.path.exists(socket):  # noqa: ASYNC110, ASYNC240 - what appears rings no bell
                await asyncio.sleep(0.01)
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
