"""Waiting for what the tests of supervision look for, and asking for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import UUID

from operon.database import supervision
from operon.database.supervision import Said
from operon.http.supervisor import PATH
from operon.runtime.events import Kind
from operon.testing import TestRuntime

FROM_HERE = {"client": ("127.0.0.1", 50_000)}


async def until_event(runtime: TestRuntime, kind: Kind) -> Any:
    """The first event of a kind, when it is written."""
    query = "select * from operon.supervision_events where kind = $1 order by id limit 1"
    async with asyncio.timeout(60):
        while True:
            rows = await runtime.fetch(query, kind.value)
            if rows:
                return rows[0]
            await asyncio.sleep(0.02)


async def until_said(runtime: TestRuntime, executor: int, wanted: Callable[[Said], object]) -> None:
    """Waits until an executor has said such a thing of itself."""
    query = "select body from operon.executor_snapshots where executor = $1"
    async with asyncio.timeout(60):
        while True:
            said = supervision.read(await runtime.fetchval(query, executor))
            if said is not None and wanted(said):
                return
            await asyncio.sleep(0.02)


async def get(runtime: TestRuntime, **query: Any) -> Any:
    """What the supervisor's page says to this machine."""
    client = runtime.app.quart.test_client()
    arguments = {name: str(value) for name, value in query.items()}
    response = await client.get(PATH, query_string=arguments, scope_base=FROM_HERE)
    assert response.status_code == 200, await response.get_data(as_text=True)
    return await response.get_json()


async def why(runtime: TestRuntime, workflow_uuid: UUID) -> Any:
    """Why a workflow is where it is, as the supervisor's page says."""
    return (await get(runtime, uuid=workflow_uuid, depth=0))["workflow"]["why"]


async def until_why(runtime: TestRuntime, workflow_uuid: UUID, code: str) -> Any:
    """The same, once the reason is this one."""
    said = None
    try:
        async with asyncio.timeout(60):
            while said is None or said["code"] != code:
                await asyncio.sleep(0.02)
                said = await why(runtime, workflow_uuid)
    except TimeoutError:
        raise AssertionError(f"not {code}, but {said}") from None
    return said
