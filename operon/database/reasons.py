"""What `explain` is told, read from the database: one workflow and the cluster around it.

What only the memory of an executor knows (what a live workflow does, a wait that is not parked yet) comes from what
that executor last said of itself, or from the caller, who may be that executor.

The rule: however many workflows there are, a handful of rows is read, each by an index. What costs a question of its
own is asked only about one workflow, never about a page of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from msgspec.structs import replace as replaced

from operon.database import supervision
from operon.database.connection import Connection
from operon.database.sql import statements
from operon.database.supervision import ExecutorRow, LiveActor, Node, Said, SubjectRow, Suspension, plain
from operon.errors import DecodingError
from operon.explain import (
    Cluster,
    Error,
    Place,
    SetAside,
    Subject,
    Suspended,
    Target,
    Usual,
    Wait,
    WaitCode,
    Why,
    explain,
)
from operon.failures import decode_record
from operon.status import Status

SQL = statements("reasons.sql")

LEASE_SECONDS = 10.0  # of an executor that has not said how long its lease is
SUSPECT = 0.5  # of a lease that was not renewed
CIRCLE_MAX = 16  # workflows that wait for one another
CHAINS_MAX = 4  # questions for that
SET_ASIDE_MAX = 101
USUAL_SECONDS = 1.0  # what takes less is not compared with what it takes otherwise
USUAL_AMONG = 500  # workflows: some ten milliseconds
USUAL_MIN = 20  # recorded steps, or nothing is said of them


class Told(NamedTuple):
    """A live workflow, and which executor says so."""

    actor: LiveActor
    executor: int
    at: float | None = None  # when it said so; None: just now, of itself


Look = Callable[[UUID], Told | None]


async def reasons(
    connection: Connection, workflow_uuids: Sequence[UUID], cluster: Cluster, look: Look
) -> dict[UUID, Why]:
    """Why these are where they are; those that do not exist are left out. Two questions for many, eight for one."""
    rows = await supervision.subjects(connection, workflow_uuids)
    told = {uuid: told_of(row, look) for uuid, row in rows.items()}
    targets = {target for uuid, row in rows.items() if (target := target_of(row, told[uuid])) is not None}
    others = await supervision.subjects(connection, targets) if targets else {}
    found: dict[UUID, Why] = {}
    for uuid, row in rows.items():
        subject = subject_of(row, told[uuid], wait_of(row, told[uuid], others, look), cluster)
        if len(workflow_uuids) == 1:
            subject = replaced(subject, **await looked_closer(connection, row, subject, cluster, look))
        found[uuid] = explain(subject, cluster)
    return found


async def looked_closer(
    connection: Connection, row: SubjectRow, subject: Subject, cluster: Cluster, look: Look
) -> dict[str, Any]:
    """What is worth a question of its own when it is asked about one workflow."""
    wait, doing = subject.wait, subject.doing
    if subject.status is not Status.PENDING:
        return {}
    if wait is None and row.owner is None:
        return {"ready_before": await supervision.ready_before(connection, row.workflow_uuid)}
    if wait is not None and wait.code == WaitCode.MESSAGE:
        return {"set_aside": await set_aside(connection, row.workflow_uuid, wait.topics)}
    if wait is not None and wait.target is not None:
        circle = await circle_of(connection, row.workflow_uuid, wait.target.workflow_uuid, look)
        return {"wait": replaced(wait, target=replaced(wait.target, circle=circle))}
    if doing is None or not doing.calls or doing.name is None or doing.step is None or doing.since is None:
        return {}
    if (cluster.now - doing.since).total_seconds() < USUAL_SECONDS:
        return {}
    return {"usual": await usual(connection, row, doing.step, doing.name)}


async def circle_of(connection: Connection, start: UUID, target: UUID, look: Look) -> int:
    """How many workflows wait for one another in a circle with this one; 0 for none, or a very long one."""
    seen: list[UUID] = [start]
    ahead: deque[UUID] = deque()
    chains = 0
    while target not in seen and len(seen) < CIRCLE_MAX:
        seen.append(target)
        if (told := look(target)) is not None:
            ahead.clear()
            if told.actor.target is None:
                return 0
            target = told.actor.target
            continue
        if not ahead:
            if chains == CHAINS_MAX:
                return 0
            chains += 1
            ahead.extend(plain(each[0]) for each in await connection.fetch(SQL["chain"], target, CIRCLE_MAX))
        if not ahead:
            return 0
        target = ahead.popleft()
    return len(seen) if target == start else 0


async def set_aside(connection: Connection, workflow_uuid: UUID, topics: Sequence[str]) -> SetAside | None:
    """Messages of what it waits for that it was given too often."""
    rows = await connection.fetch(SQL["set_aside"], workflow_uuid, list(topics), SET_ASIDE_MAX)
    return SetAside(len(rows), rows[0]["topic"], rows[0]["detail"]) if rows else None


async def usual(connection: Connection, row: SubjectRow, step: int, name: str) -> Usual | None:
    """How long a step takes otherwise, if that was recorded often enough."""
    found = await connection.fetchrow(SQL["usual"], row.workflow_uuid, row.name, step, name, USUAL_AMONG)
    return None if found is None or found["count"] < USUAL_MIN else Usual(found["p99"], found["count"])


async def look_around(connection: Connection, crash_budget: int | None = None) -> tuple[Cluster, list[ExecutorRow]]:
    """The cluster as the database knows it."""
    now = await supervision.now(connection)
    rows = await supervision.executors(connection)
    return cluster_of(rows, await supervision.suspensions(connection), now, crash_budget), rows


def cluster_of(
    rows: Sequence[ExecutorRow], suspensions: Sequence[Suspension], now: datetime, crash_budget: int | None
) -> Cluster:
    """The cluster of these rows."""
    return Cluster(
        now=now,
        places={row.incarnation: place_of(row, now) for row in rows},
        suspended={each.name: Suspended(each.since, each.until, each.crashes) for each in suspensions},
        crash_budget=crash_budget,
    )


def place_of(row: ExecutorRow, now: datetime) -> Place:
    """An executor, and the state that its rows mean together."""
    said = row.said
    left = (row.lease_until - now).total_seconds()
    age = lease_of(said) - left
    return Place(
        incarnation=row.incarnation,
        name=f"{row.host}:{row.pid}#{row.incarnation}",
        version=row.version,
        state=state_of(row, now),
        lease_age_seconds=max(0.0, age),
        moves_in_seconds=max(0.0, left),
        live=None if said is None else said.live,
        max_live=None if said is None else said.max_live,
        names=None if said is None or said.names_omitted else frozenset(said.names),
        full_names={} if said is None else dict(full_names(said.tree)),
        zombies=frozenset() if said is None else frozenset(zombies(said.tree)),
        died_at=row.died_at,
    )


def state_of(row: ExecutorRow, now: datetime) -> str:
    """`alive`, `suspect` when its lease was not renewed for long, `draining`, `dead`."""
    if row.state == 2:
        return "dead"
    lease = lease_of(row.said)
    if lease - (row.lease_until - now).total_seconds() > SUSPECT * lease:
        return "suspect"
    return "draining" if row.state == 1 or (row.said is not None and row.said.draining) else "alive"


def lease_of(said: Said | None) -> float:
    return LEASE_SECONDS if said is None else said.lease_seconds


def zombies(node: Node) -> Iterator[UUID]:
    """The workflows that did not stop when told."""
    for child in node.children:
        if child.state == "zombie":
            try:
                yield UUID(child.name)
            except ValueError:
                continue
        yield from zombies(child)


def full_names(node: Node) -> Iterator[tuple[str, int]]:
    """Names that have as many live workflows as they may."""
    for child in node.children:
        if child.running_allowed is not None and (child.running or 0) >= child.running_allowed:
            yield child.name, child.running_allowed
        yield from full_names(child)


def actors_of(rows: Sequence[ExecutorRow]) -> dict[UUID, Told]:
    """The live workflows that executors have told of."""
    return {
        actor.workflow_uuid: Told(actor, row.incarnation, row.said.at)
        for row in rows
        if row.said is not None and row.state != 2
        for actor in row.said.actors
    }


# ---------------------------------------------------------------------- one workflow


def told_of(row: SubjectRow, look: Look) -> Told | None:
    """What its executor says of a live workflow; not what another one said that had it before, or that one earlier.

    One that comes back is still parked by its row, until it records something.
    """
    told = look(row.workflow_uuid) if row.status == 0 else None
    if told is None or told.executor != row.owner:
        return None
    parked_since = told.at is not None and row.wait_since is not None and told.at < row.wait_since.timestamp()
    return None if parked_since else told


def target_of(row: SubjectRow, told: Told | None) -> UUID | None:
    """For whom it waits."""
    return row.target if told is None else told.actor.target


def subject_of(row: SubjectRow, told: Told | None, wait: Wait | None, cluster: Cluster) -> Subject:
    """One workflow, of its row and what its executor knows."""
    actor = None if told is None else told.actor
    return Subject(
        workflow_uuid=row.workflow_uuid,
        name=row.name,
        status=Status.from_code(row.status),
        created_at=row.created_at,
        updated_at=row.updated_at,
        owner=row.owner,
        wait=wait,
        topics_there=tuple(row.topics_there or ()),
        crash_count=row.crash_count,
        crash_step=row.crash_step,
        restarts_at=None if actor is None or actor.state != "restarting" else moment(actor.backoff_until),
        error=error_of(row.error),
        step=row.last_step if actor is None or actor.step is None else max(actor.step, row.last_step or 0),
        step_name=row.last_name if actor is None or actor.step in (None, row.last_step) else None,
        step_at=row.last_at,
        step_failed=row.last_failed is True,
        version=row.version,
        live=actor is not None,
        doing=None if actor is None else actor.doing,
        told_seconds=None if told is None or told.at is None else max(0.0, cluster.now.timestamp() - told.at),
        tried_alone=row.crash_count > 1 and row.crash_step == (-1 if row.last_step is None else row.last_step) + 1,
    )


def wait_of(row: SubjectRow, told: Told | None, others: Mapping[UUID, SubjectRow], look: Look) -> Wait | None:
    """What a workflow waits for, with what becomes of that."""
    wait = parked_wait(row) if told is None else live_wait(told.actor)
    uuid = target_of(row, told)
    other = None if uuid is None else others.get(uuid)
    if wait is None or other is None:
        return wait
    its = told_of(other, look)
    return replaced(
        wait,
        target=Target(
            other.workflow_uuid,
            other.name,
            Status.from_code(other.status),
            is_child=other.parent == row.workflow_uuid,
            wait=parked_wait(other) if its is None else live_wait(its.actor),
            doing=None if its is None else its.actor.doing,
            owned=other.owner is not None,
        ),
    )


def parked_wait(row: SubjectRow) -> Wait | None:
    """What a parked workflow waits for."""
    if row.status != 0 or row.wait_kind is None:
        return None
    return Wait(
        code=row.wait_kind,
        what=row.wait_what or "",
        since=row.wait_since,
        until=row.wake_at,
        topics=tuple(row.wait_topics or ()),
        key=row.target_key or None,
        has_happened=row.due is True,
    )


def live_wait(actor: LiveActor) -> Wait | None:
    """What a live workflow waits for, as its executor says."""
    if actor.wait_kind is None:
        return None
    what = actor.waits_for or ""
    return Wait(
        code=actor.wait_kind,
        what=what,
        since=moment(actor.since),
        until=moment(actor.until),
        topics=actor.wait_topics,
        key=what.removeprefix("event ").rpartition(" of ")[0] if what.startswith("event ") else None,
    )


def moment(seconds: float | None) -> datetime | None:
    """A time of the database's, out of seconds since the epoch."""
    return None if seconds is None else datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)


def error_of(stored: bytes | None) -> Error | None:
    """A stored error, in short."""
    if stored is None:
        return None
    try:
        record = decode_record(stored)
    except DecodingError:
        return Error("an error", "")
    message = record.message.partition("\nHint: ")[0]  # what to do is said in other words
    return Error(record.type, " ".join(message.split())[:300])
