"""A process is killed at every message that it ever sends to Postgres, and nothing happens twice or not at all.

First a run without a death lists the messages. The list has to be the one that is written here, so a new message to the
database is a failing test until somebody has put it there; and every one that is there is a place to die at: before it
is sent, and when it was answered. Then a new process takes over, and the workflow ends as if nothing had been.

The workflow of the list stays in memory. Of one that is parked whenever it waits the clock decides what it says when,
so there the places to die at are numbers: the first message after the start, the second, and so on.

What is checked of each case stands in `worker/case.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import pytest

from tests.guarantees.worker.case import Case, Server
from tests.guarantees.worker.life import Start
from tests.guarantees.worker.sites import ANY, Site, When
from tests.guarantees.worker.sweep import sweep

pytestmark = [pytest.mark.long, pytest.mark.own_parking]

IN_MEMORY: Any = {"park_after_seconds": 600}

# A process comes up. Nothing here belongs to any workflow, but somebody's may be waiting for it.
STARTUP: Sequence[str] = """
BEGIN;
prepare select pg_backend_pid()
select pg_backend_pid()
COMMIT;
prepare select current_setting('server_version_num')::int, current_setting('se
select current_setting('server_version_num')::int, current_setting('se
prepare select exists (select from pg_class c join pg_namespace n on n.oid = c
select exists (select from pg_class c join pg_namespace n on n.oid = c
prepare select number from operon.migrations order by number
select number from operon.migrations order by number
prepare executors.register
executors.register
prepare LISTEN "operon_N"
LISTEN "operon_N"
prepare LISTEN "operon_all"
LISTEN "operon_all"
prepare workflows.ring
workflows.ring
prepare executors.hold_session_lock
""".strip().split("\n")

# `everything` runs from its start to its end, and the process leaves in order.
PATH: Sequence[str] = """
prepare flush
prepare SELECT current_setting('jit') AS cur, set_config('jit', 'off', false)
SELECT current_setting('jit') AS cur, set_config('jit', 'off', false)
prepare WITH RECURSIVE typeinfo_tree( oid, ns, name, kind, basetype, elemtype,
WITH RECURSIVE typeinfo_tree( oid, ns, name, kind, basetype, elemtype,
flush start everything
flush now + uuid4 + random
flush charge
prepare operon_checkpoint as -- What a user's transaction does before
begin isolation level read committed read write
prepare insert into ledger (workflow_uuid, what, value) values ($1, $2, $3)
insert into ledger (workflow_uuid, what, value) values ($1, $2, $3)
commit with checkpoint read_committed
flush random
begin isolation level repeatable read read write
insert into ledger (workflow_uuid, what, value) values ($1, $2, $3)
commit with checkpoint repeatable_read
begin isolation level serializable read write
insert into ledger (workflow_uuid, what, value) values ($1, $2, $3)
commit with checkpoint serializable
begin isolation level serializable read only
prepare select count(*) from ledger where workflow_uuid = $1
select count(*) from ledger where workflow_uuid = $1
commit
flush entries
flush post
begin isolation level serializable read write
insert into ledger (workflow_uuid, what, value) values ($1, $2, $3)
rollback
flush refuse
begin
prepare insert into ledger values ($1, 'execute', $2)
prepare with operon_step as (insert into ledger values ($1, 'execute', $2) ret
with operon_step as (insert into ledger values ($1, 'execute', $2) ret
flush decline + insert into ledger values ($1, 'execute', $2)
commit
begin
prepare insert into ledger values ($1, 'fetchrow', $2) returning what
close_statement insert into ledger values ($1, 'execute', $2)
prepare with operon_step as (insert into ledger values ($1, 'fetchrow', $2) re
with operon_step as (insert into ledger values ($1, 'fetchrow', $2) re
flush insert into ledger values ($1, 'fetchrow', $2
commit
flush start child + child
flush random
begin
prepare insert into ledger values ($1, 'child', $2)
close_statement insert into ledger values ($1, 'fetchrow', $2) returning what
prepare with operon_step as (insert into ledger values ($1, 'child', $2) retur
with operon_step as (insert into ledger values ($1, 'child', $2) retur
flush charge + insert into ledger values ($1, 'child', $2)
commit
flush get_result + end
prepare workflows.status
workflows.status
flush get_status
prepare workflows.attach
workflows.attach
flush get_result + call charge
begin isolation level serializable read write
prepare operon_checkpoint as -- What a user's transaction does before
begin isolation level serializable read write
flush charge
insert into ledger (workflow_uuid, what, value) values ($1, $2, $3)
prepare insert into ledger (workflow_uuid, what, value) values ($1, $2, $3)
insert into ledger (workflow_uuid, what, value) values ($1, $2, $3)
commit with checkpoint beside
commit with checkpoint beside
flush call charge
flush charge + random + end
prepare executors.leave
executors.leave
""".strip().split("\n")

# These change something that others see. After any other message is as good as before the next one.
COMMITTING = ("flush", "commit", "executors.leave")

# What goes on beside all that, as often as the clock says: the heartbeat, the look for work, and, before a communicator
# that is not called shortly after another, the look at the session lock.
BESIDE = {
    "executors.hold_session_lock",
    "prepare executors.renew",
    "executors.renew",
    "prepare executors.others",
    "executors.others",
    "prepare workflows.candidates",
    "workflows.candidates",
}

# ... and, in a life of more than a second: that it still hears notifications; what operators want to know; and the poll
# for the ends of workflows, when somebody waits for one that is not in memory yet, or any more.
SELDOM = {
    "notify operon_N, 'ping:N'",
    "prepare supervision.write",
    "supervision.write",
    "prepare workflows.outcomes",
    "workflows.outcomes",
}
# What asyncpg asks on each connection that meets an array for the first time: one does for sure, the poll's may.
TYPES = {label for label in PATH if "SELECT current_setting('jit')" in label or "typeinfo_tree" in label}

# What a process says more than that when it takes over the workflow of a dead one that somebody waits for.
TAKEOVER = {
    "prepare executors.declare_dead",
    "executors.declare_dead",
    "prepare supervision.left_by",
    "supervision.left_by",
    "prepare workflows.claim",
    "workflows.claim",
    "prepare checkpoints.history",
    "checkpoints.history",
}


async def test_every_message_to_the_database_is_a_place_to_die_at(server: Server) -> None:
    """The inventory: whoever adds a message to Postgres adds it to the list above, and so to the sweeps below."""
    async with server.case("inventory", **IN_MEMORY) as case:
        starts = [Start("everything", uuid4(), ("t",))]

        code = await case.live(starts)

        assert code == 0
        beside = BESIDE | SELDOM | TYPES
        assert Counter(label for label in case.labels(0) if label not in beside) == Counter(
            label for label in [*STARTUP, *PATH] if label not in beside
        )
        assert set(case.labels(0)) >= BESIDE | TYPES
        await case.check([starts[0].uuid])


async def test_a_kill_before_and_after_every_message_changes_nothing(server: Server) -> None:
    places = each(PATH, "before")
    places += [site for site in each(PATH, "after") if site.label.startswith(COMMITTING)]
    places += [Site(label, "after") for label in sorted(BESIDE)]

    async def killed_once(site: Site) -> None:
        async with server.case(str(site), **IN_MEMORY) as case:
            await killed_at(case, site)

    await sweep(places, killed_once)


async def test_a_kill_at_any_message_of_a_life_that_is_parked_whenever_it_waits_changes_nothing(server: Server) -> None:
    begin = "flush start everything"
    async with server.case("parked", park_after_seconds=0) as case:
        assert await case.live([Start("everything", uuid4(), ("t",))]) == 0
        labels = case.labels(0)[case.labels(0).index(begin) :]
    assert any("park" in label for label in labels)
    places = [Site(ANY, "before", nth, since=begin) for nth in range(1, len(labels) + 1, 2)]
    places += [
        Site(ANY, "after", nth, since=begin) for nth, label in enumerate(labels, 1) if label.startswith(COMMITTING)
    ]
    struck = 0

    async def killed_once(site: Site) -> None:
        nonlocal struck
        async with server.case(str(site), park_after_seconds=0) as case:
            starts = [Start("everything", uuid4(), ("t",))]
            code = await case.live(starts, site)
            assert code in (-9, 0)  # a run with fewer messages ends before its turn
            struck += code == -9
            assert await case.live(case.again(starts)) == 0
            await case.check([starts[0].uuid])

    await sweep(places, killed_once)

    assert struck > len(places) / 2


async def test_a_record_that_never_arrives_is_waited_for_by_every_effect(server: Server) -> None:
    """A flush or a commit hangs while the rest of the process goes on; then it dies. Nothing has run ahead of it."""
    places = [site for site in each(PATH, "held") if site.label.startswith(("flush", "commit"))]

    async def held_once(site: Site) -> None:
        async with server.case(str(site), **IN_MEMORY) as case:
            await killed_at(case, site)

    await sweep(places, held_once)


async def test_a_connection_that_is_lost_before_or_after_any_message_changes_nothing(server: Server) -> None:
    """The process lives, and cannot know what became of its message. It finds out, and ends what it began."""
    places = [Site(site.label, "before", site.nth, "CUT") for site in each(PATH, "before")]
    places += [Site(site.label, "after", site.nth, "CUT") for site in each(PATH, "after")]
    places += [Site(label, "after", signal="CUT") for label in sorted(BESIDE)]

    async def cut_once(site: Site) -> None:
        async with server.case(str(site), **IN_MEMORY) as case:
            starts = [Start("everything", uuid4(), ("t",))]
            assert await case.live(starts, site) == 0
            assert len(case.results()) == 1, f"{case}: {case.news()}"
            await case.check([starts[0].uuid])

    await sweep(places, cut_once)


async def test_a_second_kill_at_every_message_of_the_takeover_changes_nothing(server: Server) -> None:
    first = Site("commit with checkpoint serializable", "before")
    places = [Site(label, when) for label in sorted(TAKEOVER) for when in ("before", "after")]
    places += each(STARTUP, "before")
    places += [
        Site("commit with checkpoint serializable", "after"),
        Site("flush post", "before"),
        Site("flush get_result + end", "after"),
    ]

    async def killed_twice(second: Site) -> None:
        async with server.case(f"{first}, then {second}", **IN_MEMORY) as case:
            starts = [Start("everything", uuid4(), ("t",))]
            await dies(case, starts, first)
            await dies(case, case.again(starts), second)
            assert await case.live(case.again(starts)) == 0
            await case.check([starts[0].uuid])

    await sweep(places, killed_twice)


async def test_a_connection_that_is_lost_at_any_message_of_the_takeover_changes_nothing(server: Server) -> None:
    """Whoever takes over lives, and does not know what it has taken over."""
    places = [Site(label, when, signal="CUT") for label in sorted(TAKEOVER) for when in ("before", "after")]

    async def cut_once(site: Site) -> None:
        async with server.case(str(site), **IN_MEMORY) as case:
            starts = [Start("everything", uuid4(), ("t",))]
            await dies(case, starts, Site("commit with checkpoint serializable", "before"))
            assert await case.live(case.again(starts), site) == 0
            assert len(case.results()) == 1, f"{case}: {case.news()}"
            await case.check([starts[0].uuid])

    await sweep(places, cut_once)


async def test_every_message_of_a_takeover_is_a_place_to_die_at(server: Server) -> None:
    async with server.case("inventory of a takeover", **IN_MEMORY) as case:
        starts = [Start("everything", uuid4(), ("t",))]
        await dies(case, starts, Site("commit with checkpoint serializable", "before"))

        code = await case.live(case.again(starts))

        assert code == 0
        more = set(case.labels(1)) - {*STARTUP, *PATH, *BESIDE} - SELDOM
        assert more == TAKEOVER


async def killed_at(case: Case, site: Site) -> None:
    """A life that ends there, one that takes over, and the verdict."""
    starts = [Start("everything", uuid4(), ("t",))]
    await dies(case, starts, site)
    assert await case.live(case.again(starts)) == 0
    await case.check([starts[0].uuid])


async def dies(case: Case, starts: list[Start], site: Site) -> None:
    """A life that ends at a site, and at no other place."""
    code = await case.live(starts, site)
    assert code == -9, f"{site} was not reached: exit code {code}"


def each(labels: Sequence[str], when: When) -> list[Site]:
    """A site for every one of them, the n-th of its label."""
    count: Counter[str] = Counter()
    sites: list[Site] = []
    for label in labels:
        count[label] += 1
        sites.append(Site(label, when, count[label]))
    return sites
