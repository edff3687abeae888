"""A tree of supervised workflows goes on wherever its processes are killed, and whoever watches is told once.

A workflow watches a supervisor of a supervisor; children fail and are started again, one is given up, one is cancelled
with its parent and one is waited for. The process dies at any of its messages to Postgres, or all processes at once.
"""

from __future__ import annotations

import asyncio
from uuid import uuid4

import msgspec
import pytest

from tests.guarantees.worker import application
from tests.guarantees.worker.case import Case, Server, kill
from tests.guarantees.worker.life import Start
from tests.guarantees.worker.sites import ANY, Site
from tests.guarantees.worker.sweep import sweep

pytestmark = [pytest.mark.timeout(600), pytest.mark.own_parking]

BEGIN = "flush start oversee"
COMMITTING = ("flush", "commit")


@pytest.mark.long
@pytest.mark.parametrize("park_after_seconds", [0, 5])
async def test_a_kill_at_any_commit_of_a_tree_changes_nothing(server: Server, park_after_seconds: int) -> None:
    async with server.case("undisturbed", park_after_seconds=park_after_seconds) as case:
        starts = [Start("oversee", uuid4())]
        assert await case.live(starts) == 0
        await check(case)
        labels = case.labels(0)[case.labels(0).index(BEGIN) :]
    commits = [nth for nth, label in enumerate(labels, 1) if label.startswith(COMMITTING)]
    places = [Site(ANY, when, nth, since=BEGIN) for nth in commits for when in ("before", "after")]
    places += [Site(ANY, "before", nth, since=BEGIN) for nth in range(1, len(labels), 7) if nth not in commits]
    struck = 0

    async def killed_once(site: Site) -> None:
        nonlocal struck
        async with server.case(str(site), park_after_seconds=park_after_seconds) as case:
            starts = [Start("oversee", uuid4())]
            code = await case.live(starts, site)
            assert code in (-9, 0)  # a run with fewer messages ends before its turn
            struck += code == -9
            assert await case.live(case.again(starts)) == 0
            await check(case)

    await sweep(places, killed_once)

    assert struck > len(places) / 2


@pytest.mark.long
async def test_a_lost_connection_at_any_message_of_a_tree_changes_nothing(server: Server) -> None:
    """The process lives, and cannot know what became of its monitors and ends. It finds out."""
    places = [Site(ANY, "after", nth, "CUT", since=BEGIN) for nth in range(1, 120, 6)]

    async def cut_once(site: Site) -> None:
        async with server.case(str(site), park_after_seconds=0) as case:
            assert await case.live([Start("oversee", uuid4())], site) == 0
            await check(case)

    await sweep(places, cut_once)


async def test_a_tree_survives_the_death_of_every_process(server: Server) -> None:
    async with server.case("every process", park_after_seconds=0) as case:
        gates = [case.withhold(life, "charge") for life in (0, 1)]
        processes = [case.begin([Start("oversee", uuid4())], stay=True)]
        await case.heard(lambda: len(case.calls(0)) >= 3)  # all shifts of the tree are in the middle of it
        processes.append(case.begin([], stay=True))
        for process in processes:
            kill(process)
        await asyncio.gather(*(case.ended(process) for process in processes))
        for gate in gates:
            gate.set()
        await case.settled()
        await case.look()  # once for each life

        [uuid] = [news.workflow for news in case.news(0)]
        assert await case.live([Start("oversee", uuid, begin=False)]) == 0

        await check(case)


async def check(case: Case) -> None:
    """Everybody has ended as if nothing had been, everyone was told once, and nothing is left."""
    await case.look()
    rows = await case.connection.fetch("select name, status, count(*) from operon.readable_workflows group by 1, 2")
    assert {(row[0], row[1]): row[2] for row in rows} == application.ENDS_OF_OVERSEE, f"{case}: {rows}"
    output = await case.connection.fetchval("select output from operon.workflows where name = 'oversee'")
    assert sorted(msgspec.json.decode(output)) == ["office SUCCESS 0", "office SUCCESS 1"], f"{case}: {output}"
    for left in ("monitors", "notifications", "dead_letters", "waits"):
        assert await case.connection.fetchval(f"select count(*) from operon.{left}") == 0, f"{case}: {left}"
    told = await case.connection.fetch(
        "select w.name, count(*) from operon.checkpoints c join operon.workflows w using (workflow_uuid) "
        "where c.name = 'operon.down' group by 1 order by 1"
    )
    # Of both lives of c, of all of a and b, of the desk; and the overseer of its two monitors.
    assert [tuple(row) for row in told] == [("desk", 4), ("office", 3), ("oversee", 2)], f"{case}: {told}"
    holes = await case.connection.fetch(
        "select workflow_uuid from operon.checkpoints where step >= 0 group by 1 having count(*) <> max(step) + 1"
    )
    assert not holes, f"{case}: {holes}"
    case.check_calls()
    await case.check_ledger()
