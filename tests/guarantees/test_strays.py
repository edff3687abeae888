"""Promise: whatever an executor owns it runs, or gives back; also when it never heard that it owns it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

import operon
from operon.database import checkpoints, workflows
from operon.runtime import strays
from operon.testing import TestRuntime
from tests.guarantees.worker.case import until

TERMINATE = "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid = $1"
START = """select operon.start('calls', '{"name": "Ada"}')"""
# What a claim leaves that reaches the server late.
CLAIMED = """
    insert into operon.workflows (workflow_uuid, owner, epoch, name, version, inputs)
    select gen_random_uuid(), $1, 2, 'calls', '0', convert_to('{"name":"Ada"}', 'UTF8') returning workflow_uuid
"""

called: list[str] = []
go_on = asyncio.Event()


@operon.communicator(retry=None)
async def call(ctx: operon.CommunicatorContext, name: str) -> str:
    called.append(name)
    await go_on.wait()
    return name


@operon.workflow
async def calls(ctx: operon.WorkflowContext, name: str) -> str:
    return await call(ctx, name)


@pytest.fixture(autouse=True)
def nobody_waits() -> None:
    called.clear()
    go_on.set()


def losing(runtime: TestRuntime, answers: Callable[..., Any], *, heard: bool, cuts: list[str]) -> Callable[..., Any]:
    """A question to the database whose session is terminated once: after it was answered, or before it is asked."""

    async def ask(connection: Any, *args: Any) -> Any:
        if cuts:
            return await answers(connection, *args)
        cuts.append("cut")
        answer = await answers(connection, *args) if heard else None
        await runtime.fetchval(TERMINATE, connection.get_server_pid())
        await connection.fetchval("select 1")  # raises what a lost connection raises
        return answer

    return ask


@pytest.mark.parametrize("before_its_history", [False, True])
async def test_a_workflow_is_run_although_the_connection_was_lost_with_which_it_was_claimed(
    monkeypatch: pytest.MonkeyPatch, before_its_history: bool
) -> None:
    where, name = (checkpoints, "history") if before_its_history else (workflows, "claim")
    async with TestRuntime(__name__) as runtime:
        cuts: list[str] = []
        lost = losing(runtime, getattr(where, name), heard=not before_its_history, cuts=cuts)
        monkeypatch.setattr(where, name, lost)

        uuid = UUID(str(await runtime.fetchval(START)))

        async with asyncio.timeout(20):
            assert await runtime.context.retrieve_workflow(uuid).get_result() == "Ada"
        assert cuts
        assert called == ["Ada"]


async def test_what_was_claimed_after_nobody_asked_for_it_any_more_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strays, "LOOK_SECONDS", 0.1)
    async with TestRuntime(__name__) as runtime:
        number = runtime.executor.incarnation.number

        uuid = UUID(str(await runtime.fetchval(CLAIMED, number)))

        async with asyncio.timeout(20):
            assert await runtime.context.retrieve_workflow(uuid).get_result() == "Ada"


async def test_two_looks_that_are_close_together_count_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who rings for work at every moment must not take a workflow from where it is just coming to life."""
    async with TestRuntime(__name__) as runtime:
        incarnation = runtime.executor.incarnation
        uuid = UUID(str(await runtime.fetchval(CLAIMED, incarnation.number)))
        looks = strays.Strays(incarnation)
        looks.doubt()

        async with incarnation.look_ups.connection() as connection:
            monkeypatch.setattr(strays, "APART_SECONDS", 0.0)
            await looks.look(connection)
            monkeypatch.setattr(strays, "APART_SECONDS", 30.0)
            await looks.look(connection)
            early = uuid in incarnation.endings.unsettled
            monkeypatch.setattr(strays, "APART_SECONDS", 0.0)
            await looks.look(connection)

        assert not early
        assert await runtime.context.retrieve_workflow(uuid).get_result() == "Ada"


async def test_what_lives_is_not_given_back_however_often_somebody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strays, "LOOK_SECONDS", 0.0)
    looks = 0
    real = workflows.running

    async def running(*args: Any) -> Any:
        nonlocal looks
        looks += 1
        return await real(*args)

    monkeypatch.setattr(workflows, "running", running)
    go_on.clear()
    async with TestRuntime(__name__) as runtime:
        handle = await calls(runtime.context, "Ada")
        await until(lambda: asyncio.sleep(0, bool(called)))
        before = looks
        while looks < before + 4:
            runtime.executor.incarnation.activator.ring()
            await asyncio.sleep(0)

        go_on.set()

        assert await handle.get_result() == "Ada"
        assert await runtime.fetchval("select epoch from operon.workflows") == 1
        assert called == ["Ada"]
