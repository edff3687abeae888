"""What the sentences are made of: rows as they are, and what executors said of themselves. Real workflows, and what is
said of each, are in `test_why_*`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

from operon.database import reasons
from operon.database.reasons import Told
from operon.database.supervision import LiveActor, Node, SubjectRow
from operon.testing import TestRuntime

NOW = datetime(2026, 11, 21, 14, 20, 26, tzinfo=UTC)
ONE = UUID(int=9)


def row(owner: int | None, wait_since: datetime | None = None) -> SubjectRow:
    """A pending workflow, parked since a moment."""
    return SubjectRow(
        workflow_uuid=ONE,
        name="waits",
        version="0",
        status=0,
        owner=owner,
        epoch=1,
        created_at=NOW,
        updated_at=NOW,
        deadline=None,
        wait_kind=None if wait_since is None else 0,
        wait_what=None,
        wait_since=wait_since,
        wait_topics=None,
        wake_at=None,
        crash_count=0,
        crash_step=None,
        error=None,
        host=None,
        pid=None,
        owner_state=None,
        lease_until=None,
        parent=None,
        target=None,
        target_key=None,
        due=None,
        last_step=None,
        last_name=None,
        last_at=None,
        last_failed=None,
        topics_there=None,
    )


async def test_a_name_that_was_suspended_long_ago() -> None:
    async with TestRuntime(__name__, check_replay=False) as runtime:
        since = "now() - interval '3 days'"
        await runtime.execute(f"insert into operon.suspensions (name, since, crashes) values ('gone', {since}, 14)")
        await runtime.execute(
            "insert into operon.workflows (workflow_uuid, name, version, inputs) values ($1, 'gone', '', '{}')", ONE
        )

        async with runtime.executor.look_ups.connection() as connection:
            cluster, rows = await reasons.look_around(connection, 5)
            found = (await reasons.reasons(connection, [ONE], cluster, reasons.actors_of(rows).get))[ONE]

        assert (found.code, found.text) == ("suspended", "`gone` is suspended for 3 d: 14 workflows crashed.")


def test_what_an_executor_said_counts_while_it_owns_the_workflow_and_has_not_parked_it_since() -> None:
    earlier, later = NOW - timedelta(seconds=1), NOW + timedelta(seconds=1)
    told = Told(LiveActor(ONE, "waits"), 1, NOW.timestamp())
    by_itself = Told(told.actor, 1)

    def counts(row: SubjectRow, told: Told) -> bool:
        return reasons.told_of(row, {ONE: told}.get) is told

    assert counts(row(owner=1), told)
    assert not counts(row(owner=2), told)
    assert not counts(row(owner=None), told)
    assert not counts(row(owner=1, wait_since=later), told)
    assert counts(row(owner=1, wait_since=earlier), told)  # it comes back, and has recorded nothing yet
    assert counts(row(owner=1, wait_since=later), by_itself)


def test_workflows_that_did_not_stop_are_found_in_a_tree() -> None:
    stuck = UUID(int=5)
    workflows = Node("workflows", "running", children=(Node(str(stuck), "zombie"), Node("odd", "zombie")))
    tree = Node("operon", "running", children=(Node("executor-1", "running", children=(workflows,)),))

    assert list(reasons.zombies(tree)) == [stuck]


def test_a_stored_error_that_cannot_be_read_is_an_error() -> None:
    error = reasons.error_of(b"\xff")

    assert error is not None
    assert error.type == "an error"
