"""Promise: `operon start --workers N` is one port and N executors, of which any may go at any time."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from typing import Any

import psutil
import pytest

from operon.database import testbed
from tests.guarantees.executors.process import ExecutorProcess, announced, private_database, until
from tests.guarantees.executors.witness import witness

# So that nothing is found by a poll, or taken over because a lease ran out.
PATIENT = {"lease_seconds": 7_200, "heartbeat_seconds": 1_800}
TWO_ALIVE = """
    select case when count(*) = 2 then array_agg(pid) end from operon.executors where state <> 2 and pid <> all ($1)
"""
OWNED = "select count(*) from operon.workflows where owner is not null and status = 0"


@asynccontextmanager
async def started(
    url: str, witness_port: int = 0, workers: int = 2, **settings: Any
) -> AsyncGenerator[ExecutorProcess]:
    """The parent of running workers."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("OPERON_")},
        **{f"OPERON_{name.upper()}": str(value) for name, value in settings.items()},
        "WITNESS_PORT": str(witness_port),
        "PYTHONUNBUFFERED": "1",
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "operon.cli", "start", "tests.workers.served:app", "--workers", str(workers),
        "--port", "0", "--database-url", url, "--log-level", "warning",
        stdout=asyncio.subprocess.PIPE, env=environment,
    )  # fmt: skip
    children: list[psutil.Process] = []
    try:
        parent = ExecutorProcess(process, await asyncio.wait_for(announced(process), 60))
        children = psutil.Process(parent.pid).children()
        yield parent
    finally:
        with suppress(psutil.NoSuchProcess):
            children += psutil.Process(process.pid).children()
        if process.returncode is None:
            process.kill()
        await process.wait()
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.kill()


def pids(parent: ExecutorProcess) -> set[int]:
    """The workers that there are now."""
    return {child.pid for child in psutil.Process(parent.pid).children()}


async def gone(processes: set[int]) -> None:
    """Waits until none of them is there, or only what nobody has waited for."""
    async with asyncio.timeout(60):
        while any(map(is_running, processes)):  # noqa: ASYNC110 - the end of somebody else's child rings no bell
            await asyncio.sleep(0.02)


def is_running(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def ask(url: str, method: str = "GET") -> str:
    """One request on a connection of its own."""
    request = urllib.request.Request(url, method=method, headers={"connection": "close"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return str(answer.read().decode())


async def two_alive(url: str, without: set[int]) -> set[int]:
    """Waits until two others than these are executors; their processes."""
    return set(await until(url, TWO_ALIVE, list(without)))


async def test_workers_are_executors_of_their_own_on_one_port() -> None:
    async with private_database() as url, started(url) as parent:
        workers = await two_alive(url, set())

        answers = {int(await asyncio.to_thread(ask, f"{parent.url}/pid")) for _ in range(20)}

        assert workers == pids(parent)
        assert answers <= workers


async def test_a_worker_that_is_killed_is_replaced_and_its_work_goes_on_in_the_others() -> None:
    async with private_database() as url, witness() as seen, started(url, seen.port, **PATIENT) as parent:
        before = await two_alive(url, set())
        await parent.post("/round_trips/10")
        victim = (await seen.seen(10))[0].pid
        killed_at = time.monotonic()

        os.kill(victim, signal.SIGKILL)
        answer = int(await asyncio.to_thread(ask, f"{parent.url}/pid"))
        calls = await asyncio.wait_for(seen.seen(20), 60)
        seen.release.set()
        await until(url, "select count(*) = 10 from operon.workflows where status = 1")
        after = await two_alive(url, {victim})

        assert answer != victim
        assert victim in before
        assert victim not in {call.pid for call in calls[10:]}  # the one in its place may have taken some of them
        assert calls[10].at - killed_at < 20  # not after a lease; 1 to 2 seconds on a machine that is not busy
        print(f"moved in {calls[19].at - killed_at:.2f} s")
        assert after == pids(parent)


async def test_workers_whose_parent_is_killed_drain_and_go() -> None:
    async with private_database() as url, witness() as seen, started(url, seen.port) as parent:
        workers = await two_alive(url, set())
        await parent.post("/round_trips/10")
        await seen.seen(10)

        parent.kill()
        seen.release.set()
        await gone(workers)

        assert max(seen.times.values()) == 1
        assert await testbed.fetch(url, "select count(*) from operon.executors where state <> 2") == [(0,)]
        assert await testbed.fetch(url, OWNED) == [(0,)]
        assert await testbed.fetch(url, "select max(crash_count) from operon.workflows") == [(0,)]


async def test_a_parent_that_is_told_to_go_lets_its_workers_drain() -> None:
    async with private_database() as url, witness() as seen, started(url, seen.port, **PATIENT) as parent:
        workers = await two_alive(url, set())
        await parent.post("/round_trips/10")
        await seen.seen(10)

        parent.terminate()
        seen.release.set()
        code = await asyncio.wait_for(parent.ended(), 60)

        assert code == 0
        assert not any(map(is_running, workers))
        assert max(seen.times.values()) == 1
        assert await testbed.fetch(url, "select count(*) from operon.executors where state <> 2") == [(0,)]


@pytest.mark.long
async def test_no_client_sees_that_a_worker_is_told_to_go_and_replaced() -> None:
    answered: Counter[str] = Counter()
    async with private_database() as url, witness() as seen, started(url, seen.port, **PATIENT) as parent:
        workers = await two_alive(url, set())
        stop = asyncio.Event()

        async def client() -> None:
            while not stop.is_set():
                try:
                    answered[await asyncio.to_thread(ask, f"{parent.url}/work", "POST")] += 1
                except Exception as error:
                    answered[repr(error)] += 1

        clients = [asyncio.create_task(client()) for _ in range(8)]
        await until(url, "select count(*) >= 50 from operon.workflows")
        await parent.post("/errands/10")
        victim = (await seen.seen(10))[0].pid
        os.kill(victim, signal.SIGTERM)
        seen.release.set()
        await gone({victim})
        after = await two_alive(url, {victim})
        await until(url, "select count(*) >= $1 from operon.workflows", answered["1"] + 50)
        stop.set()
        await asyncio.gather(*clients)

        assert set(answered) == {"1"}
        assert len(after & workers) == 1
        assert await testbed.fetch(url, "select count(*) from operon.workflows where crash_count > 0") == [(0,)]


async def test_work_moves_at_once_when_a_worker_is_told_to_go() -> None:
    async with (
        private_database() as url,
        witness() as seen,
        started(url, seen.port, poll_seconds=3_600, **PATIENT) as parent,
    ):
        await two_alive(url, set())
        seen.release.set()
        await parent.post("/many_calls/500")
        victim = (await seen.seen(20))[0].pid

        os.kill(victim, signal.SIGTERM)
        calls = await asyncio.wait_for(seen.seen(500), 60)

        moved = [(after.at - before.at) for before, after in pairwise(calls) if after.pid != before.pid]
        assert len(moved) == 1
        assert moved[0] < 10  # not by a poll or a lease; milliseconds on a machine that is not busy
        assert len(seen.times) == 500  # no call was made twice
        print(f"moved in {moved[0]:.3f} s")


@pytest.mark.long
async def test_a_worker_that_does_not_end_in_time_is_killed() -> None:
    async with (
        private_database() as url,
        started(url, shutdown_seconds=0.5, lease_seconds=2, heartbeat_seconds=0.5) as parent,
    ):
        workers = await two_alive(url, set())
        asking = asyncio.create_task(asyncio.to_thread(ask, f"{parent.url}/stuck", "POST"))
        await until(
            url, "select count(*) < 2 from operon.executors where state <> 2 and lease_until > clock_timestamp()"
        )

        parent.terminate()
        code = await asyncio.wait_for(parent.ended(), 60)
        await asyncio.gather(asking, return_exceptions=True)

        assert code == 1
        assert not any(map(is_running, workers))


async def test_what_no_worker_can_start_with_is_said_once() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "operon.cli", "start", "tests.workers.served:app", "--workers", "3",
        "--port", "0", "--database-url", "postgresql://nobody@127.0.0.1:9/nowhere",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip

    async with asyncio.timeout(60):
        said, _ = await process.communicate()

    assert process.returncode == 1
    assert said.decode().count("operon: the database at") == 1
    assert b"Traceback" not in said
