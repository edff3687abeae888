"""DBOS, in the best configuration that we could find for it; runs in a virtual environment of its own.

Tuned in its favour, against its defaults: no ping before each use of a connection (half of its transactions), few
threads, uvloop, logging at ERROR, transactions at READ COMMITTED in place of SERIALIZABLE. Its steps are coroutines
on the loop of the callers; workflows are started and awaited through handles, as everywhere in this benchmark.
Tried without gain: asyncpg under its transactions, larger pools, awaiting workflows directly.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Any

import sqlalchemy
from dbos import DBOS, AsyncSQLAlchemyDatasource, DBOSConfig

from bench import harness, orders

# As many as cores. Its threads spend their time waiting for each other's GIL: with 2 / 8 / 32 / 64 of them three steps
# ran at 125 / 94 / 93 / 72 workflows per second; one thread alone is slower again (72).
THREADS = 2
ENGINE = {"pool_size": 20, "max_overflow": 0, "pool_pre_ping": False}


def config(database_url: str) -> DBOSConfig:
    return {
        "name": "bench",
        "system_database_url": database_url.replace("postgresql://", "postgresql+psycopg://"),
        "db_engine_kwargs": dict(ENGINE),
        "max_executor_threads": THREADS,
        "executor_id": "bench",  # the same in both processes of a recovery: DBOS finds its own work by it
        "application_version": "1",
        "console_log_level": "ERROR",
        "log_level": "ERROR",
    }


@DBOS.workflow()
async def no_steps(item: str) -> str:
    return item


@DBOS.step()
async def charge(item: str, number: int) -> dict[str, Any]:
    return {"step": number, "done": f"charged {item}", "cents": 5000}


@DBOS.workflow()
async def three_steps(item: str) -> dict[str, Any]:
    await charge(item, 1)
    await charge(item, 2)
    return await charge(item, 3)


WITHOUT_TRANSACTIONS: dict[str, Callable[[str], Awaitable[Any]]] = {"W1": no_steps, "W2": three_steps}


async def transactions(database_url: str) -> Callable[[str], Awaitable[Any]]:
    """W3's workflow, on a datasource of the system database: the checkpoint commits with the user's row."""
    datasource = await AsyncSQLAlchemyDatasource.create(database_url, engine_kwargs=dict(ENGINE))
    insert = sqlalchemy.text("insert into orders (workflow_id, item) values (cast(:workflow as uuid), :item)")

    @datasource.transaction(isolation_level="READ COMMITTED")
    async def order(item: str) -> dict[str, Any]:
        await datasource.sql_session().execute(insert, {"workflow": DBOS.workflow_id, "item": item})
        return {"done": f"ordered {item}"}

    @DBOS.workflow()
    async def three_transactions(item: str) -> dict[str, Any]:
        await order(item)
        await order(item)
        return await order(item)

    async with datasource.engine.begin() as connection:
        await connection.execute(sqlalchemy.text(orders.SCHEMA))
    return three_transactions


async def main(task: harness.Task) -> None:
    DBOS(config=config(task.database_url))
    workflow = await transactions(task.database_url) if task.workload == "W3" else WITHOUT_TRANSACTIONS[task.workload]
    DBOS.launch()

    async def one() -> None:
        handle = await DBOS.start_workflow_async(workflow, "Hamlet, row A, seat 1")
        await handle.get_result()

    await harness.measure(task, one)
    # Not DBOS.destroy(): it waits for its threads, and nothing is left to do.
    os._exit(0)


if __name__ == "__main__":
    harness.run(main(harness.task_from_arguments()))
