"""The order in which the reasons are tried, and what holds a workflow up that nobody runs.

To add one: a function here or beside it (`waits`, `runs`, `ends`), its place in the list, and two tests: one of the
sentence, and one of a real workflow that comes there.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from operon.explain.ends import ended
from operon.explain.facts import Cluster, Place, Subject, WaitCode, Why
from operon.explain.runs import owner_in_doubt, owner_of, replaying, retried, running
from operon.explain.waits import has_come, waiting
from operon.explain.words import ago, duration, moment, some
from operon.status import Status


def explain(subject: Subject, cluster: Cluster) -> Why:
    """What a workflow does now, and if it does nothing, why, until when, and where to look next."""
    if subject.status is not Status.PENDING:
        return ended(subject, cluster)
    found = (reason(subject, cluster) for reason in REASONS)
    why = next((each for each in found if each is not None), None) or running(subject, cluster)
    place = haunted(subject, cluster)
    if place is None or why.code == "zombie":
        return why
    earlier = f"An earlier life of it on {place.name} did not stop when told; nothing of that one counts."
    return replace(why, text=f"{why.text} {earlier}")


# ---------------------------------------------------------------------- what holds it up


def database(_: Subject, cluster: Cluster) -> Why | None:
    away = cluster.database_away_seconds
    if away is None:
        return None
    return Why("database", f"The database has not answered for {duration(away)}; it goes on by itself.")


def zombie(subject: Subject, cluster: Cluster) -> Why | None:
    place = haunted(subject, cluster)
    if place is None or subject.live or subject.wait is not None:
        return None
    next_ = owner_of(subject, cluster)
    now = f"{next_.name} runs it now" if next_ is not None and next_ is not place else "another life takes over"
    return Why("zombie", f"{place.name} did not stop when told; it is fenced and {now}.")


def haunted(subject: Subject, cluster: Cluster) -> Place | None:
    """Where an earlier life of it still runs."""
    return next((place for place in cluster.places.values() if subject.workflow_uuid in place.zombies), None)


def suspended(subject: Subject, cluster: Cluster) -> Why | None:
    found = cluster.suspended.get(subject.name)
    owner = owner_of(subject, cluster)
    crashed = subject.restarts_at is not None or (subject.wait is not None and subject.wait.code == WaitCode.CRASH)
    ready = subject.wait is None and (owner is None or owner.state == "dead")
    held = crashed or ready or has_come(subject, cluster)
    if found is None or not held:  # what runs goes on, and what waits goes on waiting
        return None
    crashes = "too many" if found.crashes is None else str(found.crashes)
    tried = "" if found.until is None else f" The canary tries at {moment(found.until, cluster.now)}."
    since = ago(found.since, cluster.now)
    text = f"`{subject.name}` is suspended for {since}: {crashes} workflows crashed.{tried}"
    return Why("suspended", text, found.until, "/operon/supervisor")


def crashed(subject: Subject, cluster: Cluster) -> Why | None:
    waits = subject.wait is not None and subject.wait.code == WaitCode.CRASH
    until = subject.wait.until if waits and subject.wait is not None else subject.restarts_at
    if not waits and until is None:
        return None
    if until is not None and until <= cluster.now:  # its next life is held up by something else, if at all
        return None
    place = owner_of(subject, cluster)
    where = "" if place is None else f" on {place.name}"
    with_ = "" if subject.error is None else f" (`{subject.error.type}`)"
    of = "" if cluster.crash_budget is None else f" of {cluster.crash_budget}"
    count = f", {subject.crash_count}{of} without progress" if subject.crash_count else ""
    again = "" if until is None else f"; restarts at {moment(until, cluster.now)}"
    return Why("crashed", f"Its actor crashed{where}{with_}{count}{again}.", until)


# ---------------------------------------------------------------------- who runs it


def unowned(subject: Subject, cluster: Cluster) -> Why | None:
    """Nobody runs it, or it is to be brought back."""
    owner = owner_of(subject, cluster)
    come = has_come(subject, cluster) and not subject.live
    is_owned = owner is not None and owner.state != "dead"
    if is_owned and (not come or (owner is not None and owner.state == "draining")):
        return None
    since = subject.updated_at if subject.wait is None or subject.wait.until is None else subject.wait.until
    for_ = ago(min(since, cluster.now), cluster.now)
    # What is parked comes back where it is parked, as long as that executor lives.
    takers = [owner] if is_owned and owner is not None else [each for each in cluster.places.values() if each.counts]
    if not takers:
        return Why(
            "no_executor", f"Ready for {for_}: no executor is alive.{last_seen(cluster)}", link="/operon/supervisor"
        )
    able = [place for place in takers if place.names is None or subject.name in place.names]
    if not able:
        text = f"No executor has an operation named `{subject.name}`. It runs when the code is back."
        return Why("no_code", text, link="/operon/supervisor")
    if all(place.full for place in able):
        limit = able[0].max_live
        who = f"{able[0].name} is at its limit" if len(able) == 1 else f"all {len(able)} executors are at their limit"
        return Why("no_slot", f"Ready for {for_}: {who} of {limit:,} live workflows.", link="/operon/supervisor")
    if all(place.full or subject.name in place.full_names for place in able):
        limit = max(place.full_names.get(subject.name, 0) for place in able)
        text = f"Ready for {for_}: `{subject.name}` is at its limit of {limit:,} live workflows in an executor."
        return Why("no_slot", text, link=f"/operon/supervisor?name={subject.name}")
    if come:
        return Why("ready", "What it waited for has come; it is about to be brought back.")
    if subject.tried_alone:
        died = f"its process died {subject.crash_count} times without progress of it"
        return Why("ready", f"Ready for {for_}: {died}, so it is tried alone, when no other such one is.")
    before = subject.ready_before
    line = "" if before is None else "; none is before it" if not before else f"; {some(before, 'other')} before it"
    return Why("ready", f"Ready for {for_}{line}.")


def last_seen(cluster: Cluster) -> str:
    gone = [place for place in cluster.places.values() if place.died_at is not None]
    last = max(gone, key=lambda place: place.died_at or cluster.now, default=None)
    if last is None or last.died_at is None:
        return ""
    return f" The last, {last.name}, left at {moment(last.died_at, cluster.now)}."


# The first that answers wins. Who is stuck for a reason of the cluster's is told that before what it waits for.
REASONS: tuple[Callable[[Subject, Cluster], Why | None], ...] = (
    database,
    zombie,
    suspended,
    crashed,
    waiting,
    unowned,
    owner_in_doubt,
    retried,
    replaying,
)
