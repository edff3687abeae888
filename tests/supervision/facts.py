"""Waiting for what the tests of supervision look for."""

from __future__ import annotations

import asyncio
from typing import Any

from operon.runtime.events import Kind
from operon.testing import TestRuntime


async def until_event(runtime: TestRuntime, kind: Kind) -> Any:
    """The first event of a kind, when it is written."""
    async with asyncio.timeout(60):
        while True:
            rows = await runtime.fetch(
                "select * from operon.supervision_events where kind = $1 order by id limit 1", kind.value
            )
            if rows:
                return rows[0]
            await asyncio.sleep(0.02)
