"""The pool: last in, first out; who waits is served or told; nothing of one user can reach the next."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import suppress

import asyncpg
import pytest

from operon.database import testbed
from operon.database.connection import Connection, is_weather
from operon.database.pool import Pool
from operon.errors import DatabaseUnavailable


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Pool]:
    pool = Pool(database, 2)
    yield pool
    await pool.close()


def state(pool: Pool) -> str:
    """What its repr says: used, idle, waiting."""
    return repr(pool)


async def server_pid(connection: Connection) -> int:
    pid: int = await connection.fetchval("select pg_backend_pid()")
    return pid


async def test_the_connection_that_was_given_back_last_is_given_out_first(pool: Pool) -> None:
    first, second = await pool.acquire(), await pool.acquire()

    pool.release(first)
    pool.release(second)

    assert await pool.acquire() is second
    assert await pool.acquire() is first


async def test_connections_are_opened_as_they_are_needed(pool: Pool) -> None:
    assert state(pool) == "<Pool 0 used, 0 idle of 2, 0 waiting>"

    pool.release(await pool.acquire())
    pool.release(await pool.acquire())

    assert state(pool) == "<Pool 0 used, 1 idle of 2, 0 waiting>"


async def test_who_waits_is_served_in_order(pool: Pool) -> None:
    held = [await pool.acquire(), await pool.acquire()]
    served: list[int] = []

    async def wait(number: int) -> None:
        connection = await pool.acquire()
        served.append(number)
        pool.release(connection)

    waiting = [asyncio.create_task(wait(number)) for number in range(3)]
    await asyncio.sleep(0)
    pool.release(held[0])
    await asyncio.gather(*waiting)

    assert served == [0, 1, 2]


async def test_who_waits_too_long_is_told_how_many_there_are(pool: Pool) -> None:
    for _ in range(2):
        await pool.acquire()

    with pytest.raises(DatabaseUnavailable, match="none of 2 database connections") as caught:
        await pool.acquire(timeout=0.01)

    assert caught.value.hint is not None
    assert "pool_size" in caught.value.hint


async def test_a_time_out_of_one_waiter_does_not_cost_the_next_its_turn(pool: Pool) -> None:
    held = [await pool.acquire(), await pool.acquire()]
    with pytest.raises(DatabaseUnavailable):
        await pool.acquire(timeout=0.01)
    waiting = asyncio.create_task(pool.acquire())
    await asyncio.sleep(0)

    pool.release(held[0])

    assert await waiting is held[0]


async def test_a_waiter_that_is_cancelled_as_it_is_served_gives_the_connection_on(pool: Pool) -> None:
    held = [await pool.acquire(), await pool.acquire()]
    impatient = asyncio.create_task(pool.acquire())
    patient = asyncio.create_task(pool.acquire())
    await asyncio.sleep(0)

    pool.release(held[0])
    impatient.cancel()  # in the same turn of the loop: it has been given the connection and cannot know

    assert await asyncio.wait_for(patient, 60) is held[0]
    assert impatient.cancelled()


async def test_a_waiter_that_is_cancelled_as_it_may_open_one_lets_the_next_open_it(pool: Pool) -> None:
    held = [await pool.acquire(), await pool.acquire()]
    impatient = asyncio.create_task(pool.acquire())
    patient = asyncio.create_task(pool.acquire())
    await asyncio.sleep(0)

    pool.discard(held[0])
    impatient.cancel()

    assert await (await asyncio.wait_for(patient, 60)).fetchval("select 1") == 1
    assert impatient.cancelled()


async def test_a_waiter_whose_time_is_up_as_it_is_served_gives_the_connection_on(pool: Pool) -> None:
    held = [await pool.acquire(), await pool.acquire()]
    impatient = asyncio.create_task(pool.acquire(timeout=0.05))
    await asyncio.sleep(0)
    time.sleep(0.1)  # noqa: ASYNC251 - so that its time is up in the turn in which it is served

    asyncio.get_running_loop().call_soon(pool.release, held[0])
    with suppress(DatabaseUnavailable):
        pool.release(await impatient)  # it was quick enough after all
    assert await pool.acquire(timeout=60) is held[0]


async def test_cancelling_at_random_never_loses_a_connection(database: str) -> None:
    pool = Pool(database, 3)
    rng = random.Random(1)

    async def use() -> None:
        async with pool.connection() as connection:
            await connection.execute("begin")
            await connection.execute("select 1")
            await connection.execute("commit")

    for _ in range(300):
        users = [asyncio.create_task(use()) for _ in range(rng.randint(1, 6))]
        for _ in range(rng.randint(0, 40)):
            await asyncio.sleep(0)
        for user in users:
            user.cancel()
        await asyncio.gather(*users, return_exceptions=True)

    connections = [await patiently(pool) for _ in range(3)]
    assert not any(connection.is_in_transaction() for connection in connections)
    assert [await connection.fetchval("select 1") for connection in connections] == [1, 1, 1]
    await pool.close()


async def patiently(pool: Pool) -> Connection:
    """A connection, also while the server has not yet looked at all those who rang and went away: its queue is full."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await pool.acquire(timeout=60)
            except Exception as error:
                if not is_weather(error):
                    raise
                await asyncio.sleep(0.01)


async def test_a_connection_in_a_transaction_is_not_given_on(pool: Pool) -> None:
    connection = await pool.acquire()
    await connection.execute("begin")

    pool.release(connection)

    assert connection.is_closed()
    assert await (await pool.acquire()).fetchval("select 1") == 1


async def test_a_connection_that_the_server_has_ended_is_not_given_out(pool: Pool, database: str) -> None:
    connection = await pool.acquire()
    pid = await server_pid(connection)
    pool.release(connection)

    await testbed.execute(database, "select pg_terminate_backend($1)", pid)
    while not connection.is_closed():  # noqa: ASYNC110 - a fact elsewhere rings no bell
        await asyncio.sleep(0)

    assert await server_pid(await pool.acquire()) != pid


async def test_a_waiter_behind_a_broken_connection_opens_another(pool: Pool) -> None:
    broken, _ = await pool.acquire(), await pool.acquire()
    waiting = asyncio.create_task(pool.acquire())
    await asyncio.sleep(0)

    pool.discard(broken)
    connection = await asyncio.wait_for(waiting, 60)

    assert connection is not broken
    assert await connection.fetchval("select 1") == 1


async def test_a_block_that_is_left_by_an_error_terminates_its_connection(pool: Pool) -> None:
    used: list[Connection] = []
    with pytest.raises(asyncpg.DivisionByZeroError):
        async with pool.connection() as connection:
            used.append(connection)
            await connection.execute("select 1 / 0")

    assert used[0].is_closed()
    assert state(pool) == "<Pool 0 used, 0 idle of 2, 0 waiting>"


async def test_an_opening_that_fails_leaves_room_for_the_next(database: str) -> None:
    attempts = 0

    async def prepare(connection: Connection) -> None:
        nonlocal attempts
        attempts += 1
        if attempts <= 2:
            await connection.execute("select 1 / 0")

    pool = Pool(database, 1, prepare)
    for _ in range(2):
        with pytest.raises(asyncpg.DivisionByZeroError):
            await pool.acquire()

    connection = await pool.acquire(timeout=60)

    assert await connection.fetchval("select 1") == 1
    while await testbed.fetch(database, OF_ONE_POOL) != [(1,)]:  # noqa: ASYNC110 - a fact elsewhere rings no bell
        await asyncio.sleep(0.01)  # the server takes a moment to notice that the others are gone
    await pool.close()


OF_ONE_POOL = """
    select count(*) from pg_stat_activity
    where datname = current_database() and application_name = 'operon' and pid <> pg_backend_pid()
"""


async def test_a_closed_pool_refuses_and_tells_who_waits(database: str) -> None:
    pool = Pool(database, 1)
    held = await pool.acquire()
    waiting = asyncio.create_task(pool.acquire())
    await asyncio.sleep(0)

    await pool.close()

    assert held.is_closed()
    for refused in (waiting, asyncio.create_task(pool.acquire())):
        with pytest.raises(DatabaseUnavailable, match="closed"):
            await refused
