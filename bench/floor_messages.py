"""The floor of W4a and W7: the rows and the commit of a message, or of an event, by hand, and a hand-over in memory.

One connection and one prepared statement; there is no mailbox to look at, no fence, no replay. So this is what a commit
takes on the machine, and two tasks that wake each other.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any
from uuid import uuid4

import asyncpg

from bench import floor, harness, letters
from bench.correspondents import EVENTS_APART_SECONDS
from bench.letters import Part
from operon.runtime.loop import settle_garbage

SCHEMA = """
create table if not exists letters (
    destination uuid, number int, body bytea not null, primary key (destination, number)
);
create table if not exists events (workflow_id uuid, key text, value bytea not null, primary key (workflow_id, key));
"""

# The last letter is received, and the next one sent: two steps, and the rows that they are about.
LETTER = """
with received as (delete from letters where destination = $1 and number = $3 - 1),
recorded as (
    insert into checkpoints (workflow_id, step, name, output) values ($1, $3, 'recv', $4), ($1, -$3, 'send', $4)
)
insert into letters (destination, number, body) values ($2, $3, $4)
"""
# A step that came before it, and the event's own.
EVENT = """
with recorded as (
    insert into checkpoints (workflow_id, step, name, output) values ($1, $2, 'pass', $4), ($1, -$2, 'set_event', $4)
)
insert into events (workflow_id, key, value) values ($1, $3, $4)
"""
BODY = b'"pong"'


async def exchange(connection: Any, messages: int) -> float:
    """Seconds that two tasks need for so many messages."""
    ids = uuid4(), uuid4()
    post: tuple[asyncio.Queue[int], asyncio.Queue[int]] = asyncio.Queue(), asyncio.Queue()

    async def write(me: int) -> None:
        other = 1 - me
        while (number := await post[me].get()) <= messages:
            await connection.execute(LETTER, ids[me], ids[other], number, BODY)
            post[other].put_nowait(number + 1)
        post[other].put_nowait(number)

    begun = time.perf_counter()
    post[0].put_nowait(1)
    await asyncio.gather(write(0), write(1))
    return time.perf_counter() - begun


async def publish(connection: Any, events: int) -> list[float]:
    """Seconds from the moment when an event is known to whoever waits for it."""
    workflow = uuid4()
    latencies: list[float] = []
    gate: asyncio.Queue[int] = asyncio.Queue()
    heard: asyncio.Queue[float] = asyncio.Queue()

    async def publisher() -> None:
        for _ in range(events):
            number = await gate.get()
            known_at = time.perf_counter()
            await connection.execute(EVENT, workflow, number, str(number), BODY)
            heard.put_nowait(known_at)

    publishing = asyncio.create_task(publisher())
    for number in range(1, events + 1):
        waiting = asyncio.create_task(heard.get())
        await asyncio.sleep(EVENTS_APART_SECONDS)
        gate.put_nowait(number)
        known_at = await waiting
        latencies.append(time.perf_counter() - known_at)
    await publishing
    return latencies


async def main(part: Part) -> None:
    connection = await asyncpg.connect(part.database_url, server_settings=floor.SETTINGS)
    await connection.execute(floor.SCHEMA + SCHEMA)
    settle_garbage()
    if part.role == "exchange":
        await exchange(connection, part.warm_up)
        seconds = await exchange(connection, part.count)
        await harness.parent_says_go({"bench": "done", "p50_ms": seconds / part.count * 1000, "p99_ms": None})
    else:
        await publish(connection, part.warm_up)
        latencies = await publish(connection, part.count)
        await harness.parent_says_go({"bench": "done", **letters.figures(latencies)})
    await connection.close()


if __name__ == "__main__":
    harness.run(main(letters.part_from_arguments()))
