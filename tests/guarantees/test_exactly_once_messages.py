"""A process is killed at every message to Postgres while its workflows correspond, and each letter arrives once.

Two workflows send to one another, receive, publish and read events, sleep, wait for what never comes, and leave memory
whenever they wait. What they say to the database comes in an order that the clock has its part in, so the places to die
at are numbers: the process dies at its first message after the start, in another case at its second, and so on. Then
another process takes over.
"""

from __future__ import annotations

from uuid import UUID, uuid4

import msgspec
import pytest

from tests.guarantees.worker import application
from tests.guarantees.worker.case import Case, Server
from tests.guarantees.worker.life import Start
from tests.guarantees.worker.sites import ANY, Site
from tests.guarantees.worker.sweep import sweep

pytestmark = [pytest.mark.long, pytest.mark.own_parking]

BEGIN = "flush start write"
COMMITTING = ("flush", "commit")


async def test_a_kill_at_any_message_of_a_correspondence_changes_nothing(server: Server) -> None:
    async with server.case("undisturbed", park_after_seconds=0) as case:
        starts = [Start("write", uuid4(), ("t",))]
        assert await case.live(starts) == 0
        await check(case, starts[0].uuid)
        labels = case.labels(0)[case.labels(0).index(BEGIN) :]
    # After a message that only asks is as good as before the next one, and there are many of those.
    commits = [nth for nth, label in enumerate(labels, 1) if label.startswith(COMMITTING)]
    places = [Site(ANY, when, nth, since=BEGIN) for nth in commits for when in ("before", "after")]
    places += [Site(ANY, "before", nth, since=BEGIN) for nth in range(1, len(labels) + 10, 5) if nth not in commits]
    struck = 0

    async def killed_once(site: Site) -> None:
        nonlocal struck
        async with server.case(str(site), park_after_seconds=0) as case:
            starts = [Start("write", uuid4(), ("t",))]
            code = await case.live(starts, site)
            assert code in (-9, 0)  # a run with fewer messages ends before its turn
            struck += code == -9
            assert await case.live(case.again(starts)) == 0
            await check(case, starts[0].uuid)

    await sweep(places, killed_once)

    assert struck > len(places) / 2


async def test_a_lost_connection_at_any_message_of_a_correspondence_changes_nothing(server: Server) -> None:
    """The process lives, and cannot know what became of its letters, receipts and parks. It finds out."""
    places = [Site(ANY, "after", nth, "CUT", since=BEGIN) for nth in range(1, 100, 5)]
    places += [Site(ANY, "before", nth, "CUT", since=BEGIN) for nth in range(2, 100, 10)]

    async def cut_once(site: Site) -> None:
        async with server.case(str(site), park_after_seconds=0) as case:
            starts = [Start("write", uuid4(), ("t",))]
            assert await case.live(starts, site) == 0
            assert case.results() == {starts[0].uuid}, f"{case}: {case.news()}"
            await check(case, starts[0].uuid)

    await sweep(places, cut_once)


async def check(case: Case, writer: UUID) -> None:
    """Both have ended as if nothing had been, and nothing of what they said is left, lost or doubled."""
    await case.look()
    family = await case.connection.fetch(
        "select workflow_uuid, name, status, output from operon.workflows order by parent nulls first"
    )
    assert [(row["name"], row["status"]) for row in family] == [("write", 1), ("read", 1)], f"{case}: {family}"
    result = msgspec.json.decode(family[0]["output"])
    facts = result["facts"]
    assert result == application.expected_of_write(facts), f"{case}: {result}"
    told = [news.value for news in case.news() if news.workflow == writer and news.what != "started"]
    assert told, f"{case}: nobody was told"
    assert all(value == result for value in told), f"{case}: {told} was told, {result} is recorded"

    for left in ("notifications", "dead_letters", "waits"):
        assert await case.connection.fetchval(f"select count(*) from operon.{left}") == 0, f"{case}: {left}"
    assert await case.connection.fetchval("select count(*) from operon.notification_keys") == 1
    events = await case.connection.fetch(
        "select name, key, convert_from(value, 'UTF8') as value from operon.events join operon.workflows using "
        "(workflow_uuid) order by name, key"
    )
    letters = [f"{facts} 1", f"{facts} 2"]
    assert [(row["name"], row["key"], msgspec.json.decode(row["value"])) for row in events] == [
        ("read", "read", letters),
        ("write", "answered", facts),
        ("write", "state", "answered"),
    ], f"{case}: {events}"

    for row in family:
        steps = await case.connection.fetch(
            "select step from operon.checkpoints where workflow_uuid = $1 and step >= 0 order by step",
            row["workflow_uuid"],
        )
        assert [step["step"] for step in steps] == list(range(len(steps))), f"{case}: a hole in {row['name']}"
    await check_world(case, letters, facts)


async def check_world(case: Case, letters: list[str], facts: str) -> None:
    """What was written and called: with what was received, once, and under one key each."""
    written = await case.connection.fetch("select what, value from ledger")
    assert [tuple(row) for row in written] == [("beside", letters[1])], f"{case}: {written}"
    await case.check_ledger()
    case.check_calls()
    assert {call.payload for call in case.calls()} == {letters[0], facts}, f"{case}: {case.calls()}"
    assert len({call.key for call in case.calls()}) == 2, f"{case}: {case.calls()}"
