"""Why is it not running: nobody runs it, or whoever does is in doubt; as `GET /operon/supervisor?uuid=` says, or a
command where nobody is there to answer."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any
from uuid import UUID

import asyncpg
import pytest

import operon
from operon.testing import TestRuntime
from tests.cli.calls import call
from tests.supervision.facts import until_said, until_why, why
from tests.supervision.stage import STAGE, Stage, label

ALONE: dict[str, Any] = {"check_replay": False, "heartbeat_seconds": 0.2}
START = "select operon.start('waits')"


@operon.communicator(retry=None)
async def stubborn(ctx: operon.CommunicatorContext) -> None:
    STAGE[-1].called.set()
    while not STAGE[-1].may_return.is_set():
        with suppress(asyncio.CancelledError):
            await STAGE[-1].may_return.wait()


@operon.workflow
async def calls_stubborn(ctx: operon.WorkflowContext) -> None:
    await stubborn(ctx)


@operon.workflow
async def books(ctx: operon.WorkflowContext) -> None:
    await label(ctx)


@operon.workflow
async def waits(ctx: operon.WorkflowContext) -> None:
    await ctx.recv("gate", 3600)


@operon.workflow
async def breaks(ctx: operon.WorkflowContext) -> None:
    raise MemoryError("no more")


@pytest.fixture(autouse=True)
async def stage() -> AsyncIterator[Stage]:
    STAGE.append(Stage())
    yield STAGE[-1]
    STAGE[-1].may_return.set()


@asynccontextmanager
async def silent(runtime: TestRuntime) -> AsyncGenerator[None]:
    """The database of a runtime does not answer whoever asks for executors."""
    connection = await asyncpg.connect(runtime.database_url)
    try:
        async with connection.transaction():
            await connection.execute("lock table operon.executors in access exclusive mode")
            yield
    finally:
        await connection.close()


def second(runtime: TestRuntime, lease_seconds: float = 10.0) -> operon.Operon:
    """Another application on the same database."""
    return operon.Operon(
        __name__, database_url=runtime.database_url, port=0, heartbeat_seconds=0.2, lease_seconds=lease_seconds
    )


async def test_what_nobody_has_found_yet_is_ready() -> None:
    async with TestRuntime(__name__, notify="off", poll_seconds=3600, **ALONE) as runtime:
        await runtime.settled()
        uuids = sorted([await runtime.fetchval(START) for _ in range(2)])

        first, second = [await why(runtime, uuid) for uuid in uuids]

        assert (first["code"], second["code"]) == ("ready", "ready")
        assert re.fullmatch(r"Ready for [\d.]+ m?s; none is before it\.", first["text"])
        assert re.fullmatch(r"Ready for [\d.]+ m?s; 1 other before it\.", second["text"])


async def test_what_its_process_died_of_again_and_again_is_tried_alone() -> None:
    async with TestRuntime(__name__, notify="off", poll_seconds=3600, **ALONE) as runtime:
        await runtime.settled()
        uuid = await runtime.fetchval(START)
        await runtime.execute("update operon.workflows set crash_count = 3, crash_step = 0")  # as a claim counts them

        found = await why(runtime, uuid)

        assert found["code"] == "ready"
        assert ": its process died 3 times without progress of it, so it is tried alone" in found["text"]


async def test_what_there_is_no_room_for_waits_for_a_slot(stage: Stage) -> None:
    async with TestRuntime(__name__, max_live=1, **ALONE) as runtime:
        await books(runtime.context)
        await stage.called.wait()
        uuid = await runtime.fetchval(START)

        found = await until_why(runtime, uuid, "no_slot")
        stage.may_return.set()

        assert re.search(r"^Ready for [\d.]+ m?s: \S+ is at its limit of 1 live workflows\.$", found["text"])


async def test_what_is_parked_comes_back_when_there_is_room(stage: Stage) -> None:
    async with TestRuntime(__name__, max_live=1, park_after_seconds=0, **ALONE) as runtime:
        parked = await waits(runtime.context)
        await runtime.settled()
        await books(runtime.context)
        await stage.called.wait()
        await runtime.context.send(parked.workflow_uuid, 1, "gate")

        found = await until_why(runtime, parked.workflow_uuid, "no_slot")
        stage.may_return.set()

        assert "is at its limit of 1 live workflows" in found["text"]


async def test_without_an_executor_nothing_runs_and_the_last_one_is_told() -> None:
    async with TestRuntime(__name__, **ALONE) as runtime:
        number = runtime.executor.incarnation.number
        await runtime.app.__aexit__(None, None, None)
        uuid = await runtime.fetchval(START)

        shown = await call("workflow", "show", str(uuid), "--json", "--database-url", runtime.database_url)
        await runtime.app.__aenter__()

        found, last = shown.json["why"], rf"The last, \S+#{number}, left at \d\d:\d\d:\d\d\."
        assert found["code"] == "no_executor"
        assert re.fullmatch(rf"Ready for [\d.]+ m?s: no executor is alive\. {last}", found["text"])


async def test_without_its_code_nothing_runs() -> None:
    async with TestRuntime(__name__, **ALONE) as runtime:
        await until_said(runtime, runtime.executor.incarnation.number, lambda said: "waits" in said.names)
        uuid = await runtime.fetchval("select operon.start('gone')")

        found = await why(runtime, uuid)

        assert found["code"] == "no_code"
        assert found["text"] == "No executor has an operation named `gone`. It runs when the code is back."


async def test_an_owner_whose_lease_is_old_is_in_doubt(stage: Stage) -> None:
    async with TestRuntime(__name__, lease_seconds=3600, **ALONE) as runtime, second(runtime, 3600) as other:
        handle = await books(other.context())
        await stage.called.wait()
        number = other.executor.incarnation.number
        await until_said(runtime, number, lambda said: said.live == 1)
        await other.executor.incarnation.lease.close()
        await runtime.execute(
            "update operon.executors set lease_until = now() + interval '20 min' where incarnation = $1", number
        )

        found = await why(runtime, handle.workflow_uuid)
        stage.may_return.set()

        assert found["code"] == "owner_suspect"
        assert re.fullmatch(
            rf"Owned by \S+#{number}, whose lease is 40 min old; it moves at the latest in \d+ min\.", found["text"]
        )


async def test_an_owner_that_drains_finishes_what_it_calls(stage: Stage) -> None:
    async with TestRuntime(__name__, **ALONE) as runtime:
        other = second(runtime)
        await other.__aenter__()
        handle = await books(other.context())
        await stage.called.wait()
        ends = asyncio.ensure_future(other.__aexit__(None, None, None))

        found = await until_why(runtime, handle.workflow_uuid, "owner_draining")
        stage.may_return.set()
        await ends

        assert re.fullmatch(r"\S+ is draining: it finishes `label`, then another executor takes it\.", found["text"])


async def test_an_earlier_life_that_did_not_stop_is_told() -> None:
    async with TestRuntime(__name__, **ALONE) as runtime:
        handle = await calls_stubborn(runtime.context)
        await STAGE[-1].called.wait()
        await runtime.execute("insert into operon.suspensions (name, crashes) values ('calls_stubborn', 1)")
        runtime.executor.incarnation.crowds.by_name["calls_stubborn"].stop_timeout = 0.05
        await runtime.crash()

        held = await until_why(runtime, handle.workflow_uuid, "zombie")
        await runtime.execute("select operon.lift('calls_stubborn')")
        runs = await until_why(runtime, handle.workflow_uuid, "running")
        STAGE[-1].may_return.set()

        number = runtime.executor.incarnation.number
        stop = rf"\S+#{number} did not stop when told"
        assert re.fullmatch(rf"{stop}; it is fenced and another life takes over\.", held["text"])
        assert runs["text"].startswith("Runs `stubborn` on ")
        assert re.search(rf"\. An earlier life of it on {stop}; nothing of that one counts\.$", runs["text"])


async def test_what_crashed_says_when_its_next_life_begins() -> None:
    async with TestRuntime(__name__, crash_budget=3, **ALONE) as runtime:
        runtime.executor.incarnation.jitter = lambda: 1.0
        handle = await breaks(runtime.context)

        found = await until_why(runtime, handle.workflow_uuid, "crashed")

        assert re.fullmatch(
            r"Its actor crashed on \S+ \(`MemoryError`\), [12] of 3 without progress; restarts at \S+\.", found["text"]
        )


async def test_a_suspended_name_says_when_one_is_tried() -> None:
    async with TestRuntime(__name__, suspend_after=2, **ALONE) as runtime:
        handles = [await breaks(runtime.context) for _ in range(2)]

        found = await until_why(runtime, handles[0].workflow_uuid, "suspended")

        assert re.fullmatch(
            r"`breaks` is suspended for [\d.]+ m?s: 2 workflows crashed\. The canary tries at \S+\.", found["text"]
        )


async def test_while_the_database_is_away_that_is_said_of_any_workflow() -> None:
    async with TestRuntime(__name__, **ALONE) as runtime:
        live, unknown = await waits(runtime.context), UUID(int=7)
        await runtime.settled()
        async with silent(runtime):
            found = [await until_why(runtime, uuid, "database") for uuid in (live.workflow_uuid, unknown)]
        back = await until_why(runtime, live.workflow_uuid, "recv")

        assert all("The database has not answered for" in each["text"] for each in found)
        assert back["code"] == "recv"
