"""A process is stopped, not dead: its lease runs out, another takes over, and then it goes on as if nothing had been.

Whatever it was about to write is refused. It finds out that it was declared dead, begins anew under another number, and
works.
"""

from __future__ import annotations

import os
import signal
from multiprocessing.context import ForkServerProcess
from uuid import uuid4

import pytest

from tests.guarantees.test_exactly_once import PATH, each
from tests.guarantees.worker.case import Case, Server, is_stopped, kill, until
from tests.guarantees.worker.life import Start
from tests.guarantees.worker.sites import Site
from tests.guarantees.worker.sweep import sweep

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]

WAITING = 8  # cases at once: each waits for a lease most of the time


async def test_a_process_that_sleeps_before_it_commits_changes_nothing_when_it_wakes(server: Server) -> None:
    """Asleep before each flush, and before each COMMIT, with its locks in its hands."""
    places = [site for site in each(PATH, "before") if site.label.startswith(("flush", "commit"))]

    async def sleeps(site: Site) -> None:
        async with server.case(f"sleeps {site}") as case:
            sleeper = await asleep_at(case, site)
            await wakes_up_to_another_owner(case, sleeper)

    await sweep([Site(site.label, "before", site.nth, "SIGSTOP") for site in places], sleeps, WAITING)


@pytest.mark.parametrize("step", ["charge", "serializable", "post"])
async def test_a_process_that_sleeps_inside_a_step_changes_nothing_when_it_wakes(server: Server, step: str) -> None:
    """A communicator whose answer comes late, and a transaction that has written and holds its locks."""
    async with server.case(f"sleeps in {step}") as case:
        gate = case.withhold(0, step)
        sleeper = case.begin([WORK], afterwards=[Start("everything", uuid4(), ("afterwards",))])
        await case.heard(lambda: any(call.name == step for call in case.calls(0)))
        os.kill(sleeper.pid or 0, signal.SIGSTOP)
        gate.set()

        await wakes_up_to_another_owner(case, sleeper)


@pytest.mark.parametrize(
    ("site", "step"),
    [
        (Site("commit with checkpoint serializable", signal="SIGSTOP"), "serializable"),
        (Site("flush post", signal="SIGSTOP"), "post"),
        (Site("flush charge", signal="SIGSTOP"), "charge"),
    ],
    ids=str,
)
async def test_a_process_that_wakes_while_the_new_owner_is_at_the_same_step_records_nothing(
    server: Server, site: Site, step: str
) -> None:
    """The new owner has recorded nothing yet, so no primary key is in the way: only the fence is."""
    async with server.case(f"both at {step}") as case:
        gate = case.withhold(1, step)
        sleeper = await asleep_at(case, site)
        other = case.begin([], stay=True)
        await case.heard(lambda: any(call.name == step for call in case.calls(1)))
        await case.look()
        recorded = case.snapshots[-1]

        os.kill(sleeper.pid or 0, signal.SIGCONT)
        await until(lambda: is_back(case, sleeper))
        await until(lambda: has_sent_more(case, site.label))
        await case.look()

        # What the sleeper does under its new number is another workflow's.
        assert {place for place in case.snapshots[-1] if place[0] == WORK.uuid} == set(recorded)
        gate.set()
        assert await case.ended(sleeper) == 0
        kill(other)
        await case.ended(other)
        await case.settled()
        for start in {news.workflow for news in case.news(0)}:
            await case.check_one(start)
        await case.check_ledger()


async def has_sent_more(case: Case, label: str) -> bool:
    """Whether the sleeper has gone on after the message that it slept before."""
    labels = case.labels(0)
    return len(labels) > labels.index(label) + 1


async def is_back(case: Case, process: ForkServerProcess) -> bool:
    """Whether it has another number."""
    numbers = await case.connection.fetchval("select count(*) from operon.executors where pid = $1", process.pid)
    return bool(numbers == 2)


WORK = Start("everything", uuid4(), ("t",))


async def asleep_at(case: Case, site: Site) -> ForkServerProcess:
    """A process that has stopped itself."""
    sleeper = case.begin([WORK], site, afterwards=[Start("everything", uuid4(), ("afterwards",))])
    await until(lambda: is_stopped(sleeper))
    return sleeper


async def is_dead(case: Case, process: ForkServerProcess) -> bool:
    """Whether somebody has declared it dead."""
    state = await case.connection.fetchval("select state from operon.executors where pid = $1", process.pid)
    return bool(state == 2)


async def wakes_up_to_another_owner(case: Case, sleeper: ForkServerProcess) -> None:
    """Another process finishes the work; the sleeper changes nothing of it, hears the same result, and works again."""
    other = case.begin(case.again([WORK]), stay=True)
    await case.heard(lambda: any(news.what == "result" for news in case.news(1)))
    await until(lambda: is_dead(case, sleeper))
    await case.look()
    done, recorded = case.outcomes[WORK.uuid], case.snapshots[-1]

    os.kill(sleeper.pid or 0, signal.SIGCONT)
    assert await case.ended(sleeper) == 0
    kill(other)
    await case.ended(other)
    await case.settled()

    assert case.outcomes[WORK.uuid] == done
    family = {workflow for workflow, _ in recorded}
    assert {place for place in case.snapshots[-1] if place[0] in family} == set(recorded), "it recorded something more"
    for start in (WORK.uuid, *{news.workflow for news in case.news(0)}):
        await case.check_one(start)
    await case.check_ledger()
    assert await is_back(case, sleeper), f"{case}: it did not come back under another number"
    assert len(case.results()) == 2
