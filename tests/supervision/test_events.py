"""The event log: what operators are told of, without which the work goes on just the same."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

import operon
from operon.database import supervision
from operon.database.connection import Connection
from operon.errors import DatabaseUnavailable
from operon.runtime import events, recovery
from operon.runtime.events import EventLog, Kind
from operon.testing import TestRuntime
from tests.supervision.facts import until_event


@operon.workflow
async def hello(ctx: operon.WorkflowContext) -> str:
    return "hello"


@operon.workflow
async def held(ctx: operon.WorkflowContext) -> None:
    await ctx.recv("gate", 3600)


@operon.communicator(retry=None)
async def one(ctx: operon.CommunicatorContext) -> int:
    return 1


@operon.communicator(retry=None)
async def other(ctx: operon.CommunicatorContext) -> int:
    return 2


picked = [one]


@operon.workflow
async def changed(ctx: operon.WorkflowContext) -> None:
    await picked[0](ctx)
    await ctx.recv("gate", 3600)


@pytest.fixture
async def runtime() -> AsyncIterator[TestRuntime]:
    async with TestRuntime(__name__, check_replay=False) as runtime:
        yield runtime


async def test_the_start_of_an_executor_is_an_event(runtime: TestRuntime) -> None:
    number = runtime.executor.incarnation.number

    event = await until_event(runtime, Kind.STARTED)

    assert event["executor"] == number
    assert event["path"] == f"operon/executor-{number}"
    assert f"executor {number} started" in event["text"]
    assert event["severity"] == 0


async def test_an_orderly_end_is_told_of_before_the_process_ends(runtime: TestRuntime) -> None:
    number = runtime.executor.incarnation.number
    await held(runtime.context)

    await runtime.restart()

    kinds = {
        row["kind"]
        for row in await runtime.fetch("select kind from operon.supervision_events where executor = $1", number)
    }
    left = await until_event(runtime, Kind.LEFT)
    assert {"started", "draining", "left"} <= kinds
    assert left["text"] == f"executor {number} left; 1 workflows are ready for others"


async def test_an_executor_that_finds_itself_declared_dead_tells_of_it(runtime: TestRuntime) -> None:
    number = runtime.executor.incarnation.number

    await runtime.crash()

    fenced = await until_event(runtime, Kind.FENCED)
    assert fenced["executor"] == number
    assert fenced["severity"] == 2


async def test_an_executor_that_is_declared_dead_is_told_of_with_the_reason_and_what_it_ran(
    runtime: TestRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    await runtime.execute(
        "with late as (insert into operon.executors (host, pid, version, lease_until) "
        "values ('late', 1, '0', now() - interval '1 minute') returning incarnation) "
        "insert into operon.workflows (workflow_uuid, name, version, inputs, owner) "
        "select gen_random_uuid(), 'held', '0', '{}', incarnation from late, generate_series(1, 3)"
    )
    late = await runtime.fetchval("select incarnation from operon.executors where host = 'late'")
    monkeypatch.setattr(type(runtime.executor.incarnation.lease), "seasoned", property(lambda _: True))

    declared, taken = await until_event(runtime, Kind.DECLARED_DEAD), await until_event(runtime, Kind.TAKEN_OVER)

    assert declared["text"] == f"executor {late} was declared dead: its lease ran out"
    assert taken["text"] == f"3 workflows of executor {late} are taken over"


async def test_a_workflow_that_dies_is_told_of_by_its_name(runtime: TestRuntime) -> None:
    handle = await changed(runtime.context)
    await runtime.settled()
    picked[0] = other
    try:
        await runtime.restart()
        event = await until_event(runtime, Kind.DIED)
    finally:
        picked[0] = one

    assert event["workflow_uuid"] == handle.workflow_uuid
    assert "step 0 is now communicator 'other'" in event["text"]
    assert event["severity"] == 2


async def test_a_crash_and_the_restart_of_an_actor_are_told_of_with_error_and_name(
    runtime: TestRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    incarnation = runtime.executor.incarnation
    failures = iter([MemoryError("password=hunter2")])

    def out_of_memory(*_: Any) -> Any:
        monkeypatch.undo()
        raise next(failures)

    monkeypatch.setattr(incarnation.committer, "finish", out_of_memory)
    incarnation.jitter = lambda: 0.0

    handle = await hello(runtime.context)
    assert await handle.get_result(timeout=60) == "hello"

    crashed, restarted = await until_event(runtime, Kind.CRASHED), await until_event(runtime, Kind.RESTARTED)
    paused = await until_event(runtime, Kind.BACKED_OFF)
    assert crashed["text"].startswith(f"hello {handle.workflow_uuid} crashed with MemoryError: password=")
    assert "hunter2" not in crashed["text"]
    assert crashed["path"] == f"operon/executor-{incarnation.number}/workflows/hello/{handle.workflow_uuid}"
    assert restarted["text"] == f"hello {handle.workflow_uuid} is run again"
    assert paused["text"] == f"hello {handle.workflow_uuid} crashed 1 time in a row, and pauses 0.0 s"


async def test_a_lease_that_is_lost_and_found_again_is_told_of_once_each(
    runtime: TestRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = runtime.executor.incarnation.lease
    monkeypatch.setattr(type(lease), "trusted", property(lambda _: False))
    await until_event(runtime, Kind.LEASE_LOST)
    monkeypatch.undo()
    await until_event(runtime, Kind.LEASE_BACK)

    kinds = [row["kind"] for row in await runtime.fetch("select kind from operon.supervision_events order by id")]

    assert kinds.count("lease_lost") == kinds.count("lease_back") == 1


class Away:
    """A database that is out of reach until it is let in."""

    def __init__(self) -> None:
        self.reachable = False
        self.written: list[Any] = []
        self.asked = asyncio.Event()

    async def ask(self, query: Any, patience_seconds: float | None = None) -> Any:
        self.asked.set()
        if not self.reachable:
            raise DatabaseUnavailable("away")
        await query(self)

    async def execute(self, statement: str, document: str) -> str:
        self.written.extend(msgspec.json.decode(document))
        return ""


def log_of(database: Away, counted: list[str] | None = None) -> EventLog:
    return EventLog(database, (counted if counted is not None else []).append, lambda _: None)


async def test_what_happens_while_the_database_is_away_is_written_later_and_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(events, "PENDING_MAX", 10)
    database, counted = Away(), list[str]()
    log = log_of(database, counted)
    for number in range(25):
        log.record(Kind.STARTED, str(number))
    await log.flush()
    database.reachable = True

    await log.flush()

    texts = [row["text"] for row in database.written]
    assert texts[-10:-1] == [str(number) for number in range(16, 25)]
    assert texts[-1] == "15 events were dropped while the database was away"
    assert len(counted) >= 25


async def test_an_event_that_the_database_refuses_is_left_out_and_breaks_nothing() -> None:
    class Refusing(Away):
        async def execute(self, statement: str, document: str) -> str:
            raise ValueError("no")

    database = Refusing()
    database.reachable = True
    log = log_of(database)
    log.record(Kind.STARTED, "one")

    await log.flush()

    assert repr(log) == "<EventLog: 0 to be written, 0 dropped>"


async def test_a_name_that_is_no_executor_s_has_none() -> None:
    assert events.number_of(("operon", "executor-12", "notifier")) == 12
    assert events.number_of(("operon", "http")) is None
    assert events.uuid_of(("operon", "executor-1", "workflows", "nonsense")) is None


async def test_the_sweep_keeps_a_week_and_no_more_than_so_many(
    runtime: TestRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    await until_event(runtime, Kind.STARTED)
    await runtime.execute(
        "insert into operon.supervision_events (at, kind, path) "
        "select now() - make_interval(days => 10 - n / 10), 'old', 'operon' from generate_series(1, 99) as n"
    )

    async def sweep(connection: Connection) -> None:
        await supervision.sweep(connection)

    await runtime.executor.look_ups.ask(sweep)
    young = await runtime.fetchval("select count(*) from operon.supervision_events where kind = 'old'")
    oldest = await runtime.fetchval("select min(at) > now() - interval '7 days' from operon.supervision_events")
    monkeypatch.setattr(supervision, "EVENTS_MAX", 20)
    await runtime.executor.look_ups.ask(sweep)

    assert 60 <= young <= 70
    assert oldest
    assert await runtime.fetchval("select count(*) from operon.supervision_events") <= 20


async def test_what_a_gone_executor_said_is_swept_away(runtime: TestRuntime) -> None:
    await runtime.execute("insert into operon.executor_snapshots (executor, at, body) values (999999, now(), '{}')")

    await runtime.executor.look_ups.ask(supervision.sweep)

    assert await runtime.fetchval("select count(*) from operon.executor_snapshots where executor = 999999") == 0


async def test_an_event_with_a_text_that_postgres_does_not_take_is_written_without_it(runtime: TestRuntime) -> None:
    runtime.executor.events.record(Kind.ZOMBIE, "a\x00b\ud800", data={"name": "c\x00"})

    event = await until_event(runtime, Kind.ZOMBIE)

    assert event["text"] == "ab?"


async def test_every_event_is_a_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "operon.supervision"):
        async with TestRuntime(__name__, check_replay=False) as runtime:
            number = runtime.executor.incarnation.number

    (line,) = [record for record in caplog.records if getattr(record, "event", None) == "started"]
    assert (line.levelname, getattr(line, "executor", None)) == ("INFO", number)


async def test_a_storm_of_events_is_bounded_without_waiting_for_the_sweep(
    runtime: TestRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervision, "EVENTS_MAX", 100)
    monkeypatch.setattr(events, "PRUNE_EVERY", 500)
    for number in range(1_500):
        runtime.executor.events.record(Kind.BACKED_OFF, str(number))

    await runtime.executor.events.flush()

    assert await runtime.fetchval("select count(*) from operon.supervision_events") <= 100 + 500
    assert await runtime.fetchval("select text from operon.supervision_events order by id desc limit 1") == "1499"


async def test_the_executor_that_cleans_up_the_dead_cleans_up_events_too(monkeypatch: pytest.MonkeyPatch) -> None:
    async with TestRuntime(__name__, check_replay=False, poll_seconds=0.1) as runtime:
        await until_event(runtime, Kind.STARTED)
        await runtime.execute(
            "insert into operon.supervision_events (at, kind, path) values (now() - interval '8 days', 'old', 'operon')"
        )
        monkeypatch.setattr(recovery, "SWEEP_SECONDS", 0.0)

        async with asyncio.timeout(60):
            while await runtime.fetchval("select count(*) from operon.supervision_events where kind = 'old'"):  # noqa: ASYNC110 - no bell rings
                await asyncio.sleep(0.02)
