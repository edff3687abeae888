"""`operon top`, and the sentence of `operon workflow show`: what a command line tells, from the database alone."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

import operon
from operon.cli import top
from operon.database.supervision import Node
from operon.runtime.events import Kind
from operon.testing import TestRuntime
from tests.cli.calls import Result, call
from tests.supervision.facts import until_event, until_said

HOSTILE = "gone\x1b[2J"


@operon.workflow
async def waits(ctx: operon.WorkflowContext) -> None:
    await ctx.recv("gate", 3600)


@pytest.fixture
async def runtime() -> AsyncIterator[TestRuntime]:
    async with TestRuntime(__name__, check_replay=False, park_after_seconds=3600, heartbeat_seconds=0.2) as runtime:
        yield runtime


async def look(runtime: TestRuntime, *arguments: str) -> Result:
    return await call("top", *arguments, "--database-url", runtime.database_url)


async def test_one_look_tells_of_executors_and_events(runtime: TestRuntime) -> None:
    await waits(runtime.context)
    number = runtime.executor.incarnation.number
    await until_said(runtime, number, lambda said: said.live == 1)
    await until_event(runtime, Kind.STARTED)

    shown = await look(runtime, "--once")

    assert shown.code == 0
    assert "1 of 20,000" in shown.out
    assert f"executor {number} started" in shown.out
    (line,) = [line for line in shown.out.splitlines() if "1 of 20,000" in line]
    assert line.split()[:2] == [str(number), "alive"]


async def test_as_json_it_tells_everything_that_was_said(runtime: TestRuntime) -> None:
    number = runtime.executor.incarnation.number
    await until_said(runtime, number, lambda said: said.tree.name == "operon")

    seen = (await look(runtime, "--json")).json

    (executor,) = seen["executors"]
    assert (executor["incarnation"], executor["state"]) == (number, "alive")
    assert executor["said"]["tree"]["children"][-1]["name"] == f"executor-{number}"
    assert seen["parked"]["estimate"] is True
    assert seen["suspended"] == []


async def test_what_is_in_trouble_is_listed_with_its_last_error(runtime: TestRuntime) -> None:
    seen = await top.looked(runtime.database_url)
    node = Node("operon", "running", children=(Node("http", "restarting", last_error="no", backoff_until=5.0),))

    rows = list(top.troubled(node, 1.0, ""))

    assert [(str(row[0]), str(row[1]), row[2], row[3]) for row in rows] == [
        ("operon/http", "restarting", "4.0 s", "no")
    ]
    assert list(top.troubles(seen)) == []


async def test_what_a_host_calls_itself_steers_no_terminal(runtime: TestRuntime) -> None:
    await runtime.execute(
        "insert into operon.executors (host, pid, version, lease_until) values ($1, 7, '0', now() + interval '1 hour')",
        HOSTILE,
    )

    shown = await look(runtime, "--once")

    assert "\x1b" not in shown.out
    assert "gone\\x1b[2J:7" in shown.out


async def test_a_database_that_is_not_there_is_told_in_one_line() -> None:
    shown = await call("top", "--once", "--database-url", "postgresql://nobody:secret@127.0.0.1:1/none")

    assert shown.code == 1
    assert "cannot be used" in shown.err
    assert "secret" not in shown.err


async def test_a_workflow_is_shown_with_the_reason_that_it_waits(runtime: TestRuntime) -> None:
    handle = await waits(runtime.context)
    number = runtime.executor.incarnation.number
    await until_said(runtime, number, lambda said: said.waiting == 1)
    arguments = ("workflow", "show", str(handle.workflow_uuid), "--database-url", runtime.database_url)

    for_people, for_scripts = await call(*arguments), await call(*arguments, "--json")

    assert "Waits for a message on `gate`" in for_people.out
    assert for_scripts.json["why"]["code"] == "recv"
