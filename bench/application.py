"""Operon's side of a cell: an application around the workflow of one file, started and awaited through handles.

It runs with its defaults, as a user gets them; `OPERON_*` variables reach it, so a setting can be tried out:
`OPERON_POOL_SIZE=32 just bench --only W3`.
"""

from __future__ import annotations

from typing import Any

import operon
from bench import harness
from bench.round_trips import RoundTripCounter
from operon.operations import Workflow
from operon.runtime.loop import settle_garbage

ITEM = "Hamlet, row A, seat 1"


async def measure(task: harness.Task, namespace: str, workflow: Workflow[[str], Any]) -> None:
    """Runs the cell with a workflow of this module."""
    counter = RoundTripCounter()
    if task.count_round_trips:
        counter.install()
    app = operon.Operon(namespace, database_url=task.database_url)
    async with app:
        settle_garbage()  # as `operon start` does, whose process this stands for
        ctx = app.context()

        async def one() -> None:
            handle = await workflow(ctx, ITEM)
            await handle.get_result()

        await harness.measure(task, one, round_trips=(lambda: counter.count) if task.count_round_trips else None)
