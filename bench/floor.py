"""The floor: the rows and commits that a durable workflow needs, written by hand with asyncpg and nothing else.

What is missing here is everything that a framework does: there is no replay, no owner, no fence, no recovery. There
are two floors, because a framework may come out on either side of the first:

    floor           each workflow commits for itself, on one of 16 pooled connections: what careful hand-written
                    code does, and the limit of every framework that commits for one workflow at a time
    floor batched   all workflows of a cell walk in step, with one commit for a whole row of them (unnest): the limit
                    of group commit on one connection, out of reach for workflows that do not wait for each other.
                    There is none for W3: transactions with code inside cannot share a commit

Commits / rows per workflow:  W1 1 / 1,  W2 4 / 4 and an update,  W3 and W3sql 4 / 7 and an update.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID, uuid4

import asyncpg

from bench import harness, orders
from bench.round_trips import RoundTripCounter

POOL_SIZE = 16

SCHEMA = f"""
create table if not exists workflows (
    id uuid primary key, name text not null, input bytea not null, output bytea
) with (fillfactor = 80);
create table if not exists checkpoints (
    workflow_id uuid, step int, name text not null, output bytea not null, at timestamptz not null default now(),
    primary key (workflow_id, step)
);
{orders.SCHEMA};
"""

INPUT = b'{"item":"Hamlet, row A, seat 1"}'
OUTPUT = b'{"step":1,"done":"charged card 4242","cents":5000}'

# One workflow or many: `$1` is the array of their ids, as in a batch of one.
IDS = "unnest($1::uuid[]) as id"
DONE = f"insert into workflows (id, name, input, output) select id, 'checkout', $2, $3 from {IDS}"
STARTED = f"insert into workflows (id, name, input) select id, 'checkout', $2 from {IDS}"
ORDER = f"insert into orders (workflow_id, item) select id, 'seat' from {IDS}"
CHECKPOINT = f"insert into checkpoints (workflow_id, step, name, output) select id, $2, 'charge', $3 from {IDS}"
FINISH = "update workflows set output = $3 where id = any($1::uuid[])"
CHECKPOINT_FINISH = f"with checkpoint as ({CHECKPOINT}) {FINISH}"
ORDER_CHECKPOINT = f"with wrote as ({ORDER}) {CHECKPOINT}"
ORDER_CHECKPOINT_FINISH = f"with wrote as ({ORDER}), checkpoint as ({CHECKPOINT}) {FINISH}"


# Prepared statements meet empty tables here: without these, one would learn a sequential scan and keep it.
SETTINGS = {"plan_cache_mode": "force_generic_plan", "enable_seqscan": "off", "jit": "off"}


class PlainConnection(asyncpg.Connection):
    """A connection that goes back to its pool without a RESET, which would be one more round trip each time."""

    def get_reset_query(self) -> str:
        return ""


async def no_steps(pool: Any, ids: list[UUID]) -> None:
    """W1."""
    await pool.execute(DONE, ids, INPUT, OUTPUT)


async def three_steps(pool: Any, ids: list[UUID]) -> None:
    """W2."""
    await pool.execute(STARTED, ids, INPUT)
    await pool.execute(CHECKPOINT, ids, 1, OUTPUT)
    await pool.execute(CHECKPOINT, ids, 2, OUTPUT)
    await pool.execute(CHECKPOINT_FINISH, ids, 3, OUTPUT)


async def three_transactions(pool: Any, ids: list[UUID]) -> None:
    """W3."""
    await pool.execute(STARTED, ids, INPUT)
    for step, checkpoint in enumerate((CHECKPOINT, CHECKPOINT, CHECKPOINT_FINISH), start=1):
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute(ORDER, ids)
            await connection.execute(checkpoint, ids, step, OUTPUT)


async def three_statements(pool: Any, ids: list[UUID]) -> None:
    """W3sql: the user's statement and its checkpoint in one."""
    await pool.execute(STARTED, ids, INPUT)
    await pool.execute(ORDER_CHECKPOINT, ids, 1, OUTPUT)
    await pool.execute(ORDER_CHECKPOINT, ids, 2, OUTPUT)
    await pool.execute(ORDER_CHECKPOINT_FINISH, ids, 3, OUTPUT)


WORKFLOWS: dict[str, Callable[[Any, list[UUID]], Awaitable[None]]] = {
    "W1": no_steps,
    "W2": three_steps,
    "W3": three_transactions,
    "W3sql": three_statements,
}


async def main(task: harness.Task) -> None:
    counter = RoundTripCounter()
    if task.count_round_trips:
        counter.install()
    connect: dict[str, Any] = {"connection_class": PlainConnection, "server_settings": SETTINGS}
    size = 1 if task.batched else POOL_SIZE
    async with asyncpg.create_pool(task.database_url, min_size=size, max_size=size, **connect) as pool:
        await pool.execute(SCHEMA)
        workflow, batch = WORKFLOWS[task.workload], task.concurrency if task.batched else 1
        await harness.measure(
            task,
            lambda: workflow(pool, identities(batch)),
            batch=batch,
            round_trips=(lambda: counter.count) if task.count_round_trips else None,
        )


def identities(count: int) -> list[UUID]:
    return [uuid4() for _ in range(count)]


if __name__ == "__main__":
    harness.run(main(harness.task_from_arguments()))
