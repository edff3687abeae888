"""Promise: a process that lives and is taken for gone calls nobody whom another has called since.

Peers know at once that a process is gone: its session ends, and with it the lock of its executor. But a session may end
alone (an operator terminates it, a firewall forgets it) while its process, which has its lease for a long time yet,
does not get to see that. Until it knows better it is not certain that it is still alive to the others.
"""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from operon.database import testbed
from operon.database.executors import SESSION_LOCK
from operon.testing import TestRuntime
from tests.guarantees.executors import sleepwalker
from tests.guarantees.executors.process import executor, until

# The session that holds the lock of the executor of a process, which has said that it does.
HOLDER = f"""
select l.pid from operon.executors e
join pg_locks l on l.locktype = 'advisory' and l.classid = {SESSION_LOCK} and l.objid = e.incarnation and l.granted
    and l.database = (select oid from pg_database where datname = current_database())
where e.pid = $1 and e.state <> 2 and e.session_locked_at is not null
"""
ALIVE = "select count(*) filter (where state = 2) = 1 and count(*) = 2 from operon.executors where pid = $1"


async def test_who_lost_its_session_while_it_stood_still_does_not_call_whom_another_has_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    async with TestRuntime(sleepwalker, poll_seconds=0.1) as runtime:
        url = runtime.database_url
        monkeypatch.setenv("STOPS_ITSELF", "yes")
        async with executor(url, 0, "sleepwalker", lease_seconds=60, heartbeat_seconds=20) as sleeper:
            monkeypatch.delenv("STOPS_ITSELF")
            holder = await until(url, HOLDER, sleeper.pid)
            started = asyncio.create_task(sleeper.post("/walks"))
            while not is_stopped(sleeper.pid):  # noqa: ASYNC110 - a process rings no bell
                await asyncio.sleep(0.01)

            await testbed.fetch(url, "select pg_terminate_backend($1)", holder)
            await until(url, "select status = 1 from operon.workflows")
            os.kill(sleeper.pid, signal.SIGCONT)
            await until(url, ALIVE, sleeper.pid)

            handle = runtime.context.retrieve_workflow(await started)
            assert await handle.get_result() == os.getpid()
    assert (tmp_path / "calls").read_text().split() == [str(os.getpid())]


def is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
