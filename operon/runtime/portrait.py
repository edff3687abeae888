"""What an executor says of itself: its tree, its numbers, its live workflows, as plain data of a bounded size.

The rule: looking changes nothing and costs nothing to those who work. Everything is read from memory, in one turn of
the loop; of 20,000 live workflows only a page is described. Times are the database's, and mean the same everywhere.
"""

from __future__ import annotations

import heapq
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING
from uuid import UUID

import msgspec

from actors import ChildSnapshot, ChildState, NoSuchChild, SupervisorSnapshot
from operon.database.supervision import Commits, Listener, LiveActor, Node, Said
from operon.database.suspensions import WINDOW_SECONDS
from operon.masking import masked
from operon.runtime.doing import doing_of

if TYPE_CHECKING:
    from operon.runtime.executor import Executor
    from operon.runtime.incarnation import Incarnation
    from operon.runtime.pulse import Pulse
    from operon.runtime.workflow_actor import WorkflowActor

BYTES_MAX = 64 * 1024
ACTORS_MAX = 50
NAMES_MAX = 500
TROUBLED_MAX = 20
TEXT_MAX = 300
DEGRADED = "degraded"  # a name that is suspended: until one of its workflows has passed, none is brought to life


def portrait(executor: Executor, pulse: Pulse, commits: Commits) -> Said:
    """How an executor is now."""
    incarnation = executor.incarnation
    counts = incarnation.parker.counts
    heard = incarnation.notifier.gauges()
    names = sorted(operation.name for operation in incarnation.catalog.operations.values())
    p50, p99 = pulse.lag.percentiles
    actors = worst_actors(incarnation, ACTORS_MAX)
    return Said(
        at=incarnation.clock.now(),
        lease_seconds=executor.settings.lease_seconds,
        trusted=incarnation.lease.trusted,
        draining=incarnation.draining,
        live=counts.live,
        waiting=counts.waiting,
        parked=incarnation.parker.away,
        ready=counts.woken,
        max_live=executor.settings.max_live,
        lag_p50_ms=p50,
        lag_p99_ms=p99,
        rss_bytes=resident_bytes(),
        commits=commits,
        listener=Listener(
            heard.state.value,
            None if heard.ping_seconds is None else round(heard.ping_seconds * 1000, 3),
            heard.reconnects,
            heard.found_by_poll,
        ),
        names=tuple(names[:NAMES_MAX]),
        names_omitted=max(0, len(names) - NAMES_MAX),
        tree=tree_of(executor),
        actors=tuple(actors),
        actors_omitted=len(incarnation.live) - len(actors),
    )


def encoded(said: Said) -> bytes:
    """As it is stored, of at most BYTES_MAX: what is too much is left out, and counted."""
    body = msgspec.json.encode(said)
    if len(body) > BYTES_MAX:
        omitted = said.actors_omitted + len(said.actors)
        said = msgspec.structs.replace(said, actors=(), actors_omitted=omitted)
        body = msgspec.json.encode(said)
    if len(body) > BYTES_MAX:
        said = msgspec.structs.replace(said, names=(), names_omitted=said.names_omitted + len(said.names))
        body = msgspec.json.encode(said)
    return body


# ---------------------------------------------------------------------- the tree


def tree_of(executor: Executor) -> Node:
    """The supervision tree of this process. Of the workflows it has those in trouble; the others are `LiveActor`s."""
    incarnation = executor.incarnation
    now = incarnation.clock.now()
    below = (*names_of(incarnation, TROUBLED_MAX), *islice(zombies_of(executor, now), TROUBLED_MAX))
    return node_of(executor.tree.snapshot(limit=TROUBLED_MAX), now, below)


def zombies_of(executor: Executor, now: float) -> Iterator[Node]:
    """Workflows of earlier incarnations that did not stop when they were fenced. Nothing that they do counts."""
    for workflows in executor.left_behind:
        for child in workflows.zombies:
            yield Node(child.name, ChildState.ZOMBIE, since=round(now - (workflows.clock.now() - child.started_at), 3))


def names_of(incarnation: Incarnation, limit: int) -> Iterable[Node]:
    """The names that workflows live under, each with its bulkhead: suspended ones first, then those with most crashes.

    Counting 20,000 takes two milliseconds; counted at each start and end they would cost more.
    """
    suspensions = incarnation.suspensions
    running = Counter(actor.operation.name for actor in incarnation.live.values())
    names = dict.fromkeys((*suspensions.until, *suspensions.crashing, *running))

    def trouble(name: str) -> tuple[bool, int, int]:
        return name in suspensions.until, suspensions.crashes(name), running[name]

    for name in heapq.nlargest(limit, names, key=trouble):
        yield Node(
            name=name,
            kind="name",
            state=DEGRADED if name in suspensions.until else ChildState.RUNNING,
            running=running[name],
            restarts_used=suspensions.crashes(name),
            restarts_allowed=suspensions.many or None,
            window_seconds=WINDOW_SECONDS,
            backoff_until=suspensions.until.get(name),
        )


def node_of(tree: SupervisorSnapshot, now: float, names: tuple[Node, ...], child: ChildSnapshot | None = None) -> Node:
    """A supervisor, and as whose child it runs; that of the workflows also has the names of what it runs."""
    shown = [each for each in tree.children if not tree.dynamic or each.state != ChildState.RUNNING]
    return Node(
        name=tree.name,
        kind="supervisor",
        state=tree.state,
        strategy=tree.strategy,
        restart=None if child is None else child.restart,
        restarts=tree.restarts,
        restarts_used=tree.restarts_in_window,
        restarts_allowed=tree.restarts_allowed,
        window_seconds=tree.period_seconds,
        since=round(now - tree.uptime_seconds, 3),
        backoff_until=None if child is None else later(child.restart_in_seconds, now),
        last_exit=None if child is None else child.last_exit,
        last_error=None if child is None else short(child.last_error),
        running=tree.running,
        restarting=tree.restarting,
        zombies=tree.zombies,
        children=(*(names if tree.dynamic else ()), *(child_of(each, now, names) for each in shown)),
        omitted=tree.omitted + len(tree.children) - len(shown),
    )


def child_of(child: ChildSnapshot, now: float, names: tuple[Node, ...]) -> Node:
    if child.tree is not None:
        return node_of(child.tree, now, names, child)
    return Node(
        name=child.name,
        state=child.state,
        restart=child.restart,
        restarts=child.restarts,
        since=None if child.uptime_seconds is None else round(now - child.uptime_seconds, 3),
        backoff_until=later(child.restart_in_seconds, now),
        last_exit=child.last_exit,
        last_error=short(child.last_error),
        mailbox_depth=child.mailbox_depth,
    )


# ---------------------------------------------------------------------- live workflows


def worst_actors(incarnation: Incarnation, limit: int) -> list[LiveActor]:
    """Those in trouble first, then those that wait, the longest first, then any."""
    chosen: dict[UUID, WorkflowActor] = {}
    for child in incarnation.workflows.snapshot(limit=limit).children:
        if child.state != ChildState.RUNNING and (actor := incarnation.live.get(UUID(child.name))) is not None:
            chosen[actor.workflow_uuid] = actor
    for actor in islice(incarnation.parker.each_waiting(), limit):
        chosen[actor.workflow_uuid] = actor
    for actor in islice(incarnation.live.values(), limit):
        chosen[actor.workflow_uuid] = actor
    return [actor_of(incarnation, actor) for actor in islice(chosen.values(), limit)]


def page_of_actors(incarnation: Incarnation, limit: int, after: UUID | None, name: str | None) -> list[LiveActor]:
    """The live workflows whose UUIDs come next, in order: a page stays where it is while others come and go."""
    matching: Iterable[UUID] = (
        uuid
        for uuid, actor in incarnation.live.items()
        if (after is None or uuid > after) and (name is None or actor.operation.name == name)
    )
    return [actor_of(incarnation, incarnation.live[uuid]) for uuid in heapq.nsmallest(limit, matching)]


def actor_of(incarnation: Incarnation, actor: WorkflowActor, *, closely: bool = False) -> LiveActor:
    """One live workflow. closely: also where it stands."""
    now = incarnation.clock.now()
    wait = None if actor.waits is None else actor.waits.oldest
    state, restarts, backoff_until, last_error, task = "running", 0, None, None, None
    try:
        described = incarnation.workflows.child(str(actor.workflow_uuid))
    except NoSuchChild:
        state = "ending"
    else:
        child, task = described.describe(incarnation.workflows.clock.now()), described.task
        restarts, last_error = child.restarts, short(child.last_error)
        backoff_until = later(child.restart_in_seconds, now)
        state = child.state
    return LiveActor(
        workflow_uuid=actor.workflow_uuid,
        name=actor.operation.name,
        state="waiting" if state == "running" and wait is not None else state,
        step=actor.journal.called - 1 if actor.journal is not None and actor.journal.called else None,
        waits_for=None if actor.waits is None or wait is None else short(actor.waits.what),
        wait_kind=None if wait is None else int(wait.kind),
        wait_topics=() if wait is None else tuple(topic or "" for topic in wait.topics),
        target=None if wait is None else wait.target,
        since=None if wait is None else round(now - (time.monotonic() - wait.since), 3),
        until=None if wait is None else wait.deadline,
        restarts=restarts,
        backoff_until=backoff_until,
        last_error=last_error,
        mailbox_known=actor.messages_known,
        doing=doing_of(actor, task, now, closely=closely),
    )


def later(seconds: float | None, now: float) -> float | None:
    return None if seconds is None else round(now + seconds, 3)


def short(text: str | None) -> str | None:
    """A text in one line, without secrets."""
    return None if text is None else " ".join(masked(text).split())[:TEXT_MAX]


# ---------------------------------------------------------------------- the process


def resident_bytes() -> int | None:
    """The memory that this process has now; where that is not told, the most that it ever had."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError, AttributeError):
        pass
    try:
        import resource  # POSIX only
    except ImportError:
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
