"""Whoever is busy with those who come back still looks for what nobody rang for, as often as ever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import pytest

import operon
from operon.testing import TestRuntime

POLL_SECONDS = 0.5
# Farther off than what one look sees coming.
LATER_SECONDS = 3.0


@operon.workflow
async def listens(ctx: operon.WorkflowContext) -> str:
    return str(await ctx.recv("news"))


@operon.workflow
async def sleeps(ctx: operon.WorkflowContext, seconds: float) -> str:
    await ctx.sleep(seconds)
    return "slept"


@pytest.fixture
async def runtime() -> AsyncIterator[TestRuntime]:
    async with TestRuntime(__name__, poll_seconds=POLL_SECONDS, park_after_seconds=0.0) as runtime:
        yield runtime


@asynccontextmanager
async def woken_without_pause(runtime: TestRuntime) -> AsyncGenerator[None]:
    """Somebody comes back from the database at every moment."""
    stop = False

    async def wake() -> None:
        while not stop:
            handle = await listens(runtime.context)
            await runtime.context.send(handle.workflow_uuid, "hello", "news")
            assert await handle.get_result() == "hello"

    async with asyncio.TaskGroup() as wakers:
        for _ in range(16):
            wakers.create_task(wake())
        try:
            yield
        finally:
            stop = True


async def test_a_time_comes_while_others_come_back_without_pause(runtime: TestRuntime) -> None:
    async with woken_without_pause(runtime), asyncio.timeout(LATER_SECONDS + 20):
        handle = await sleeps(runtime.context, LATER_SECONDS)

        assert await runtime.context.retrieve_workflow(handle.workflow_uuid).get_result() == "slept"


async def test_work_that_nobody_rang_for_is_found_while_others_come_back_without_pause(runtime: TestRuntime) -> None:
    async with woken_without_pause(runtime), asyncio.timeout(20):
        uuid = UUID(str(await runtime.fetchval(ORPHAN)))

        assert await runtime.context.retrieve_workflow(uuid).get_result() == "slept"


ORPHAN = """
    insert into operon.workflows (workflow_uuid, name, version, inputs)
    values (gen_random_uuid(), 'sleeps', '0', convert_to('{"seconds": 0}', 'UTF8')) returning workflow_uuid
"""
