"""The executors: some slots, in each of which one life follows another, as under any supervisor of processes."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import signal
from collections import Counter
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import msgspec

from tests.chaos.life import NO_DATABASE, live
from tests.chaos.proxy import Proxy
from tests.chaos.server import Server

forks = multiprocessing.get_context("forkserver")
forks.set_forkserver_preload(["tests.chaos.life"])

RESTART_SECONDS = 0.1
ENDED_SECONDS = 60.0
# Drained; without a database to begin with; killed; and told to go, or to block, before it had its first turn.
EXPECTED = (0, NO_DATABASE, -signal.SIGKILL, -signal.SIGTERM, -signal.SIGUSR2)


class Slot:
    """One executor after another, each behind the same proxy."""

    def __init__(self, number: int, server: Server, proxy: Proxy, fleet: Fleet) -> None:
        self.number = number
        self.proxy = proxy
        self.busy = False  # something is being done to it
        self._server = server
        self._fleet = fleet
        self.process: ForkServerProcess | None = None

    @property
    def pid(self) -> int:
        """Of the life that is lived here; 0 between two."""
        return self.process.pid or 0 if self.process is not None and self.process.is_alive() else 0

    def signal(self, number: signal.Signals) -> bool:
        """Sends a signal; False if there is nobody."""
        if not (pid := self.pid):
            return False
        try:
            os.kill(pid, number)
        except ProcessLookupError:  # its parent, the fork server, has seen its end a moment before us
            return False
        return True

    async def run(self) -> None:
        """Lives until the fleet is stopped."""
        while not self._fleet.stopping:
            await self._live()
            await asyncio.sleep(RESTART_SECONDS)

    async def _live(self) -> None:
        process = forks.Process(target=live, args=(self._environment(),), daemon=True)
        process.start()
        self.process = process
        self._fleet.lives += 1
        gone = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(process.sentinel, gone.set)
        try:
            await gone.wait()
        finally:
            loop.remove_reader(process.sentinel)
        process.join()
        self._fleet.exits[process.exitcode or 0] += 1
        if process.exitcode not in EXPECTED:
            self._fleet.violations.append(f"the executor {process.pid} ended by itself with {process.exitcode}")

    def _environment(self) -> dict[str, str]:
        fleet = self._fleet
        settings = {
            # One of them goes the direct way, with the timing of a real one.
            "database_url": self._server.url(self.proxy.folder if self.number else None),
            "lease_seconds": fleet.lease_seconds,
            "heartbeat_seconds": fleet.lease_seconds / 5,
            "poll_seconds": fleet.lease_seconds / 10,
            "pool_size": fleet.rng.choice((1, 2, 6)),
            "max_live": fleet.rng.choice((12, 20_000)),
            "park_after_seconds": fleet.rng.choice((0.0, 0.2, 5.0)),
            "notify": "off" if fleet.rng.random() < 0.1 else "on",
            "shutdown_seconds": 5.0,
        }
        return {
            **fleet.environment,
            "SLOT": str(self.number),
            "SETTINGS": msgspec.json.encode(settings).decode(),
            "LOG": str(fleet.logs / f"{self.number}.log"),
            "BLOCK_SECONDS": str(fleet.lease_seconds * fleet.rng.uniform(0.5, 2.0)),
        }

    def __repr__(self) -> str:
        return f"<Slot {self.number}: {self.pid or 'nobody'}>"


class Fleet:
    """All slots."""

    def __init__(self, folder: Path, lease_seconds: float, rng: random.Random, environment: dict[str, str]) -> None:
        self.logs = folder
        self.lease_seconds = lease_seconds
        self.rng = rng
        self.environment = environment
        self.stopping = False
        self.lives = 0
        self.exits: Counter[int] = Counter()
        self.violations: list[str] = []
        self.slots: list[Slot] = []

    async def stop(self) -> None:
        """Drains every executor, and sees each of them end."""
        self.stopping = True
        living = [slot for slot in self.slots if slot.signal(signal.SIGTERM)]
        try:
            async with asyncio.timeout(ENDED_SECONDS):
                while any(slot.pid for slot in living):  # noqa: ASYNC110 - each slot waits for its own
                    await asyncio.sleep(0.05)
        except TimeoutError:
            self.violations += [f"{slot} does not end" for slot in living if slot.pid]

    def kill(self) -> None:
        """At once, whatever state they are in."""
        self.stopping = True
        for slot in self.slots:
            slot.signal(signal.SIGKILL)
