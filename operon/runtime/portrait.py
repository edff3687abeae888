"""What an executor says of itself: its tree, its numbers, its live workflows, as plain data of a bounded size.

The rule: looking changes nothing and costs nothing to those who work. Everything is read from memory, in one turn of
the loop; of 20,000 live workflows only a page is described. Times are the database's, and mean the same everywhere.
"""

from __future__ import annotations

import heapq
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING
from uuid import UUID

import msgspec

from actors import ChildSnapshot, ChildState, SupervisorSnapshot
from operon.database.supervision import Commits, Listener, LiveActor, Node, Said
from operon.database.suspensions import WINDOW_SECONDS
from operon.masking import masked
from operon.runtime.crowds import WORKFLOWS
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
    """The supervision tree of this process. Of names and workflows it has those in trouble, and counts the others."""
    incarnation = executor.incarnation
    root = node_of(executor.tree.snapshot(limit=TROUBLED_MAX), incarnation)
    left_behind = tuple(islice(zombies_of(executor, incarnation.clock.now()), TROUBLED_MAX))
    return msgspec.structs.replace(root, children=(*root.children, *left_behind)) if left_behind else root


def zombies_of(executor: Executor, now: float) -> Iterator[Node]:
    """Workflows of earlier incarnations that did not stop when they were fenced. Nothing that they do counts."""
    for crowds in executor.left_behind:
        for child in crowds.stuck:
            yield Node(child.name, ChildState.ZOMBIE, since=round(now - (crowds.clock.now() - child.started_at), 3))


def node_of(tree: SupervisorSnapshot, incarnation: Incarnation, child: ChildSnapshot | None = None) -> Node:
    """A supervisor, and as whose child it runs. That of all workflows has the names in trouble, then the largest."""
    now = incarnation.clock.now()
    shown: Sequence[ChildSnapshot] = tree.children
    if tree.dynamic:
        shown = [each for each in tree.children if each.state != ChildState.RUNNING]
    elif tree.name == WORKFLOWS:
        shown = heapq.nlargest(TROUBLED_MAX, tree.children, key=lambda each: trouble(each, incarnation))
    node = Node(
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
        children=tuple(child_of(each, incarnation) for each in shown),
        omitted=tree.omitted + len(tree.children) - len(shown),
    )
    return name_of(node, incarnation) if tree.dynamic else node


def name_of(node: Node, incarnation: Incarnation) -> Node:
    """The supervisor of a name, with its bulkhead: the crashes that suspend it, anywhere, and its limit here."""
    suspensions = incarnation.suspensions
    suspended = node.name in suspensions.until
    return msgspec.structs.replace(
        node,
        kind="name",
        state=DEGRADED if suspended else node.state,
        restarts_used=suspensions.crashes(node.name),
        restarts_allowed=suspensions.many or None,
        window_seconds=WINDOW_SECONDS,
        backoff_until=suspensions.until[node.name] if suspended else node.backoff_until,
        running_allowed=incarnation.crowds.by_name[node.name].allowed,
    )


def trouble(name: ChildSnapshot, incarnation: Incarnation) -> tuple[bool, bool, int, bool, int]:
    """What is shown first."""
    suspensions, crowd = incarnation.suspensions, incarnation.crowds.by_name[name.name]
    down = name.state != ChildState.RUNNING
    return name.name in suspensions.until, down, suspensions.crashes(name.name), crowd.full, len(crowd)


def child_of(child: ChildSnapshot, incarnation: Incarnation) -> Node:
    now = incarnation.clock.now()
    if child.tree is not None:
        return node_of(child.tree, incarnation, child)
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
    for child in incarnation.crowds.stuck:
        if (actor := incarnation.live.get(UUID(child.name))) is not None:
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
    life = incarnation.crowds.life_of(actor)
    if life is None:
        state = "ending"
    else:
        child, task = life.describe(incarnation.crowds.clock.now()), life.task
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
