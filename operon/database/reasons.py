"""What `explain` is told, read from the database: one workflow and the cluster around it.

What only the memory of an executor knows (a wait that is not parked yet, a pause between two lives) comes from what
that executor last said of itself, or from the caller, who may be that executor.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

from operon.database import supervision
from operon.database.connection import Connection
from operon.database.supervision import ExecutorRow, LiveActor, Node, Said, SubjectRow, Suspension
from operon.errors import DecodingError
from operon.explain import Cluster, Error, Place, Subject, Suspended, Target, Wait, Why, explain
from operon.failures import decode_record
from operon.status import Status

LEASE_SECONDS = 10.0  # of an executor that has not said how long its lease is
SUSPECT = 0.5  # of a lease that was not renewed


async def reasons(
    connection: Connection,
    workflow_uuids: Sequence[UUID],
    cluster: Cluster,
    live: Mapping[UUID, LiveActor],
) -> dict[UUID, Why]:
    """Why these are where they are; those that do not exist are left out. Three questions for any number of them."""
    rows = await supervision.subjects(connection, workflow_uuids)
    actors = {uuid: live.get(uuid) for uuid in rows}
    targets = {actor.target for actor in actors.values() if actor is not None and actor.target is not None}
    others = await supervision.subjects(connection, targets) if targets else {}
    found: dict[UUID, Why] = {}
    for uuid, row in rows.items():
        before = None
        if row.status == 0 and row.wait_kind is None and row.owner is None and len(workflow_uuids) == 1:
            before = await supervision.ready_before(connection, uuid)
        actor = actors[uuid]
        target = None if actor is None or actor.target is None else others.get(actor.target)
        found[uuid] = explain(subject_of(row, actor, target, before), cluster)
    return found


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


def actors_of(rows: Sequence[ExecutorRow]) -> dict[UUID, LiveActor]:
    """The live workflows that executors have told of."""
    return {actor.workflow_uuid: actor for row in rows if row.said is not None for actor in row.said.actors}


def subject_of(row: SubjectRow, actor: LiveActor | None, other: SubjectRow | None, before: int | None) -> Subject:
    """One workflow, of its row and what its executor knows."""
    return Subject(
        workflow_uuid=row.workflow_uuid,
        name=row.name,
        status=Status.from_code(row.status),
        created_at=row.created_at,
        updated_at=row.updated_at,
        owner=row.owner,
        wait=parked_wait(row) or live_wait(row, actor, other),
        topics_there=tuple(row.topics_there or ()),
        crash_count=row.crash_count,
        crash_step=row.crash_step,
        restarts_at=None if actor is None or actor.state != "restarting" else moment(actor.backoff_until),
        error=error_of(row.error),
        step=row.last_step if actor is None or actor.step is None else max(actor.step, row.last_step or 0),
        step_name=row.last_name if actor is None or actor.step in (None, row.last_step) else None,
        step_at=row.last_at,
        ready_before=before,
    )


def parked_wait(row: SubjectRow) -> Wait | None:
    """What a parked workflow waits for."""
    if row.status != 0 or row.wait_kind is None:
        return None
    target = None
    if row.target is not None and row.target_name is not None and row.target_status is not None:
        target = Target(
            row.target,
            row.target_name,
            Status.from_code(row.target_status),
            row.target_is_child is True,
            row.target_wait if row.target_status == 0 else None,
            row.target_waits_for_it,
        )
    return Wait(
        code=row.wait_kind,
        what=row.wait_what or "",
        since=row.wait_since,
        until=row.wake_at,
        topics=tuple(row.wait_topics or ()),
        key=row.target_key or None,
        target=target,
    )


def live_wait(row: SubjectRow, actor: LiveActor | None, other: SubjectRow | None) -> Wait | None:
    """What a live workflow waits for, as its executor says."""
    if row.status != 0 or actor is None or actor.wait_kind is None:
        return None
    what = actor.waits_for or ""
    target = None
    if other is not None:
        status = Status.from_code(other.status)
        waits = other.wait_what if other.status == 0 else None
        child, cycle = other.parent == row.workflow_uuid, other.target == row.workflow_uuid
        target = Target(other.workflow_uuid, other.name, status, child, waits, cycle)
    return Wait(
        code=actor.wait_kind,
        what=what,
        since=moment(actor.since),
        until=moment(actor.until),
        topics=actor.wait_topics,
        key=what.removeprefix("event ").rpartition(" of ")[0] if what.startswith("event ") else None,
        target=target,
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
    return Error(record.type, " ".join(record.message.split())[:300])
