"""The lease: believed less long than it is granted, kept only while the loop lives, gone for good once gone."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from operon.database import executors, testbed
from operon.database.executors import SESSION_LOCK
from operon.database.lease import GRACE_SECONDS, MARGIN, Lease, boottime

SECONDS = 2.0
HEARTBEAT = 0.1


class Registered:
    """An executor's row, and its lease."""

    def __init__(
        self, url: str, connection: asyncpg.Connection, number: int, lease: Lease, fenced: asyncio.Event
    ) -> None:
        self.url = url
        self.connection = connection
        self.number = number
        self.lease = lease
        self.fenced = fenced

    async def lease_until(self) -> float:
        until: float = await self.connection.fetchval(
            "select extract(epoch from lease_until)::float8 from operon.executors where incarnation = $1", self.number
        )
        return until

    async def renewed(self, times: int = 1) -> None:
        """Waits for renewals in the database."""
        async with asyncio.timeout(60):
            for _ in range(times):
                before = await self.lease_until()
                while await self.lease_until() <= before:  # noqa: ASYNC110 - a fact elsewhere rings no bell
                    await asyncio.sleep(0.01)


@pytest.fixture
async def registered(database: str) -> AsyncIterator[Registered]:
    connection = await asyncpg.connect(database)
    number, _ = await executors.register(connection, "0", SECONDS, GRACE_SECONDS)
    fenced = asyncio.Event()
    lease = Lease(database, number, SECONDS, HEARTBEAT, fenced.set)
    yield Registered(database, connection, number, lease, fenced)
    await lease.close()
    await connection.close()


async def until(fact: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not fact():  # noqa: ASYNC110 - a fact elsewhere rings no bell
            await asyncio.sleep(0.01)


async def test_it_is_renewed_again_and_again(registered: Registered) -> None:
    registered.lease.start()

    await registered.renewed(5)

    assert registered.lease.trusted
    assert not registered.fenced.is_set()


async def test_it_is_doubted_before_it_ends_in_the_database(registered: Registered) -> None:
    assert registered.lease.trusted  # never started: nobody renews it

    await until(lambda: not registered.lease.trusted)

    ends = await registered.lease_until()
    now = await registered.connection.fetchval("select extract(epoch from clock_timestamp())::float8")
    assert now < ends
    assert ends - now <= SECONDS * MARGIN + 0.1


async def test_it_is_trusted_again_when_the_database_is_back_and_the_outage_is_said_once(
    registered: Registered, caplog: pytest.LogCaptureFixture
) -> None:
    registered.lease.start()
    caplog.set_level(logging.DEBUG, "operon.lease")
    await registered.renewed()
    other = await asyncpg.connect(registered.url)

    began = time.monotonic()
    await other.execute("alter table operon.executors rename to executors_away")
    await until(lambda: not registered.lease.trusted)
    waiting = asyncio.create_task(registered.lease.wait_certain())
    await asyncio.sleep(0)
    assert not waiting.done()
    await other.execute("alter table operon.executors_away rename to executors")
    await asyncio.wait_for(waiting, 60)

    said = [record.levelno for record in caplog.records if "UndefinedTableError" in record.getMessage()]
    assert 1 <= said.count(logging.WARNING) <= 2
    assert len(said) <= (time.monotonic() - began) / HEARTBEAT + 2
    assert registered.lease.trusted
    assert not registered.fenced.is_set()
    await other.close()


async def test_a_nudge_renews_at_once(database: str) -> None:
    async with patient(database) as registered:
        registered.lease.nudge()
        await registered.renewed()  # the next heartbeat would be 40 seconds away


async def test_it_takes_the_session_lock_as_soon_as_it_may_and_says_so(database: str) -> None:
    async with patient(database) as registered:
        registered.lease.may_lock()
        await registered.renewed()

        assert registered.lease.session_lock
        assert await registered.connection.fetchval(LOCKED) is True


async def test_a_session_that_ends_is_replaced_and_locked_at_once_though_the_loop_stands_still(database: str) -> None:
    async with patient(database) as registered:
        registered.lease.may_lock()
        await registered.renewed()
        [[pid]] = await testbed.fetch(database, HOLDER)

        thread = threading.Thread(target=asyncio.run, args=(replaced(database, pid),))
        thread.start()
        thread.join(30)  # on the event loop, on purpose

        assert not thread.is_alive()
        assert registered.lease.session_lock
        assert not registered.lease.steady


async def test_while_the_server_sees_its_last_session_the_lock_is_not_its_own_and_it_says_so(database: str) -> None:
    async with patient(database) as registered:
        await registered.connection.execute("select pg_advisory_lock($1, $2)", SESSION_LOCK, registered.number)
        registered.lease.may_lock()
        await registered.renewed()
        locked, told = registered.lease.session_lock, await registered.connection.fetchval(LOCKED)
        await registered.connection.execute("select pg_advisory_unlock_all()")
        registered.lease.nudge()
        await registered.renewed()

        assert (locked, told) == (False, False)
        assert registered.lease.session_lock
        assert await registered.connection.fetchval(LOCKED) is True


@asynccontextmanager
async def patient(database: str) -> AsyncGenerator[Registered]:
    """With a lease of 100 seconds, renewed every 40."""
    connection = await asyncpg.connect(database)
    number, _ = await executors.register(connection, "0", 100.0, GRACE_SECONDS)
    lease = Lease(database, number, 100.0, 40.0, lambda: None)
    registered = Registered(database, connection, number, lease, asyncio.Event())
    lease.start()
    await registered.renewed()
    yield registered
    await lease.close()
    await connection.close()


async def replaced(database: str, pid: int) -> None:
    """Terminates the session that holds the lock, and waits until another one does."""
    await testbed.execute(database, f"select pg_terminate_backend({pid})")
    while not [holder for [holder] in await testbed.fetch(database, HOLDER) if holder != pid]:  # noqa: ASYNC110 - rows ring no bell
        await asyncio.sleep(0.01)


LOCKED = "select session_locked_at is not null from operon.executors"
HOLDER = f"""
select pid from pg_locks where locktype = 'advisory' and classid = {SESSION_LOCK} and granted
    and database = (select oid from pg_database where datname = current_database())
"""


async def test_an_executor_that_was_declared_dead_is_fenced_and_never_renews_again(registered: Registered) -> None:
    registered.lease.start()
    await registered.renewed()

    await executors.kill(registered.connection, registered.number)
    await asyncio.wait_for(registered.fenced.wait(), 60)
    ends = await registered.lease_until()
    registered.lease.nudge()
    await until(lambda: not registered.lease._thread.is_alive())  # pyright: ignore[reportPrivateUsage]

    assert not registered.lease.trusted
    assert not registered.lease.steady
    assert await registered.lease_until() == ends


async def test_a_stuck_event_loop_loses_its_lease(registered: Registered, caplog: pytest.LogCaptureFixture) -> None:
    registered.lease.start()
    await registered.renewed()

    with caplog.at_level(logging.WARNING, "operon.lease"):
        time.sleep(SECONDS * 2)  # noqa: ASYNC251 - this is the fault: nothing of the application moves
    trusted = registered.lease.trusted
    late = await registered.connection.fetchval("select lease_until < clock_timestamp() from operon.executors")

    assert not trusted
    assert late
    assert "stuck" in caplog.text
    await until(lambda: registered.lease.trusted)  # nobody declared it dead meanwhile, so it goes on


async def test_a_process_that_did_not_run_at_all_is_not_taken_for_one_whose_loop_is_stuck(
    registered: Registered, caplog: pytest.LogCaptureFixture
) -> None:
    registered.lease.start()
    await registered.renewed()

    with caplog.at_level(logging.WARNING, "operon.lease"):
        # As if it had been stopped: C code that keeps the interpreter to itself lets no thread run.
        ctypes.PyDLL(None).usleep(int(SECONDS * 1_000_000))
        until_then = time.monotonic() + 0.05
        while time.monotonic() < until_then:  # here the lease's thread gets its turn, and the loop has not had one yet
            pass
        await registered.renewed()

    assert "stuck" not in caplog.text


async def test_neither_is_one_that_was_stopped_in_the_middle_of_a_renewal(
    registered: Registered, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    renewing, real = threading.Event(), executors.renew

    async def renew(*args: Any) -> bool:
        renewing.set()
        await asyncio.sleep(0.02)  # in the lease's thread, so that the test has the interpreter by then
        return await real(*args)

    monkeypatch.setattr(executors, "renew", renew)
    registered.lease.start()

    with caplog.at_level(logging.WARNING, "operon.lease"):
        assert renewing.wait(60)
        ctypes.PyDLL(None).usleep(int((SECONDS + 0.2) * 1_000_000))
        until_then = time.monotonic() + 0.1
        while time.monotonic() < until_then:
            pass
        await registered.renewed()

    assert "stuck" not in caplog.text


async def test_a_pause_of_the_loop_shorter_than_half_a_lease_costs_nothing(registered: Registered) -> None:
    registered.lease.start()
    await registered.renewed()
    before = await registered.lease_until()

    time.sleep(SECONDS * 0.4)  # noqa: ASYNC251 - a long computation

    assert registered.lease.trusted
    assert await registered.lease_until() > before


async def test_only_a_whole_lease_of_renewals_makes_it_seasoned(registered: Registered) -> None:
    registered.lease.start()
    await until(lambda: standing(registered.lease) == {"trusted", "steady", "seasoned"})

    registered.lease.shaken()

    assert standing(registered.lease) == {"trusted"}
    await until(lambda: standing(registered.lease) == {"trusted", "steady", "seasoned"})


async def test_it_is_steady_from_the_first_renewal_until_one_fails(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("operon.database.lease.RENEW_SECONDS", 60.0)  # none fails because the machine is busy
    connection = await asyncpg.connect(database)
    number, _ = await executors.register(connection, "0", 1000.0, GRACE_SECONDS)
    lease = Lease(database, number, 1000.0, HEARTBEAT, lambda: None)
    lease.start()
    await Registered(database, connection, number, lease, asyncio.Event()).renewed()

    assert standing(lease) == {"trusted", "steady"}
    lease.shaken()
    assert standing(lease) == {"trusted"}

    await lease.close()
    await connection.close()


async def test_who_holds_a_session_lock_is_certain_only_for_a_while_after_it_saw_that(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("operon.database.lease.WANTED_SECONDS", 0.0)  # it looks, and does not go on looking
    async with patient(database) as registered:
        lease = registered.lease
        before = lease.certain  # peers do not go by a lock that it never said it had
        lease.may_lock()
        await registered.renewed()
        await until(lambda: not lease.certain)
        trusted = lease.trusted

        monkeypatch.setattr("operon.database.lease.WANTED_SECONDS", 5.0)
        asked = boottime()
        await lease.wait_certain()
        monkeypatch.setattr("operon.database.lease.WANTED_SECONDS", 0.0)
        lease._wanted_until = 0.0  # pyright: ignore[reportPrivateUsage]
        await until(lambda: not lease.certain)

        assert before
        assert trusted
        assert boottime() - asked >= GRACE_SECONDS * (1 - MARGIN)


async def test_whoever_wants_to_be_certain_a_little_later_need_not_wait(database: str) -> None:
    async with patient(database) as registered:
        registered.lease.may_lock()
        await registered.renewed()
        await until(lambda: not registered.lease.certain)
        await registered.lease.wait_certain()

        time.sleep(2 * GRACE_SECONDS)  # noqa: ASYNC251 - the event loop has other things to do

        assert registered.lease.certain


def standing(lease: Lease) -> set[str]:
    """What this executor may believe of itself and say of others."""
    return {name for name in ("trusted", "steady", "seasoned") if getattr(lease, name)}


async def test_a_connection_that_is_cut_is_replaced_and_the_lease_is_not_seasoned(registered: Registered) -> None:
    registered.lease.start()
    await until(lambda: registered.lease.seasoned)

    await testbed.execute(registered.url, CUT_HEARTBEAT)
    await until(lambda: not registered.lease.seasoned)
    await registered.renewed(2)

    assert registered.lease.trusted
    assert not registered.fenced.is_set()


CUT_HEARTBEAT = """
    select pg_terminate_backend(pid) from pg_stat_activity
    where datname = current_database() and application_name = 'operon' and pid <> pg_backend_pid()
"""
