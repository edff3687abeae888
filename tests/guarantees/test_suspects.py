"""Promise: that suspects are tried one at a time stops nobody for good, not even one that waits for another suspect."""

from __future__ import annotations

import asyncio

import operon
from operon.database.connection import connect
from operon.testing import TestRuntime
from tests.acceptance.facts import until as came

FAMILIES = 6

STEPS = "select count(*) from operon.checkpoints"
# As if their processes had died at these places before, again and again.
SUSPECT = "update operon.workflows set crash_count = $1, crash_step = operon.progress(workflow_uuid)"

gate = asyncio.Event()


@operon.communicator
async def pass_gate(ctx: operon.CommunicatorContext) -> None:
    await gate.wait()


@operon.workflow
async def child(ctx: operon.WorkflowContext) -> str:
    await pass_gate(ctx)
    return "done"


@operon.workflow
async def parent(ctx: operon.WorkflowContext) -> str:
    return await (await child(ctx)).get_result()


async def test_a_suspect_that_waits_for_another_one_does_not_keep_it_from_being_tried() -> None:
    gate.clear()
    async with TestRuntime(__name__, poll_seconds=0.1, park_after_seconds=600) as runtime:
        handles = [await parent(runtime.context) for _ in range(FAMILIES)]
        async with asyncio.timeout(60):
            while await runtime.fetchval(STEPS) < FAMILIES:  # noqa: ASYNC110 - a row rings no bell
                await asyncio.sleep(0.01)
        await runtime.execute(SUSPECT, 2)
        await runtime.crash()
        gate.set()

        assert [await handle.get_result(timeout=60) for handle in handles] == ["done"] * FAMILIES


async def test_the_next_suspect_is_tried_when_what_the_last_one_recorded_is_durable() -> None:
    gate.clear()
    async with TestRuntime(__name__, poll_seconds=600, park_after_seconds=600) as runtime:
        handles = [await child(runtime.context) for _ in range(2)]
        await runtime.execute(SUSPECT, 2)
        await runtime.crash()
        incarnation = runtime.executor.incarnation
        await came(lambda: len(incarnation.live) == 1)
        (tried,) = incarnation.live.values()
        other = await connect(runtime.database_url)
        await other.execute("begin; select from operon.executors for update")  # nothing is flushed

        gate.set()
        await came(lambda: tried.journal is not None and tried.journal.grown)
        incarnation.activator.ring()
        await came(lambda: not incarnation.activator.busy)
        living = dict(incarnation.live)
        await other.execute("rollback")
        await other.close()
        await came(lambda: not incarnation.live)
        incarnation.activator.ring()

        assert living == {tried.workflow_uuid: tried}
        assert [await handle.get_result(timeout=60) for handle in handles] == ["done", "done"]


async def test_who_was_killed_beside_others_does_not_have_its_name_suspended() -> None:
    """However many there are: nobody knows who it was that took the process down."""
    gate.clear()
    async with TestRuntime(__name__, poll_seconds=0.1, suspend_after=3) as runtime:
        handles = [await child(runtime.context) for _ in range(FAMILIES)]
        await runtime.execute(SUSPECT, 3)
        await runtime.crash()
        gate.set()

        assert [await handle.get_result(timeout=60) for handle in handles] == ["done"] * FAMILIES
        assert await runtime.fetchval("select count(*) from operon.crashers") == 0
