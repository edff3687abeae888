"""All that this benchmark knows of anybody's schema: how many of their workflows are finished, waiting, parked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

POLL_SECONDS = 0.02
POLL_SHARE = 0.05  # of the time at most is spent on asking: counting a million rows is work too


async def operon_finished(connection: Any) -> int:
    count: int = await connection.fetchval("select count(*) from operon.workflows where status = 1")  # SUCCESS
    return count


async def operon_parked(connection: Any) -> int:
    count: int = await connection.fetchval(
        "select count(*) from operon.workflows where status = 0 and wait_kind is not null"
    )
    return count


async def operon_predecessor_is_dead(connection: Any) -> bool:
    """Whether of W6's two executors only the later one is not declared dead; asked when it is up."""
    alive: int = await connection.fetchval("select count(*) from operon.executors where state <> 2")
    return alive <= 1


async def dbos_finished(connection: Any) -> int:
    count: int = await connection.fetchval("select count(*) from dbos.workflow_status where status = 'SUCCESS'")
    return count


async def until(count: Callable[[], Awaitable[int]], wanted: int) -> None:
    """Asks until there are so many. Rows are all that two frameworks have in common, and no event comes from them."""
    while True:
        begun = time.perf_counter()
        if await count() >= wanted:
            return
        await asyncio.sleep(max(POLL_SECONDS, (time.perf_counter() - begun) / POLL_SHARE))
