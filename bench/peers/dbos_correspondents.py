"""DBOS's part of W4 and W7: the same workflows and roles as in `bench.correspondents`; it has nothing to park."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

from dbos import DBOS

from bench import harness, letters
from bench.letters import FOREVER_SECONDS, FinishLine, Part
from bench.peers.dbos_bench import config

EVENTS_APART_SECONDS = 0.1  # so that whoever waits for the event has looked, and waits

gates: dict[int, asyncio.Event] = {}


@DBOS.workflow()
async def pong(rounds: int) -> None:
    for _ in range(rounds):
        sender = await DBOS.recv_async("ping", timeout_seconds=FOREVER_SECONDS)
        await DBOS.send_async(sender, "pong", "pong")


@DBOS.workflow()
async def ping(partner: str, rounds: int) -> None:
    for _ in range(rounds):
        await DBOS.send_async(partner, DBOS.workflow_id, "ping")
        await DBOS.recv_async("pong", timeout_seconds=FOREVER_SECONDS)


@DBOS.workflow()
async def addressee() -> str:
    message: str = await DBOS.recv_async(letters.TOPIC, timeout_seconds=FOREVER_SECONDS)
    return message


@DBOS.step()
async def pass_gate(number: int) -> None:
    await gates.setdefault(number, asyncio.Event()).wait()


@DBOS.workflow()
async def publisher(events: int) -> None:
    for number in range(events):
        await pass_gate(number)
        await DBOS.set_event_async(str(number), time.perf_counter())


async def exchange(messages: int) -> float:
    rounds = max(1, messages // 2)
    begun = time.perf_counter()
    answering = await DBOS.start_workflow_async(pong, rounds)
    asking = await DBOS.start_workflow_async(ping, answering.workflow_id, rounds)
    await asking.get_result()
    await answering.get_result()
    return time.perf_counter() - begun


async def receive(part: Part) -> None:
    line = FinishLine()
    handles = [await DBOS.start_workflow_async(addressee) for _ in range(part.warm_up + part.count)]

    async def finish(handle: Any) -> None:
        await handle.get_result()
        line.finished(handle.workflow_id)

    async with line.open(handle.workflow_id for handle in handles) as port:
        finishing = [asyncio.create_task(finish(handle)) for handle in handles]
        await harness.parent_says_go({"bench": "waiting", "port": port})
        await asyncio.gather(*finishing)


async def publish(events: int) -> list[float]:
    gates.clear()
    handle = await DBOS.start_workflow_async(publisher, events)
    latencies: list[float] = []
    for number in range(events):
        waiting = asyncio.create_task(DBOS.get_event_async(handle.workflow_id, str(number), FOREVER_SECONDS))
        await asyncio.sleep(EVENTS_APART_SECONDS)
        gates.setdefault(number, asyncio.Event()).set()
        set_at = await waiting
        latencies.append(time.perf_counter() - set_at)
    await handle.get_result()
    return latencies


async def main(part: Part) -> None:
    # Two executors share these tables: each has a name of its own, or it would run the other one's workflows.
    DBOS(config={**config(part.database_url), "executor_id": part.role})
    DBOS.launch()
    match part.role:
        case "exchange":
            await exchange(part.warm_up)
            seconds = await exchange(part.count)
            await harness.parent_says_go({"bench": "done", "p50_ms": seconds / part.count * 1000, "p99_ms": None})
        case "send":
            latencies = await letters.send_and_wait(
                part, lambda workflow: DBOS.send_async(workflow, letters.MESSAGE, letters.TOPIC)
            )
            await harness.parent_says_go({"bench": "done", **letters.figures(latencies)})
        case "publish":
            await publish(part.warm_up)
            latencies = await publish(part.count)
            await harness.parent_says_go({"bench": "done", **letters.figures(latencies)})
        case _:
            await receive(part)
    os._exit(0)


if __name__ == "__main__":
    harness.run(main(letters.part_from_arguments()))
