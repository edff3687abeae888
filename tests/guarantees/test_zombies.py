"""A process is stopped, not dead: its lease runs out, another takes over, and then it goes on as if nothing had been.

Wherever it stopped (before a communicator, in it, after it and before its record, in a transaction that holds its
locks, in a receipt, before the record of the end), whatever it was about to write is refused, and it calls nobody any
more. It finds out that it was declared dead, begins anew under another number, and works.
"""

from __future__ import annotations

import os
import signal
from multiprocessing.context import ForkServerProcess
from uuid import UUID, uuid4

import pytest

from tests.guarantees.test_exactly_once import IN_MEMORY, PATH, each
from tests.guarantees.worker.case import Case, Server, is_stopped, kill, until
from tests.guarantees.worker.life import Start
from tests.guarantees.worker.sites import Site
from tests.guarantees.worker.sweep import sweep
from tests.guarantees.worker.witness import Call

pytestmark = pytest.mark.long

WAITING = 8  # cases at once: each waits for a lease most of the time


@pytest.mark.own_parking
async def test_a_process_that_sleeps_before_it_commits_changes_nothing_when_it_wakes(server: Server) -> None:
    """Asleep before each flush, and before each COMMIT, with its locks in its hands."""
    places = [site for site in each(PATH, "before") if site.label.startswith(("flush", "commit"))]

    async def sleeps(site: Site) -> None:
        async with server.case(f"sleeps {site}", **IN_MEMORY) as case:
            sleeper = await asleep_at(case, site)
            await wakes_up_to_another_owner(case, sleeper)

    await sweep([Site(site.label, "before", site.nth, "SIGSTOP") for site in places], sleeps, WAITING)


@pytest.mark.own_parking
async def test_a_process_that_sleeps_before_a_communicator_does_not_call_it_when_it_wakes(server: Server) -> None:
    """What came before is recorded, the answer is there, and the call is next."""
    places = [
        Site(label, "after", signal="SIGSTOP")
        for label in ("flush now + uuid4 + random", "flush entries", "flush refuse", "flush get_result + call charge")
    ]

    async def sleeps(site: Site) -> None:
        async with server.case(f"sleeps {site}", **IN_MEMORY) as case:
            await wakes_up_to_another_owner(case, await asleep_at(case, site))

    await sweep(places, sleeps, WAITING)


async def test_a_process_that_sleeps_while_it_waits_for_a_message_does_not_receive_it_when_it_wakes(
    server: Server,
) -> None:
    work = Start("receive", uuid4(), (2,))
    async with server.case("sleeps in recv") as case:
        sleeper = case.begin([work], afterwards=[AFTERWARDS])
        await case.heard(lambda: any(news.what == "started" for news in case.news(0)))
        await case.connection.execute(SEND, work.uuid, 0)
        await until(
            lambda: has_recorded(case, "charge")
        )  # it has told the world of the first, and waits for the second
        os.kill(sleeper.pid or 0, signal.SIGSTOP)
        await until(lambda: is_stopped(sleeper))
        await case.connection.execute(SEND, work.uuid, 1)

        await sleeps_over_its_work(case, sleeper, work)

        assert [news.value for news in case.news() if news.workflow == work.uuid and news.what == "result"] == [
            [0, 1]
        ] * 2
        assert await case.connection.fetchval("select count(*) from operon.notifications") == 0


@pytest.mark.own_parking
@pytest.mark.parametrize("step", ["charge", "serializable", "post"])
async def test_a_process_that_sleeps_inside_a_step_changes_nothing_when_it_wakes(server: Server, step: str) -> None:
    """A communicator whose answer comes late, and a transaction that has written and holds its locks."""
    async with server.case(f"sleeps in {step}", **IN_MEMORY) as case:
        gate = case.withhold(0, step)
        sleeper = case.begin([WORK], afterwards=[AFTERWARDS])
        await case.heard(lambda: any(call.name == step for call in case.calls(0)))
        os.kill(sleeper.pid or 0, signal.SIGSTOP)
        gate.set()

        await wakes_up_to_another_owner(case, sleeper)


@pytest.mark.own_parking
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
    async with server.case(f"both at {step}", **IN_MEMORY) as case:
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


async def has_recorded(case: Case, name: str) -> bool:
    """Whether a step of this name is recorded."""
    return bool(await case.connection.fetchval("select count(*) from operon.checkpoints where name = $1", name))


WORK = Start("everything", uuid4(), ("t",))
AFTERWARDS = Start("everything", uuid4(), ("afterwards",))
SEND = "select operon.send($1, to_json($2::integer), 'numbers')"


async def asleep_at(case: Case, site: Site) -> ForkServerProcess:
    """A process that has stopped itself."""
    sleeper = case.begin([WORK], site, afterwards=[AFTERWARDS])
    await until(lambda: is_stopped(sleeper))
    return sleeper


async def is_dead(case: Case, process: ForkServerProcess) -> bool:
    """Whether somebody has declared it dead."""
    state = await case.connection.fetchval("select state from operon.executors where pid = $1", process.pid)
    return bool(state == 2)


async def wakes_up_to_another_owner(case: Case, sleeper: ForkServerProcess) -> None:
    """Another process finishes the work; the sleeper changes nothing of it, hears the same result, and works again."""
    await sleeps_over_its_work(case, sleeper, WORK)
    for start in (WORK.uuid, *{news.workflow for news in case.news(0)}):
        await case.check_one(start)
    await case.check_ledger()
    assert len(case.results()) == 2


async def sleeps_over_its_work(case: Case, sleeper: ForkServerProcess, work: Start) -> None:
    """It sleeps until another process has taken over and finished, and then wakes: it records nothing, calls nobody."""
    other = case.begin(case.again([work]), stay=True)
    await case.heard(lambda: any(news.what == "result" for news in case.news(1)))
    await until(lambda: is_dead(case, sleeper))
    await case.look()
    done, recorded = case.outcomes[work.uuid], case.snapshots[-1]
    family = {workflow for workflow, _ in recorded}
    called = effects(case, family)

    os.kill(sleeper.pid or 0, signal.SIGCONT)
    assert await case.ended(sleeper) == 0
    kill(other)
    await case.ended(other)
    await case.settled()

    assert case.outcomes[work.uuid] == done
    assert {place for place in case.snapshots[-1] if place[0] in family} == set(recorded), "it recorded something more"
    assert effects(case, family) == called, "it called somebody when it woke"
    assert await is_back(case, sleeper), f"{case}: it did not come back under another number"


def effects(case: Case, family: set[UUID]) -> list[Call]:
    """What the world heard of the communicators of the first life. Transactions are none."""
    return [call for call in case.calls(0) if call.workflow in family and call.key != "inside"]
