"""The notifier: what rings is heard, what cannot be heard is noticed, and nothing between two connections is missed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import asyncpg
import pytest

from operon.database import executors
from operon.database.lease import GRACE_SECONDS, Lease
from operon.database.notifier import EVERYBODY, Hearing, Notifier, channel
from operon.database.pool import Pool
from operon.testing import with_database
from tests.database.muffler import Muffler, muffler

NEVER = 100_000.0
QUICK: dict[str, Any] = {"ping_seconds": 0.02, "doubt_seconds": 0.1, "answer_seconds": 0.5}


class Listener:
    """A notifier that runs, and what it said."""

    def __init__(
        self, database: str, connection: asyncpg.Connection, lease: Lease, url: str | None, **how: Any
    ) -> None:
        self.connection = connection  # of somebody else
        self.database = database
        self.lease = lease
        self.bells: list[str] = []
        self.caught_up = 0
        self.doubts: list[float] = []  # the polls' pause as it is told at each
        self.started = asyncio.Event()
        self.on_connected: Callable[[], None] = lambda: None
        self.notifier = Notifier(url, lease, self._bell, self._connected, on_doubt=self._doubted, **{**QUICK, **how})

    async def ring(self, bell: str, channel_name: str | None = None) -> None:
        await self.connection.execute("select pg_notify($1, $2)", channel_name or channel(self.lease.incarnation), bell)

    async def until(self, fact: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not fact():  # noqa: ASYNC110 - not every fact rings a bell
                await asyncio.sleep(0.005)

    async def healthy(self) -> None:
        await self.until(lambda: self.notifier.healthy)

    async def sessions(self) -> list[int]:
        """The server's sessions of the runtime: nothing but this listener opens any here."""
        rows = await self.connection.fetch(
            "select pid from pg_stat_activity where datname = current_database() and application_name = 'operon'"
        )
        return [row["pid"] for row in rows]

    async def kill(self) -> None:
        """Ends its session on the server."""
        for pid in await self.sessions():
            await self.connection.execute("select pg_terminate_backend($1)", pid)

    def _bell(self, bell: str) -> None:
        if bell == "garbage":
            raise ValueError("badly formed hexadecimal UUID string")
        self.bells.append(bell)

    def _connected(self) -> None:
        self.caught_up += 1
        self.on_connected()

    def _doubted(self) -> None:
        self.doubts.append(self.notifier.poll_seconds(1.0))


class Bench:
    """Makes listeners on one database."""

    def __init__(self, database: str, stack: AsyncExitStack) -> None:
        self.database = database
        self._stack = stack

    async def listener(self, url: str | None = "", **how: Any) -> Listener:
        """One that runs; `url` is the database's if it is not given."""
        connection = await asyncpg.connect(self.database)
        self._stack.push_async_callback(connection.close)
        number, _ = await executors.register(connection, "0", NEVER, GRACE_SECONDS)
        lease = Lease(self.database, number, NEVER, NEVER, lambda: None)  # not started: nobody renews it
        listener = Listener(self.database, connection, lease, self.database if url == "" else url, **how)
        running = asyncio.create_task(listener.notifier.run(listener.started.set))
        self._stack.push_async_callback(cancelled, running)
        await asyncio.wait_for(listener.started.wait(), 60)
        return listener

    async def pool(self) -> Pool:
        pool = Pool(self.database, 2)
        self._stack.push_async_callback(pool.close)
        return pool

    async def muffler(self) -> tuple[str, Muffler]:
        return await self._stack.enter_async_context(muffler(self.database))


async def cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def bench(database: str) -> AsyncIterator[Bench]:
    async with AsyncExitStack() as stack:
        yield Bench(database, stack)


# ---------------------------------------------------------------------- what rings is heard


async def test_what_rings_for_one_executor_and_for_all_is_heard_in_order(bench: Bench) -> None:
    listener = await bench.listener()

    await listener.ring("done:1")
    await listener.ring("work", EVERYBODY)
    await listener.ring("done:2,3")
    await listener.until(lambda: len(listener.bells) == 3)

    assert listener.bells == ["done:1", "work", "done:2,3"]
    assert listener.notifier.gauges().heard == 3


async def test_what_rings_for_another_executor_is_not_heard(bench: Bench) -> None:
    listener = await bench.listener()

    await listener.ring("done:1", channel(listener.lease.incarnation + 1))
    await listener.ring("work", EVERYBODY)
    await listener.until(lambda: len(listener.bells) > 0)

    assert listener.bells == ["work"]


async def test_pings_are_kept_from_who_hears_the_bells(bench: Bench) -> None:
    listener = await bench.listener()

    await listener.healthy()
    before = listener.notifier.gauges().ping_mean_seconds
    await listener.until(lambda: listener.notifier.gauges().ping_mean_seconds != before)  # one more

    assert listener.bells == []
    assert listener.notifier.gauges().heard == 0


async def test_a_bell_that_nobody_understands_costs_nothing_but_a_line_in_the_log(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    listener = await bench.listener()

    await listener.ring("garbage")
    await listener.ring("work")
    await listener.until(lambda: len(listener.bells) > 0)

    assert listener.bells == ["work"]
    assert listener.notifier.gauges().reconnects == 0
    assert "garbage" in caplog.text


async def test_a_burst_of_five_thousand_is_heard_and_the_loop_goes_on_meanwhile(bench: Bench) -> None:
    listener = await bench.listener(ping_seconds=NEVER)
    turns: list[int] = []  # how many had been heard at each turn of the event loop

    async def turn() -> None:
        while len(listener.bells) < 5_000:
            turns.append(len(listener.bells))
            await asyncio.sleep(0)

    turning = asyncio.create_task(turn())
    await listener.connection.execute(
        "select pg_notify($1, 'done:' || n) from generate_series(1, 5000) n", channel(listener.lease.incarnation)
    )
    await asyncio.wait_for(turning, 60)

    assert listener.bells == [f"done:{n}" for n in range(1, 5_001)]
    assert max(late - soon for soon, late in zip(turns, [*turns[1:], 5_000], strict=True)) <= 512


async def test_when_bells_were_dropped_everybody_looks(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("operon.database.notifier.BELLS_MAX", 100)
    listener = await bench.listener(ping_seconds=NEVER)
    await listener.healthy()

    await listener.connection.execute(
        "select pg_notify($1, 'done:' || n) from generate_series(1, 5000) n", channel(listener.lease.incarnation)
    )
    await listener.until(lambda: listener.caught_up > 1 and listener.bells[-1] == "done:5000")

    assert listener.notifier.gauges().reconnects == 0


# ---------------------------------------------------------------------- what cannot be heard is noticed


async def test_a_killed_listener_reconnects_and_misses_nothing(bench: Bench) -> None:
    listener = await bench.listener(ping_seconds=NEVER)
    await listener.healthy()
    rang = 0
    seen: list[int] = []  # what was rung before each catch-up, which finds it in the tables
    listener.on_connected = lambda: seen.append(rang)

    for round in range(5):
        caught_up = listener.caught_up
        await listener.kill()
        async with asyncio.timeout(60):
            while listener.caught_up == caught_up:
                rang += 1
                await listener.ring(f"done:{rang}")
        await listener.ring(f"last:{round}")
        await listener.until(lambda: listener.bells[-1:] == [f"last:{round}"])  # noqa: B023

        missed = [n for n in range(1, rang + 1) if f"done:{n}" not in listener.bells]
        assert missed == [n for n in missed if n <= seen[-1]]

    assert listener.notifier.gauges().reconnects == 5


async def test_the_catch_up_comes_after_the_acknowledged_listen(bench: Bench) -> None:
    listener = await bench.listener(ping_seconds=NEVER)
    await listener.healthy()
    rung: list[asyncio.Task[None]] = []
    listener.on_connected = lambda: rung.append(asyncio.create_task(listener.ring("rung at the catch-up")))

    await listener.kill()
    await listener.until(lambda: len(listener.bells) > 0)

    assert listener.bells == ["rung at the catch-up"]
    assert len(rung) == 1


async def test_a_listen_that_died_silently_is_noticed_and_healed(bench: Bench) -> None:
    listener = await bench.listener()
    caught_up, reconnects, doubts = await deafen(listener)

    await listener.until(lambda: listener.caught_up == caught_up + 1)
    await listener.healthy()
    await listener.ring("done:1")
    await listener.until(lambda: listener.bells == ["done:1"])

    assert listener.notifier.gauges().reconnects == reconnects + 1
    assert len(listener.doubts) == doubts + 1


async def deafen(listener: Listener) -> tuple[int, int, int]:
    """Takes what it listens to away from a healthy connection; what was counted of the listener until then.

    Whoever comes while the connection is pinging is sent away, and who is pinging then thinks it broken: it is renewed.
    """
    async with asyncio.timeout(60):
        while True:
            await listener.healthy()
            line = listener.notifier._line  # pyright: ignore[reportPrivateUsage]
            counted = listener.caught_up, listener.notifier.gauges().reconnects, len(listener.doubts)
            try:
                assert line is not None
                await line.connection.execute("unlisten *")
            except (asyncpg.InterfaceError, asyncpg.ConnectionDoesNotExistError):
                await asyncio.sleep(0.01)
            else:
                return counted


async def test_a_half_open_connection_is_noticed_and_replaced(bench: Bench) -> None:
    url, proxy = await bench.muffler()
    listener = await bench.listener(url)
    await listener.healthy()

    proxy.cut_off()
    await listener.until(lambda: not listener.notifier.healthy)
    await listener.healthy()
    await listener.ring("done:1")
    await listener.until(lambda: listener.bells == ["done:1"])

    assert listener.notifier.gauges().reconnects == 1


async def test_a_listener_that_hears_only_itself_is_never_healthy(
    bench: Bench, server: str, caplog: pytest.LogCaptureFixture
) -> None:
    elsewhere = with_database(server, "postgres")  # LISTEN works there, and nobody rings

    listener = await bench.listener(elsewhere, look_ups=await bench.pool())
    await listener.until(lambda: listener.caught_up == 3)

    assert listener.notifier.gauges().state is not Hearing.HEALTHY
    assert listener.notifier.gauges().ping_seconds is None
    assert not listener.lease.lockable
    assert caplog.text.count("direct_url") == 1  # once, not at each attempt


async def test_the_first_ping_comes_from_elsewhere(bench: Bench) -> None:
    listener = await bench.listener(look_ups=await bench.pool())

    await listener.healthy()
    await listener.until(lambda: listener.lease.lockable)

    assert listener.notifier.poll_seconds(1.0) == 1.0


async def test_an_executor_starts_also_where_it_cannot_listen(bench: Bench) -> None:
    listener = await bench.listener("postgresql://nobody@127.0.0.1:1/nowhere")

    assert listener.caught_up == 0
    assert listener.notifier.gauges().state is Hearing.DOWN
    assert listener.notifier.poll_seconds(1.0) == 0.1


# ---------------------------------------------------------------------- polls and gauges


async def test_polls_are_quick_from_the_moment_of_doubt_until_a_ping_is_heard_again(bench: Bench) -> None:
    url, proxy = await bench.muffler()
    listener = await bench.listener(url)
    await listener.healthy()
    at_catch_up: list[float] = []
    listener.on_connected = lambda: at_catch_up.append(listener.notifier.poll_seconds(1.0))

    proxy.cut_off()
    await listener.until(lambda: len(at_catch_up) == 1)
    await listener.healthy()

    assert listener.doubts == [0.1]
    assert at_catch_up == [0.1]
    assert listener.notifier.poll_seconds(1.0) == 1.0
    assert listener.notifier.poll_seconds(0.05) == 0.05


async def test_the_gauges_tell_how_long_pings_take_and_what_polls_found(bench: Bench) -> None:
    listener = await bench.listener()
    before = listener.notifier.gauges()

    await listener.healthy()
    listener.notifier.missed(2)
    listener.notifier.missed(1)
    gauges = listener.notifier.gauges()

    assert (before.found_by_poll, gauges.found_by_poll) == (0, 3)
    assert gauges.state is Hearing.HEALTHY
    assert gauges.ping_seconds is not None
    assert gauges.ping_mean_seconds is not None
    assert 0 < gauges.ping_mean_seconds < 60
    assert repr(listener.notifier).startswith(f"<Notifier of executor {listener.lease.incarnation}: healthy, ping ")


async def test_off_there_is_no_connection_and_no_lock_and_polls_are_quicker_while_somebody_waits(
    bench: Bench,
) -> None:
    listener = await bench.listener(None)

    assert await listener.sessions() == []
    assert not listener.lease.lockable
    assert not listener.notifier.healthy
    assert listener.notifier.gauges().state is Hearing.OFF
    assert listener.notifier.poll_seconds(1.0) == 0.25
    assert listener.notifier.poll_seconds(1.0, waiting=False) == 1.0
    assert listener.notifier.poll_seconds(0.1) == 0.1
    assert repr(listener.notifier) == f"<Notifier of executor {listener.lease.incarnation}: off>"
