"""The sentences, and the order in which they are tried. To add one: a function here, its place in the list, a test."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

from operon.explain.facts import Cluster, Place, Subject, Target, Wait, WaitCode, Why
from operon.explain.words import ago, between, brief, duration, moment, some
from operon.status import Status

NOTHING_WRONG = "Nothing is wrong."
COUNTED_MAX = 100  # of messages; more than that is "over 100"


def explain(subject: Subject, cluster: Cluster) -> Why:
    """What a workflow does now, and if it does nothing, why, until when, and where to look next."""
    if subject.status is not Status.PENDING:
        return ended(subject, cluster)
    for reason in REASONS:
        why = reason(subject, cluster)
        if why is not None:
            return why
    return running(subject, cluster)


# ---------------------------------------------------------------------- the end


def ended(subject: Subject, cluster: Cluster) -> Why:
    """It is over, or an operator has to decide."""
    error = subject.error
    match subject.status:
        case Status.SUCCESS:
            return Why("finished", f"Finished in {duration(between(subject.created_at, subject.updated_at))}.")
        case Status.CANCELLED:
            reason = "" if error is None else f": {error.message}"
            return Why("cancelled", f"Cancelled at {moment(subject.updated_at, cluster.now)}{reason}.")
        case Status.DEAD if error is not None and error.type == "NondeterminismError":
            return Why(
                "nondeterminism",
                f"Stopped: {error.message}. Nothing is lost: run the version that recorded it, or resume it with "
                "code that fits.",
            )
        case Status.DEAD if error is not None and error.type == "WorkflowDeadError":
            return Why("dead", f"Dead: {error.message}. Fix the cause, then resume.")
        case Status.DEAD:
            crashes = some(subject.crash_count, "crash", "crashes") if subject.crash_count else "Too many crashes"
            where = "" if subject.crash_step is None else f" at step {subject.crash_step}"
            last = "" if error is None else f", the last `{error.type}`"
            return Why("dead", f"{crashes} without progress{where}{last}. Fix the cause, then resume.")
        case _:
            kind = "an error" if error is None else f"`{error.type}`"
            return Why("error", f"Failed with {kind}; its own result, nothing is retried.")


# ---------------------------------------------------------------------- what holds it up


def database(_: Subject, cluster: Cluster) -> Why | None:
    away = cluster.database_away_seconds
    if away is None:
        return None
    return Why("database", f"The database has not answered for {duration(away)}; it goes on by itself.")


def zombie(subject: Subject, cluster: Cluster) -> Why | None:
    for place in cluster.places.values():
        if subject.workflow_uuid in place.zombies:
            next_ = owner_of(subject, cluster)
            now = f"{next_.name} runs it now" if next_ is not None and next_ is not place else "another life takes over"
            return Why("zombie", f"{place.name} did not stop when told; it is fenced and {now}.")
    return None


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
    place = owner_of(subject, cluster)
    where = "" if place is None else f" on {place.name}"
    with_ = "" if subject.error is None else f" (`{subject.error.type}`)"
    of = "" if cluster.crash_budget is None else f" of {cluster.crash_budget}"
    count = f", {subject.crash_count}{of} without progress" if subject.crash_count else ""
    again = "" if until is None else f"; restarts at {moment(until, cluster.now)}"
    return Why("crashed", f"Its actor crashed{where}{with_}{count}{again}.", until)


# ---------------------------------------------------------------------- what it waits for


def waiting(subject: Subject, cluster: Cluster) -> Why | None:
    wait = subject.wait
    if wait is None or wait.code == WaitCode.CRASH or has_come(subject, cluster):
        return None
    match wait.code:
        case WaitCode.MESSAGE:
            return recv(subject, wait, cluster)
        case WaitCode.TIME:
            if wait.until is None:
                return Why("sleep", f"Sleeps. {NOTHING_WRONG}")
            left = duration(between(cluster.now, wait.until))
            return Why("sleep", f"Sleeps until {moment(wait.until, cluster.now)} ({left}). {NOTHING_WRONG}", wait.until)
        case _:
            return other(wait, cluster)


def has_come(subject: Subject, cluster: Cluster) -> bool:
    """Whether what it waits for is there, so that it only has to be brought back."""
    wait = subject.wait
    if wait is None:
        return False
    if wait.until is not None and wait.until <= cluster.now:
        return True
    if wait.code == WaitCode.MESSAGE:
        return not set(wait.topics).isdisjoint(subject.topics_there)
    if wait.code == WaitCode.RESULT:
        return wait.target is not None and wait.target.status is not Status.PENDING
    return False


def recv(subject: Subject, wait: Wait, cluster: Cluster) -> Why:
    on = " or ".join(f"`{topic}`" if topic else "no topic" for topic in wait.topics)
    since = "" if wait.since is None else f" since {moment(wait.since, cluster.now)} ({ago(wait.since, cluster.now)})"
    until = "" if wait.until is None else f", until {moment(wait.until, cluster.now)}"
    others = len(subject.topics_there)
    there = ""
    if others:
        count = f"over {COUNTED_MAX} messages" if others > COUNTED_MAX else some(others, "message")
        there = f" {count} on other topics {'is' if others == 1 else 'are'} there."
    return Why("recv", f"Waits for a message on {on}{since}{until}.{there} {NOTHING_WRONG}", wait.until)


def other(wait: Wait, cluster: Cluster) -> Why:
    """Waits for another workflow."""
    target = wait.target
    if target is None:
        return Why("handle", f"Waits for {wait.what}.", wait.until)
    link = link_to(target.workflow_uuid)
    if target.waits_for_us and target.status is Status.PENDING:
        text = (
            f"Waits for {brief(target.workflow_uuid)}, which waits for this one: neither can go on. Cancel one, or "
            "send what it waits for."
        )
        return Why("cycle", text, wait.until, link)
    whose = f"`{target.name}` {brief(target.workflow_uuid)}"
    if wait.code == WaitCode.EVENT:
        event = f"Waits for event `{wait.key}` of {whose}"
        if target.status is Status.PENDING:
            return Why("event", f"{event}, {what_it_does(target)}.", wait.until, link)
        ends = (
            "waits until that is resumed" if wait.until is None else f"times out at {moment(wait.until, cluster.now)}"
        )
        return Why("event_never", f"{event}, which is {target.status} and did not set it; it {ends}.", wait.until, link)
    if target.is_child:
        return Why("child", f"Waits for child {whose}, {what_it_does(target)}.", wait.until, link)
    return Why("handle", f"Waits for the result of {whose}, {what_it_does(target)}.", wait.until, link)


def what_it_does(target: Target) -> str:
    return "which runs" if target.waits_for is None else f"which itself waits for {target.waits_for}"


# ---------------------------------------------------------------------- who runs it


def unowned(subject: Subject, cluster: Cluster) -> Why | None:
    """Nobody runs it, or it is to be brought back."""
    owner = owner_of(subject, cluster)
    come = has_come(subject, cluster)
    if owner is not None and owner.state != "dead" and not come:
        return None
    since = subject.updated_at if subject.wait is None or subject.wait.until is None else subject.wait.until
    for_ = ago(min(since, cluster.now), cluster.now)
    takers = [place for place in cluster.places.values() if place.counts]
    if not takers:
        return Why(
            "no_executor", f"Ready for {for_}: no executor is alive.{last_seen(cluster)}", link="/operon/supervisor"
        )
    if all(place.names is not None and subject.name not in place.names for place in takers):
        text = f"No executor has an operation named `{subject.name}`. It runs when the code is back."
        return Why("no_code", text, link="/operon/supervisor")
    able = [place for place in takers if place.names is None or subject.name in place.names]
    if all(place.full for place in able):
        limit = able[0].max_live
        who = "the executor is at its limit" if len(able) == 1 else f"all {len(able)} executors are at their limit"
        return Why("no_slot", f"Ready for {for_}: {who} of {limit:,} live workflows.", link="/operon/supervisor")
    if all(place.full or subject.name in place.full_names for place in able):
        limit = max(place.full_names.get(subject.name, 0) for place in able)
        text = f"Ready for {for_}: `{subject.name}` is at its limit of {limit:,} live workflows in an executor."
        return Why("no_slot", text, link=f"/operon/supervisor?name={subject.name}")
    if come:
        return Why("ready", "What it waited for has come; it is about to be brought back.")
    before = subject.ready_before
    line = "" if before is None else "; none is before it" if not before else f"; {some(before, 'other')} before it"
    return Why("ready", f"Ready for {for_}{line}.")


def last_seen(cluster: Cluster) -> str:
    gone = [place for place in cluster.places.values() if place.died_at is not None]
    last = max(gone, key=lambda place: place.died_at or cluster.now, default=None)
    if last is None or last.died_at is None:
        return ""
    return f" The last, {last.name}, left at {moment(last.died_at, cluster.now)}."


def owner_in_doubt(subject: Subject, cluster: Cluster) -> Why | None:
    place = owner_of(subject, cluster)
    match place:
        case Place(state="suspect"):
            age, left = duration(place.lease_age_seconds), duration(place.moves_in_seconds)
            text = f"Owned by {place.name}, whose lease is {age} old; it moves at the latest in {left}."
            return Why("owner_suspect", text, link="/operon/supervisor")
        case Place(state="draining"):
            text = f"{place.name} is draining: it finishes this step, then another executor takes it."
            return Why("owner_draining", text, link="/operon/supervisor")
        case _:
            return None


def running(subject: Subject, cluster: Cluster) -> Why:
    place = owner_of(subject, cluster)
    where = "" if place is None else f" on {place.name}"
    if subject.step_name is None:
        doing = "" if subject.step is None else f" step {subject.step}"
        return Why("running", f"Runs{doing}{where} for {ago(subject.created_at, cluster.now)}.")
    since = "" if subject.step_at is None else f" {ago(subject.step_at, cluster.now)} ago"
    return Why("running", f"Runs{where}; step {subject.step}, `{subject.step_name}`, was recorded{since}.")


def owner_of(subject: Subject, cluster: Cluster) -> Place | None:
    return None if subject.owner is None else cluster.places.get(subject.owner)


def link_to(workflow_uuid: UUID) -> str:
    return f"/operon/supervisor?uuid={workflow_uuid}"


# The first that answers wins. Who is stuck for a reason of the cluster's is told that before what it waits for.
REASONS: tuple[Callable[[Subject, Cluster], Why | None], ...] = (
    database,
    zombie,
    suspended,
    crashed,
    waiting,
    unowned,
    owner_in_doubt,
)
