"""What an actor costs: spawning, memory, telling, asking. A plain script of some ten seconds.

    python -m bench.actors

The best of five rounds each, because what is measured is the code and not the neighbours on the machine.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from actors import Actor, ChildSpec, DynamicSupervisor, Reply, Supervisor
from bench.harness import resident_bytes

ROUNDS = 5
IDLE_CHILDREN = 100_000


@dataclass(frozen=True, slots=True)
class Get:
    reply: Reply[int]


class Count(Actor[int | Get]):
    total = 0

    async def receive(self, message: int | Get) -> None:
        if isinstance(message, Get):
            message.reply(self.total)
        else:
            self.total += message


async def nothing() -> None: ...


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


async def spawn_seconds() -> float:
    """Spawn, run and end one empty child, a hundred living at a time."""
    async with DynamicSupervisor("bench") as supervisor:
        begin = perf_counter()
        for _ in range(200):
            children = [supervisor.spawn(str(number), nothing) for number in range(100)]
            await children[-1].wait()
        return (perf_counter() - begin) / 20_000


async def tell_seconds() -> float:
    """Tell a number, until it is added up."""
    async with Supervisor("bench") as supervisor:
        count = await supervisor.start(ChildSpec("count", Count))
        begin = perf_counter()
        for _ in range(20_000):
            await count.tell(1)
        if await count.ask(Get) != 20_000:
            raise RuntimeError("messages were lost")
        return (perf_counter() - begin) / 20_000


async def ask_seconds() -> float:
    """Ask, and wait for the answer, one at a time."""
    async with Supervisor("bench") as supervisor:
        count = await supervisor.start(ChildSpec("count", Count))
        begin = perf_counter()
        for _ in range(5_000):
            await count.ask(Get)
        return (perf_counter() - begin) / 5_000


async def idle_bytes() -> tuple[float, float, float]:
    """Return the bytes of an idle child, and the seconds to spawn and to stop them all."""
    gc.collect()
    before = resident_bytes()
    async with DynamicSupervisor("bench", children_max=IDLE_CHILDREN, stop_timeout=60) as supervisor:
        begin = perf_counter()
        for number in range(IDLE_CHILDREN):
            supervisor.spawn(str(number), forever)
        await asyncio.sleep(0)
        spawned = perf_counter() - begin
        each = (resident_bytes() - before) / IDLE_CHILDREN
        begin = perf_counter()
        await supervisor.stop_all()
        return each, spawned, perf_counter() - begin


def report(loop: str, run: Callable[[Coroutine[Any, Any, Any]], Any]) -> None:
    print(f"{loop}, Python {sys.version.split()[0]}")
    # Memory first: later there would be freed pages to use again.
    each, spawned, stopped = run(idle_bytes())
    took = f"{IDLE_CHILDREN:,} spawned in {spawned:.2f} s, stopped in {stopped:.2f} s"
    print(f"  idle child            {each:8.0f} bytes  ({took})")
    spawn = min(run(spawn_seconds()) for _ in range(ROUNDS))
    print(f"  spawn + run + exit    {spawn * 1e6:8.2f} us     ({1 / spawn:,.0f} per second)")
    tell = min(run(tell_seconds()) for _ in range(ROUNDS))
    print(f"  tell, until handled   {tell * 1e6:8.2f} us     ({1 / tell:,.0f} per second)")
    ask = min(run(ask_seconds()) for _ in range(ROUNDS))
    print(f"  ask, until answered   {ask * 1e6:8.2f} us     ({1 / ask:,.0f} per second)")


def main() -> None:
    report("asyncio", asyncio.run)
    try:
        import uvloop
    except ImportError:
        print("uvloop is not installed")
    else:
        report("uvloop", uvloop.run)


if __name__ == "__main__":
    main()
