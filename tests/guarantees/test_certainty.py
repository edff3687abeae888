"""Promise: a process that lives and is taken for gone calls nobody whom another has called since.

Peers know at once that a process is gone: its session ends, and with it the lock of its executor. But a session may end
alone (an operator terminates it, a firewall forgets it) while its process, which has its lease, is busy and does not
see that. Until it knows better it is not certain that it is still alive to the others.
"""

from __future__ import annotations

import asyncio
import os
import threading
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from operon.database.executors import SESSION_LOCK
from operon.testing import TestRuntime
from tests.guarantees.executors import sleepwalker
from tests.guarantees.executors.process import executor
from tests.guarantees.executors.process import until as until_it_is_so

# The event loop may stand still for half a lease, and what becomes of it is not heard before the next heartbeat.
LONG: dict[str, Any] = {"lease_seconds": 60, "heartbeat_seconds": 20}

# The session that holds the lock of the executor of this process.
HOLDER = f"""
select l.pid, e.incarnation from operon.executors e
join pg_locks l on l.locktype = 'advisory' and l.classid = {SESSION_LOCK} and l.objid = e.incarnation and l.granted
    and l.database = (select oid from pg_database where datname = current_database())
where e.pid = $1 and e.state <> 2 and e.session_locked_at is not null
"""


async def test_who_lost_its_session_while_its_loop_stood_still_does_not_call_whom_another_has_called(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sleepwalker.CALLS.clear()
    async with TestRuntime(sleepwalker, **LONG) as runtime:
        url = runtime.database_url
        await until_it_is_so(url, HOLDER, os.getpid())
        async with executor(url, 0, "sleepwalker", poll_seconds=0.1) as other:

            def stand_still(workflow_uuid: str) -> None:
                """Keeps the event loop until the other one has done all there was to do."""
                thread = threading.Thread(target=asyncio.run, args=(lose_the_session(url, UUID(workflow_uuid)),))
                thread.start()
                thread.join(30)

            monkeypatch.setattr(sleepwalker, "stand_still", stand_still)
            handle = await sleepwalker.walks(runtime.context)

            assert await handle.get_result() == other.pid
        assert sleepwalker.CALLS == []


async def lose_the_session(url: str, workflow_uuid: UUID) -> None:
    connection = await asyncpg.connect(url)
    try:
        (holder, number), *_ = await connection.fetch(HOLDER, os.getpid())
        await connection.execute("select pg_terminate_backend($1)", holder)
        await until_it_is_so(url, "select status = 1 from operon.workflows where workflow_uuid = $1", workflow_uuid)
        assert await connection.fetchval("select state = 2 from operon.executors where incarnation = $1", number)
    finally:
        await connection.close()
