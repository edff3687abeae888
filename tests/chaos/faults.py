"""Makes the planned faults happen, and counts those that bit: a kill of somebody idle, or a sleep that nobody noticed,
proves nothing."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress

from tests.chaos.desk import Desk
from tests.chaos.fleet import Fleet, Slot
from tests.chaos.plan import Fault
from tests.chaos.server import Server

VICTIM_SECONDS = 10.0  # that a fault waits for somebody whom nothing else is being done to
DECLARED_LEASES = 8  # that a stopped executor may take to be declared dead before it is woken all the same

SESSION = """
select pid from pg_stat_activity where application_name = 'operon' and datname = current_database()
order by md5(pid::text || $1) limit 1
"""
CANCEL = """
select count(*) filter (where pg_cancel_backend(pid)) from pg_stat_activity
where application_name = 'operon' and datname = current_database() and state = 'active'
"""
CANCEL_SECONDS = 2.0  # that it takes at most to find somebody in the middle of a statement
TABLES = ("workflows", "checkpoints", "notifications", "waits", "executors", "batches")
DECLARED_DEAD = "select state = 2 from operon.executors where pid = $1 order by incarnation desc limit 1"


class Faults:
    """Does one after another, each in its own time, to whoever is there."""

    def __init__(self, fleet: Fleet, server: Server, desk: Desk) -> None:
        self._fleet = fleet
        self._server = server
        self._desk = desk
        self._tasks: set[asyncio.Task[None]] = set()
        self._crashing = asyncio.Lock()
        self.bitten: Counter[str] = Counter()

    async def happen(self, plan: Sequence[Fault]) -> None:
        """The whole plan; returns when the last fault is over."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        for fault in plan:
            await asyncio.sleep(max(0.0, began + fault.at - loop.time()))
            self._tasks.add(task := asyncio.create_task(self._one(fault)))
            task.add_done_callback(self._ended)
        while self._tasks:
            await asyncio.wait(set(self._tasks))
        for slot in self._fleet.slots:
            slot.proxy.heal()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fleet.violations.append(f"a fault could not happen: {error!r}")

    async def _one(self, fault: Fault) -> None:
        match fault.what:
            case "terminate":
                pid = await self._server.ask(SESSION, str(fault.size))
                terminated = await self._server.ask("select pg_terminate_backend($1)", pid)
                self.bitten[fault.what] += bool(terminated)
            case "cancel":
                self.bitten[fault.what] += await self._cancel()
            case "lock":
                table = TABLES[int(fault.size * 1000) % len(TABLES)]
                self.bitten[fault.what] += await self._server.lock(table, fault.size * 0.75 * self._fleet.lease_seconds)
            case "kill session":
                async with self._crashing:
                    killed = await self._kill_session(fault)
                self.bitten[fault.what] += killed
            case "crash server":
                async with self._crashing:
                    await self._server.crash()
                self.bitten[fault.what] += 1
            case "cut":
                async with self._victim(fault, behind_proxy=True) as slot:
                    if slot is not None:
                        before = sum(slot.proxy.counts.values())
                        slot.proxy.cut(1 + round(2 * fault.size))
                        await asyncio.sleep(1.0)
                        self.bitten[fault.what] += sum(slot.proxy.counts.values()) > before
            case "silence" | "deaf":
                async with self._victim(fault, behind_proxy=True) as slot:
                    if slot is not None:
                        await self._cut_off(fault, slot)
            case what:
                async with self._victim(fault) as slot:
                    if slot is not None:
                        await self._signal(what, slot, fault.size)

    async def _cancel(self) -> bool:
        """Cancels every statement that runs in one moment; False if none ran in any."""
        with suppress(TimeoutError):
            async with asyncio.timeout(CANCEL_SECONDS):
                while not await self._server.ask(CANCEL):  # noqa: ASYNC110 - rows ring no bell
                    await asyncio.sleep(0.01)
                return True
        return False

    async def _kill_session(self, fault: Fault) -> bool:
        """SIGKILL of a server process: Postgres ends all others with it and recovers, and its postmaster lives on."""
        pid = await self._server.ask(SESSION, str(fault.size))
        if pid is None:
            return False
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            return True
        return False

    @asynccontextmanager
    async def _victim(self, fault: Fault, *, behind_proxy: bool = False) -> AsyncGenerator[Slot | None]:
        """The slot that is meant, or the next one where somebody lives and nothing else is going on; waits for one."""
        slots = self._fleet.slots[fault.slot :] + self._fleet.slots[: fault.slot]
        slot = None
        with suppress(TimeoutError):
            async with asyncio.timeout(VICTIM_SECONDS):
                while slot is None:
                    free = [one for one in slots if one.pid and not one.busy and (one.number or not behind_proxy)]
                    slot = next(iter(free), None)
                    if slot is None:
                        await asyncio.sleep(0.05)
        if slot is None:
            yield None
            return
        slot.busy = True
        try:
            yield slot
        finally:
            slot.busy = False

    async def _cut_off(self, fault: Fault, slot: Slot) -> None:
        if fault.what == "deaf":
            slot.proxy.deaf = True
            await asyncio.sleep(1 + 4 * fault.size)
            slot.proxy.deaf = False
        else:
            pid = slot.pid
            await slot.proxy.silence(self._fleet.lease_seconds * (0.5 + 2 * fault.size), late=fault.size > 0.4)
            if await self._server.ask(DECLARED_DEAD, pid):
                self.bitten["declared dead while cut off"] += 1
        self.bitten[fault.what] += 1

    async def _signal(self, what: str, slot: Slot, size: float) -> None:
        working = self._desk.open[slot.number] > 0
        match what:
            case "kill":
                self.bitten[what] += slot.signal(signal.SIGKILL) and working
            case "drain":
                self.bitten[what] += slot.signal(signal.SIGTERM) and working
                await asyncio.sleep(2.0)
            case "block":
                self.bitten[what] += slot.signal(signal.SIGUSR2) and working
                await asyncio.sleep(2 * self._fleet.lease_seconds)
            case "stop":
                noticed = await self._stop(slot, size)
                self.bitten[what] += noticed and working
            case _:
                raise AssertionError(what)

    async def _stop(self, slot: Slot, size: float) -> bool:
        """Whether it was declared dead while it slept, and lived on."""
        pid = slot.pid
        if not slot.signal(signal.SIGSTOP):
            return False
        dead = False
        try:
            async with asyncio.timeout(DECLARED_LEASES * self._fleet.lease_seconds):
                while not dead:
                    await asyncio.sleep(0.1)
                    dead = bool(await self._server.ask(DECLARED_DEAD, pid))
                await asyncio.sleep(size * self._fleet.lease_seconds / 2)  # for the others to get on with its work
        except TimeoutError:
            pass
        finally:
            slot.signal(signal.SIGCONT)
        await asyncio.sleep(0.5)
        return dead and slot.pid == pid
