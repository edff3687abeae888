"""Promise: a sleep ends when it was to end, however often its process dies: not early, and not late by more than it
takes to find out that the process is gone."""

from __future__ import annotations

from functools import partial
from uuid import uuid4

import pytest

from tests.guarantees.worker.case import Case, Server, kill, until
from tests.guarantees.worker.life import SETTINGS, Start

pytestmark = [pytest.mark.long, pytest.mark.own_parking]

SLEPT = """
    select convert_from(c.output, 'UTF8')::float8 as due, l.value::float8 as woke
    from operon.checkpoints c join ledger l using (workflow_uuid) where c.name = 'sleep'
"""
OWNED = """
    select exists (
        select from operon.workflows w join operon.executors e on e.incarnation = w.owner
        where e.pid = $1 and (w.wait_kind is not null) = $2
    )
"""
KILLS = 5


@pytest.mark.parametrize("parked", [True, False], ids=["parked", "in memory"])
async def test_a_sleep_over_five_kills_ends_once_and_when_it_was_to_end(server: Server, parked: bool) -> None:
    async with server.case("sleep", park_after_seconds=0 if parked else 3600, poll_seconds=0.3) as case:
        work = Start("nap", uuid4(), (6.0,))
        for _ in range(KILLS):
            process = case.begin(case.again([work]), stay=True)
            # A parked sleeper that a process takes over stays parked until it is time.
            if process is case.processes[0] or not parked:
                await until(partial(owned, case, process.pid, parked))
            else:
                await until(partial(registered, case, process.pid))
            kill(process)
            await case.ended(process)
            await case.settled()
        assert await case.connection.fetch(SLEPT) == [], "it woke before the last life began"

        assert await case.live(case.again([work])) == 0

        ((due, woke),) = await case.connection.fetch(SLEPT)
        assert due <= woke <= due + SETTINGS["lease_seconds"] + 1
        assert await case.connection.fetchval("select count(*) from ledger") == 1


async def owned(case: Case, pid: int | None, parked: bool) -> bool:
    """Whether a process has the workflow, in memory or parked."""
    return bool(await case.connection.fetchval(OWNED, pid, parked))


async def registered(case: Case, pid: int | None) -> bool:
    """Whether a process holds its session lock, so that its death is seen."""
    return bool(
        await case.connection.fetchval(
            "select exists (select from operon.executors where pid = $1 and session_locked_at is not null)", pid
        )
    )
