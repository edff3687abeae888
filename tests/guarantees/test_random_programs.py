"""Promise: whatever workflows do, in whatever order, and wherever they park or die, what they have seen is possible.

Programs written by chance, for workflows that send to, wait for and start one another. Nobody foresees all that meets;
of each that is lost, done twice or seen out of order, one of the facts below would not hold.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Any
from uuid import UUID

import pytest

from operon.errors import ExecutorFull
from operon.handles import WorkflowHandle
from operon.testing import TestRuntime
from tests.guarantees.executors import programs
from tests.guarantees.executors.process import ExecutorProcess, executor
from tests.guarantees.executors.programs import Author, Step

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]

LIVES: dict[str, dict[str, Any]] = {
    "parked at once": {"park_after_seconds": 0},
    "parked soon": {"park_after_seconds": 0.03},
    "in memory": {},
    "few in memory": {"max_live": 3, "park_after_seconds": 0.01},
}
SEEDS = range(6)
CRASHES = 3
KILLS = 4
HASTY = {"lease_seconds": 3, "heartbeat_seconds": 0.5, "poll_seconds": 0.2}


@pytest.mark.parametrize("life", LIVES.values(), ids=LIVES)
async def test_what_workflows_have_seen_is_possible(life: dict[str, Any]) -> None:
    async with TestRuntime(programs, poll_seconds=0.2, **life) as runtime:
        await runtime.execute("create table written (workflow uuid, number integer)")
        for seed in SEEDS:
            await one(runtime, Author(seed))


@pytest.mark.parametrize("life", LIVES.values(), ids=LIVES)
async def test_what_workflows_have_seen_is_possible_also_when_they_crash(life: dict[str, Any]) -> None:
    async with TestRuntime(programs, poll_seconds=0.2, **life) as runtime:
        await runtime.execute("create table written (workflow uuid, number integer)")
        for seed in SEEDS:
            await one(runtime, Author(1000 + seed), crashes=CRASHES)


@pytest.mark.parametrize("life", LIVES.values(), ids=LIVES)
async def test_what_workflows_have_seen_is_possible_also_when_they_are_cancelled_and_resumed(
    life: dict[str, Any],
) -> None:
    async with TestRuntime(programs, poll_seconds=0.2, **life) as runtime:
        await runtime.execute("create table written (workflow uuid, number integer)")
        for seed in SEEDS:
            await one(runtime, Author(2000 + seed), cancels=5)


@pytest.mark.parametrize("life", LIVES.values(), ids=LIVES)
async def test_what_workflows_have_seen_is_possible_also_when_their_processes_are_killed(life: dict[str, Any]) -> None:
    async with TestRuntime(programs, poll_seconds=0.2) as runtime, AsyncExitStack() as executors:
        await runtime.execute("create table written (workflow uuid, number integer)")

        async def another() -> ExecutorProcess:
            return await executors.enter_async_context(executor(runtime.database_url, 0, "programs", **HASTY, **life))

        running = [await another(), await another()]
        for seed in SEEDS[:KILLS]:
            author = Author(3000 + seed, workflows=12)
            handles = [await begun(runtime, uuid, program) for uuid, program in author.programs().items()]
            await asyncio.sleep(random.uniform(0, 0.5))
            running.pop(0).kill()
            running.append(await another())
            await seen_by(runtime, author, handles)


async def begun(runtime: TestRuntime, uuid: UUID, program: list[Step]) -> WorkflowHandle[Any]:
    """Wherever there is room for it."""
    inputs = json.dumps({"program": program})
    await runtime.fetchval("select operon.start('run', $1, $2)", inputs, uuid)
    return runtime.context.retrieve_workflow(uuid)


async def one(runtime: TestRuntime, author: Author, crashes: int = 0, cancels: int = 0) -> None:
    """Runs the programs of an author side by side; a few crashes may come over them, and somebody who cancels them."""
    handles = [await started(runtime, uuid, program) for uuid, program in author.programs().items()]

    for _ in range(crashes):
        await asyncio.sleep(random.uniform(0, 0.3))
        await runtime.crash()
    for handle in random.choices(handles, k=cancels):
        await asyncio.sleep(random.uniform(0, 0.1))
        await handle.cancel()
        await asyncio.sleep(random.uniform(0, 0.05))
        await handle.resume()
    await seen_by(runtime, author, handles)


async def seen_by(runtime: TestRuntime, author: Author, handles: list[WorkflowHandle[Any]]) -> None:
    """Waits for the end of the programs, and looks at what they have seen."""
    results = await asyncio.gather(*(handle.get_result(timeout=120) for handle in handles))
    await possible(runtime, dict(zip(author.uuids, results, strict=True)))


async def started(runtime: TestRuntime, uuid: UUID, program: list[Step]) -> WorkflowHandle[Any]:
    """As soon as there is room for it."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await programs.run(runtime.context.using(workflow_uuid=uuid), program)
            except ExecutorFull:
                await asyncio.sleep(0.01)


async def possible(runtime: TestRuntime, results: dict[UUID, list[list[Any]]]) -> None:
    """Whether these answers, and what is in the database, go together."""
    answers = {uuid: list(flat(result)) for uuid, result in results.items()}
    everything = [step for steps in answers.values() for step in steps]

    sent = Counter((to, topic, number) for _, (to, topic, number), told in of(everything, "send") if told == "sent")
    received: Counter[tuple[str, str | None, int]] = Counter()
    for uuid, steps in answers.items():
        received.update((str(uuid), topic, message[1]) for topic, message in receipts(steps))
    left = await runtime.fetch(LEFT, list(results))
    received.update((str(row["destination"]), row["topic"], row["number"]) for row in left)
    assert received == sent

    for uuid, result in results.items():
        in_order: dict[tuple[str, str | None], list[int]] = defaultdict(list)
        for topic, (sender, number) in receipts(result):
            in_order[sender, topic].append(number)
        written = [arguments[2] for steps in results.values() for name, arguments, _ in steps if name == "send"]
        for numbers in in_order.values():
            known = [number for number in numbers if number in written]
            assert known == sorted(known), (uuid, in_order)

    rows = await runtime.fetch("select number from written")
    await runtime.execute("truncate written")
    done = [arguments[0] for name, arguments, _ in everything if name in ("write", "execute")]
    assert sorted(row["number"] for row in rows) == sorted(done)

    published = {(key, value) for _, (key, value, _), told in of(everything, "set_event") if told == "set"}
    for _, (_, key, _), value in of(everything, "get_event"):
        assert value in (None, "unknown") or (key, value) in published


# Messages that nobody received before their workflow ended.
LEFT = """
    select destination, topic, (convert_from(body, 'UTF8')::json ->> 1)::int as number
    from operon.notifications where destination = any ($1)
    union all
    select destination, topic, (convert_from(body, 'UTF8')::json ->> 1)::int
    from operon.dead_letters where destination = any ($1) and reason <> 'finished'
"""


def flat(result: list[list[Any]]) -> Iterator[list[Any]]:
    """The steps of a workflow and of everything in it."""
    for step in result:
        name, _, answer = step
        yield step
        if name == "child":
            yield from flat(answer)
        elif name == "gather":
            for branch in answer:
                yield from flat(branch)


def of(steps: list[list[Any]], name: str) -> Iterator[list[Any]]:
    return (step for step in steps if step[0] == name)


def receipts(steps: list[list[Any]]) -> Iterator[tuple[str | None, list[Any]]]:
    """Topic and message of each receipt that got one."""
    for name, arguments, answer in steps:
        if answer is not None and name == "recv":
            yield arguments[0], answer
        elif answer is not None and name == "recv_any":
            yield answer[0], answer[1]
