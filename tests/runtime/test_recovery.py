"""What recovery leaves alone, and what it is to a client."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest

from operon import WorkflowContext, workflow
from operon.database.batch import Batch
from operon.errors import Fenced
from operon.testing import TestRuntime

# Long enough that nothing is claimed but by the looks of these tests.
NEVER = 3600.0


@workflow
async def waiting(ctx: WorkflowContext) -> str:
    return "done"


async def test_an_executor_that_drains_claims_nothing(anyio_backend: str) -> None:
    async with TestRuntime(__name__, poll_seconds=NEVER) as runtime:
        incarnation = runtime.executor.incarnation
        incarnation.draining = True  # before there is any work: its first look may still be under way
        uuid = uuid4()
        ready = "insert into operon.workflows (workflow_uuid, name, version, inputs) values ($1, 'waiting', '0', $2)"
        await runtime.execute(ready, uuid, b"{}")

        await incarnation.activator._work()  # pyright: ignore[reportPrivateUsage]

        assert await runtime.fetchval("select owner from operon.workflows where workflow_uuid = $1", uuid) is None
        incarnation.draining = False
        incarnation.activator.ring()
        assert await runtime.context.retrieve_workflow(uuid).get_result(timeout=30) == "done"


async def test_a_start_in_the_moment_in_which_the_next_incarnation_is_made_waits_for_it(anyio_backend: str) -> None:
    async with TestRuntime(__name__) as runtime:
        before = runtime.executor.incarnation
        crash = asyncio.create_task(runtime.crash())
        while runtime.executor.incarnation is before:  # noqa: ASYNC110 - the very turn in which there is another
            await asyncio.sleep(0)

        handle = await waiting(runtime.context)

        assert await handle.get_result(timeout=60) == "done"
        await crash


async def test_a_start_that_landed_as_its_incarnation_ended_is_not_made_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    async with TestRuntime(__name__, lease_seconds=2, heartbeat_seconds=0.4, poll_seconds=0.2) as runtime:
        writer = runtime.executor.incarnation._writers[0]  # pyright: ignore[reportPrivateUsage]
        flush = writer.flush

        async def landed(incarnation: int, number: int, batch: Batch, after: int | None = None) -> None:
            await flush(incarnation, number, batch, after)
            raise Fenced("nobody hears that it has landed")

        monkeypatch.setattr(writer, "flush", landed)

        handle = await waiting(runtime.context)

        assert await handle.get_result(timeout=60) == "done"
        assert await runtime.fetchval("select count(*) from operon.workflows") == 1
