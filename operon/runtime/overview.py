"""The answer to `GET /operon/supervisor`: every executor and its tree, as any of them knows it.

This process speaks for itself from memory, and of the others it tells what they last said, with its age. So it answers
also while the database is away: then of itself alone, and it says so.

The rule: however many workflows there are, the same few rows are read. What is parked is an estimate from the server's
statistics, what is ready is counted so far and no further, and both say so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec

from operon.database import supervision
from operon.database.connection import Connection, is_weather
from operon.database.lease import RENEW_SECONDS
from operon.database.notifier import Hearing
from operon.database.reasons import Look, Told, actors_of, cluster_of, live_wait, moment, reasons, state_of
from operon.database.supervision import DEPTH_MAX, READY_MAX, ExecutorRow, LiveActor, Node, Numbers, Said, Suspension
from operon.explain import Cluster, Place, Subject, Why, explain
from operon.runtime.portrait import actor_of, page_of_actors
from operon.status import Status

if TYPE_CHECKING:
    from operon.runtime.executor import Executor

ANSWER_SECONDS = 1.0  # for the database; then the answer is given without it


class Question(msgspec.Struct, frozen=True):
    """What part of it to look at."""

    name: str | None = None  # of an operation
    workflow_uuid: UUID | None = None
    depth: int | None = None  # levels of the tree below its root; None for all
    limit: int = 50  # workflows of this executor
    after: UUID | None = None  # the next page: those after this workflow
    executor: int | None = None  # this one alone


class Known(msgspec.Struct, frozen=True):
    """What the database said."""

    rows: Sequence[ExecutorRow]
    numbers: Numbers
    suspensions: Sequence[Suspension]
    depths: dict[UUID, int]
    whys: dict[UUID, Why]
    cluster: Cluster


class Overview:
    """What one executor can tell of all."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    # ------------------------------------------------------------------ health

    @property
    def unready(self) -> str | None:
        """Why no work should be sent here, in a word; None if it may be."""
        if not self._executor.running:
            return "starting"
        incarnation = self._executor.incarnation
        lease = incarnation.lease
        if incarnation.draining:
            return "draining"
        if not lease.trusted:
            return "lease"
        if lease.age > 2 * self._executor.settings.heartbeat_seconds + RENEW_SECONDS:  # one that is late is no reason
            return "database"
        return "listener" if incarnation.notifier.gauges().state is Hearing.DOWN else None

    # ------------------------------------------------------------------ the tree

    async def answer(self, question: Question) -> dict[str, Any]:
        """All of it, as plain data for JSON."""
        incarnation = self._executor.incarnation
        said = self._executor.pulse.portrait()
        if question.workflow_uuid is not None:
            own = incarnation.live.get(question.workflow_uuid)
            actors = [] if own is None else [actor_of(incarnation, own, closely=True)]
        else:
            actors = page_of_actors(incarnation, question.limit, question.after, question.name)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                known = await self._executor.look_ups.ask(
                    lambda connection: self._ask(connection, question, said, actors), patience_seconds=0.0
                )
        except Exception as error:
            if not is_weather(error):
                raise
            return self._alone(question, said, actors)
        return self._whole(question, said, actors, known)

    async def _ask(self, connection: Connection, question: Question, said: Said, actors: Sequence[LiveActor]) -> Known:
        rows = await supervision.executors(connection)
        numbers = await supervision.numbers(connection)
        suspensions = await supervision.suspensions(connection)
        cluster = cluster_of(self._with_own(rows, said), suspensions, numbers.now, self._executor.settings.crash_budget)
        asked = [actor.workflow_uuid for actor in actors]
        if question.workflow_uuid is not None:
            asked = [question.workflow_uuid]
        whys = await reasons(connection, asked, cluster, self._look(rows, actors)) if asked else {}
        depths = await supervision.depths(connection, asked) if asked else {}
        return Known(rows, numbers, suspensions, depths, whys, cluster)

    def _look(self, rows: Sequence[ExecutorRow], actors: Sequence[LiveActor]) -> Look:
        """Who is live: here, as it is now, and elsewhere, as the others said last."""
        incarnation = self._executor.incarnation
        own, others = {actor.workflow_uuid: actor for actor in actors}, actors_of(rows)

        def look(workflow_uuid: UUID) -> Told | None:
            described = own.get(workflow_uuid)
            if described is None and (actor := incarnation.live.get(workflow_uuid)) is not None:
                described = actor_of(incarnation, actor)
            return others.get(workflow_uuid) if described is None else Told(described, incarnation.number)

        return look

    def _with_own(self, rows: Sequence[ExecutorRow], said: Said) -> list[ExecutorRow]:
        """The rows, with what this executor says now instead of what it has said."""
        number = self._executor.incarnation.number
        return [
            msgspec.structs.replace(row, said=said, said_age=0.0) if row.incarnation == number else row for row in rows
        ]

    def _whole(self, question: Question, said: Said, actors: Sequence[LiveActor], known: Known) -> dict[str, Any]:
        own, now = self._executor.incarnation.number, known.numbers.now
        rows = self._with_own(known.rows, said)
        shown = [row for row in rows if question.executor in (None, row.incarnation)]
        executors: list[dict[str, Any]] = []
        for row in shown:
            mine = row.incarnation == own
            told = list(actors) if mine else told_actors(row, question)
            executors.append(
                {
                    **executor_of(row, now, question.depth, mine=mine),
                    "actors": [actor_json(actor, known.whys, known.depths) for actor in told],
                    "actors_next": str(told[-1].workflow_uuid) if mine and len(told) == question.limit else None,
                    "actors_omitted": None if mine or row.said is None else row.said.actors_omitted,
                }
            )
        answer: dict[str, Any] = {
            "at": now,
            "answered_by": own,
            "database": {"reachable": True},
            "workflows": totals(rows, known.numbers),
            "suspended": [each for each in known.suspensions if question.name in (None, each.name)],
            "executors": executors,
        }
        if question.workflow_uuid is not None:
            why = known.whys.get(question.workflow_uuid)
            answer["workflow"] = None if why is None else {"workflow_uuid": question.workflow_uuid, "why": why}
        return answer

    def _alone(self, question: Question, said: Said, actors: Sequence[LiveActor]) -> dict[str, Any]:
        """Without the database: what is in the memory of this process."""
        incarnation = self._executor.incarnation
        now = moment(said.at) or datetime.now(UTC)
        away = incarnation.lease.age
        row = ExecutorRow(
            incarnation=incarnation.number,
            host="",
            pid=0,
            version=self._executor.settings.version,
            state=0,
            started_at=now,
            died_at=None,
            lease_until=now + timedelta(seconds=said.lease_seconds - away),
            said_age=0.0,
            said=said,
        )
        place = Place(incarnation=incarnation.number, name=f"executor {incarnation.number}")
        cluster = Cluster(now=now, places={place.incarnation: place}, suspended={}, database_away_seconds=away)
        whys = {actor.workflow_uuid: explain(alone(actor, now), cluster) for actor in actors}
        asked = question.workflow_uuid
        if asked is not None and asked not in whys:
            whys[asked] = explain(unknown_one(asked, now), cluster)
        executor = executor_of(row, now, question.depth, mine=True)
        for unknown in ("host", "pid", "started_at"):
            executor[unknown] = None
        answer: dict[str, Any] = {
            "at": now,
            "answered_by": incarnation.number,
            "database": {"reachable": False, "away_seconds": round(away, 1)},
            "workflows": None,
            "suspended": [],
            "executors": [{**executor, "actors": [actor_json(actor, whys, {}) for actor in actors]}],
        }
        if asked is not None:
            answer["workflow"] = {"workflow_uuid": asked, "why": whys[asked]}
        return answer


def told_actors(row: ExecutorRow, question: Question) -> list[LiveActor]:
    """What another executor told of its workflows, as far as it was asked for."""
    if row.said is None:
        return []
    return [
        actor
        for actor in row.said.actors
        if question.name in (None, actor.name) and question.workflow_uuid in (None, actor.workflow_uuid)
    ][: question.limit]


def totals(rows: Sequence[ExecutorRow], numbers: Numbers) -> dict[str, Any]:
    """All workflows together, each number with how it is known."""
    said = [row.said for row in rows if row.said is not None and row.state != 2]
    return {
        "live": {"n": sum(each.live for each in said), "estimate": len(said) > 1},  # the others said so a moment ago
        "ready": {"n": min(numbers.ready, READY_MAX), "capped": numbers.ready > READY_MAX, "estimate": False},
        "parked": {
            "n": sum(each.parked for each in said) if numbers.parked is None else numbers.parked,
            "estimate": True,
            "from": "the executors, since they began" if numbers.parked is None else "the statistics of the table",
            "analyzed_at": numbers.analyzed_at,
        },
    }


def executor_of(row: ExecutorRow, now: datetime, depth: int | None, *, mine: bool) -> dict[str, Any]:
    """One executor, with its tree."""
    said = row.said
    fields: dict[str, Any] = {
        "incarnation": row.incarnation,
        "name": f"{row.host}:{row.pid}",
        "host": row.host,
        "pid": row.pid,
        "version": row.version,
        "state": state_of(row, now),
        "own": mine,
        "started_at": row.started_at,
        "died_at": row.died_at,
        "lease_left_ms": None if row.state == 2 else round((row.lease_until - now).total_seconds() * 1000),
        "snapshot_age_ms": None if row.said_age is None else round(row.said_age * 1000),
    }
    if said is None:
        return {**fields, "tree": None}
    age = said.lease_seconds - (row.lease_until - now).total_seconds()
    return {
        **fields,
        "lease_age_ms": max(0, round(age * 1000)),
        "live": said.live,
        "max_live": said.max_live,
        "waiting": said.waiting,
        "parked": said.parked,
        "ready": said.ready,
        "loop_lag_ms": {"p50": said.lag_p50_ms, "p99": said.lag_p99_ms},
        "rss_bytes": said.rss_bytes,
        "commits": said.commits,
        "listener": said.listener,
        "operations": said.names,
        "tree": node_json(said.tree, depth),
    }


def node_json(node: Node, depth: int | None) -> dict[str, Any]:
    """A supervisor or a child, and so many levels below it. Times as people and programs read them."""
    fields: dict[str, Any] = {
        "name": node.name,
        "kind": node.kind,
        "state": node.state,
        "restart": node.restart,
        "restarts": node.restarts,
        "since": moment(node.since),
        "backoff_until": moment(node.backoff_until),
        "last_exit": node.last_exit,
        "last_error": node.last_error,
    }
    if node.mailbox_depth is not None:
        fields["mailbox_depth"] = node.mailbox_depth
    if node.kind != "child":
        fields["running"] = node.running
        fields["intensity"] = {
            "used": node.restarts_used,
            "allowed": node.restarts_allowed,
            "window_seconds": node.window_seconds,
        }
        if node.running_allowed is not None:
            fields["allowed"] = node.running_allowed
        fields |= {
            "strategy": node.strategy,
            "restarting": node.restarting,
            "zombies": node.zombies,
        }
        if depth is None or depth > 0:
            below = None if depth is None else depth - 1
            fields["children"] = [node_json(child, below) for child in node.children]
            fields["omitted"] = node.omitted
        else:
            fields["omitted"] = node.omitted + len(node.children)
    return fields


def actor_json(actor: LiveActor, whys: dict[UUID, Why], depths: dict[UUID, int]) -> dict[str, Any]:
    """One live workflow."""
    depth = depths.get(actor.workflow_uuid)
    return {
        "workflow_uuid": actor.workflow_uuid,
        "name": actor.name,
        "state": actor.state,
        "step": actor.step,
        "waits_for": actor.waits_for,
        "since": moment(actor.since),
        "until": moment(actor.until),
        "restarts": actor.restarts,
        "backoff_until": moment(actor.backoff_until),
        "last_error": actor.last_error,
        "doing": actor.doing,
        "mailbox": {
            "n": actor.mailbox_known if depth is None else min(depth, DEPTH_MAX),
            "capped": depth is not None and depth > DEPTH_MAX,
            "in_memory": actor.mailbox_known,
        },
        "why": whys.get(actor.workflow_uuid),
    }


def alone(actor: LiveActor, now: datetime) -> Subject:
    """What is known of a live workflow without its row."""
    known = unknown_one(actor.workflow_uuid, now)
    return msgspec.structs.replace(known, name=actor.name, live=True, wait=live_wait(actor), doing=actor.doing)


def unknown_one(workflow_uuid: UUID, now: datetime) -> Subject:
    """A workflow of which only the database knows."""
    return Subject(workflow_uuid=workflow_uuid, name="", status=Status.PENDING, created_at=now, updated_at=now)
