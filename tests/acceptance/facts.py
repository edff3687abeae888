"""What tests of waiting wait for themselves: facts, in memory and in the database. And the database's clock, to set."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import UUID

from operon.handles import WorkflowHandle
from operon.testing import TestRuntime

CLOCK = """
create or replace function operon.clock() returns timestamptz language sql volatile
as 'select clock_timestamp() + make_interval(secs => {seconds})'
"""


async def until(fact: Callable[[], object]) -> None:
    """Waits for something that rings no bell."""
    while not fact():  # noqa: ASYNC110 - that is what it is for
        await asyncio.sleep(0.005)


async def waits_for(handle: WorkflowHandle[Any], what: str | None) -> None:
    """Waits until the status of a workflow says that it waits for this; several things in any order."""
    wanted = None if what is None else sorted(what.split("; "))
    while True:
        status = await handle.get_status()
        assert status is None or not status.status.is_finished, status
        told = None if status is None else status.waiting_for
        if (None if told is None else sorted(told.split("; "))) == wanted:
            return
        await asyncio.sleep(0.005)


async def parked(runtime: TestRuntime, *workflows: UUID) -> None:
    """Waits until these workflows are in the database only."""
    await until(lambda: not any(uuid in runtime.executor.incarnation.live for uuid in workflows))
    query = "select count(*) from operon.workflows where workflow_uuid = any ($1) and wait_kind is not null"
    assert await runtime.fetchval(query, list(workflows)) == len(workflows)


async def set_clock_ahead(runtime: TestRuntime, seconds: float) -> None:
    """Deadlines are met by the database's clock: from now on it is ahead of what it was made to be by so much."""
    await runtime.execute(CLOCK.format(seconds=float(seconds)))
    runtime.checks_replay = False  # which would measure how long they slept by the clock as it was made to be


async def checkpoints(runtime: TestRuntime, workflow_uuid: UUID) -> list[tuple[str, str, str | None]]:
    """Kind, name and output of what a workflow has recorded."""
    rows = await runtime.fetch(
        "select kind, name, output from operon.readable_checkpoints where workflow_uuid = $1 order by step",
        workflow_uuid,
    )
    return [tuple(row) for row in rows]
