"""DBOS's part of W5: the crowd of `bench.crowd`, all of it in memory."""

from __future__ import annotations

import os

from dbos import DBOS

from bench import harness, letters
from bench.letters import FOREVER_SECONDS, Part
from bench.peers.dbos_bench import config


@DBOS.workflow()
async def one_of_many() -> str:
    message: str = await DBOS.recv_async(letters.TOPIC, timeout_seconds=FOREVER_SECONDS)
    return message


async def wait_and_wake(count: int, concurrency: int) -> None:
    handles = [await DBOS.start_workflow_async(one_of_many) for _ in range(count)]
    await letters.in_turns(
        count, concurrency, lambda n: DBOS.send_async(handles[n].workflow_id, letters.MESSAGE, letters.TOPIC)
    )
    for handle in handles:
        await handle.get_result()


async def main(part: Part) -> None:
    DBOS(config=config(part.database_url))
    DBOS.launch()
    await wait_and_wake(part.warm_up, part.concurrency)
    workflows: list[str] = []

    async def start(_: int) -> None:
        handle = await DBOS.start_workflow_async(one_of_many)
        workflows.append(handle.workflow_id)

    async def wake(number: int) -> None:
        await DBOS.send_async(workflows[number], letters.MESSAGE, letters.TOPIC)

    await harness.parent_says_go({"bench": "launched", "resident": harness.resident_bytes()})
    await letters.in_turns(part.count, part.concurrency, start)
    await harness.parent_says_go({"bench": "started", "resident": harness.resident_bytes()})
    await harness.parent_says_go({"bench": "waiting", "resident": harness.resident_bytes()})
    await letters.in_turns(part.count, part.concurrency, wake)
    await harness.parent_says_go({"bench": "woken"})
    os._exit(0)


if __name__ == "__main__":
    harness.run(main(letters.part_from_arguments()))
