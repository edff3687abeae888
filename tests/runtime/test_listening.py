"""Where an executor listens: at its database, past a pooler, or nowhere; and what goes on without."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

import operon
from operon import CommunicatorContext, Operon, WorkflowContext
from operon.config import load
from operon.database.executors import SESSION_LOCK
from operon.database.notifier import Hearing
from operon.testing import TestRuntime
from tests.database.muffler import muffler

LOCKS = """
    select count(*) from pg_locks
    where classid = $1 and objsubid = 2 and database = (select oid from pg_database where datname = current_database())
"""

NEVER = 3600.0

gates: dict[str, asyncio.Event] = {}


@operon.communicator
async def wait_at(ctx: CommunicatorContext, gate: str) -> str:
    await gates[gate].wait()
    return gate


@operon.workflow
async def gated(ctx: WorkflowContext, gate: str) -> str:
    return await wait_at(ctx, gate)


@pytest.fixture
async def deaf() -> AsyncIterator[TestRuntime]:
    async with TestRuntime(__name__, notify="off", poll_seconds=0.05) as runtime:
        yield runtime


# Of this database: on the same server others may be tested at the same time.
LISTENERS = "select count(*) from pg_stat_activity where datname = current_database() and query ~* '^listen'"


async def test_off_an_executor_takes_no_session_lock_and_holds_no_listening_connection(deaf: TestRuntime) -> None:
    assert deaf.executor.incarnation.notifier.gauges().state is Hearing.OFF
    assert await deaf.fetchval(LOCKS, SESSION_LOCK) == 0
    assert await deaf.fetchval(LISTENERS) == 0


async def test_off_a_handle_in_another_executor_is_answered_by_a_poll(deaf: TestRuntime) -> None:
    gate = str(uuid4())
    gates[gate] = asyncio.Event()
    handle = await gated(deaf.context, gate)

    url = deaf.database_url
    async with Operon(__name__, database_url=url, notify="off", poll_seconds=0.05) as other:
        there = asyncio.create_task(other.context().retrieve_workflow(handle.workflow_uuid).get_result(timeout=60))
        while not other.executor.results.awaited:  # noqa: ASYNC110 - a fact elsewhere rings no bell
            await asyncio.sleep(0)
        gates[gate].set()

        assert await there == gate


async def test_off_the_work_of_a_crashed_executor_goes_on(deaf: TestRuntime) -> None:
    gate = str(uuid4())
    gates[gate] = asyncio.Event()
    handle = await gated(deaf.context, gate)

    await deaf.crash()
    gates[gate].set()

    assert await handle.get_result(timeout=60) == gate


async def test_only_the_listening_connection_goes_to_the_direct_url() -> None:
    async with TestRuntime(__name__, notify="off") as runtime, muffler(runtime.database_url) as (direct_url, proxy):
        url = runtime.database_url
        async with Operon(__name__, database_url=url, direct_url=direct_url, poll_seconds=NEVER) as app:
            notifier = app.executor.incarnation.notifier
            while not notifier.healthy:  # noqa: ASYNC110 - a fact elsewhere rings no bell
                await asyncio.sleep(0.01)

            assert proxy.connections == 1


async def test_an_executor_whose_listener_finds_no_server_starts_and_polls() -> None:
    nowhere = "postgresql://nobody@127.0.0.1:1/nowhere"

    async with TestRuntime(__name__, direct_url=nowhere, poll_seconds=NEVER) as runtime:
        assert runtime.executor.incarnation.notifier.poll_seconds(NEVER) == 0.1


def test_notify_is_on_or_off() -> None:
    assert load(environ={"OPERON_NOTIFY": "off"}).settings.notify == "off"
    with pytest.raises(operon.ConfigurationError, match="notify"):
        load({"notify": "loud"}, environ={})


def test_the_password_in_the_direct_url_is_not_shown() -> None:
    assert "secret" not in repr(load({"direct_url": "postgresql://me:secret@host/db"}, environ={}))
