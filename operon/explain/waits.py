"""What a workflow waits for: messages, times, and other workflows with what those do."""

from __future__ import annotations

from operon.explain.facts import Cluster, SetAside, Subject, Target, Wait, WaitCode, Why
from operon.explain.words import ago, between, brief, duration, link_to, moment, some
from operon.status import Status

NOTHING_WRONG = "Nothing is wrong."
COUNTED_MAX = 100  # of messages; more than that is "over 100"
SLEEP = "sleep"  # what a plain sleep waits for


def waiting(subject: Subject, cluster: Cluster) -> Why | None:
    """It waits, and what it waits for has not come."""
    wait = subject.wait
    if wait is None or wait.code == WaitCode.CRASH or has_come(subject, cluster):
        return None
    if subject.doing is not None and subject.doing.calls:  # and besides it does something
        return None
    match wait.code:
        case WaitCode.MESSAGE:
            return recv(subject, wait, cluster)
        case WaitCode.TIME:
            return time(wait, cluster)
        case _:
            return other(wait, cluster)


def has_come(subject: Subject, cluster: Cluster) -> bool:
    """Whether what it waits for is there, so that it only has to be brought back."""
    wait = subject.wait
    if wait is None:
        return False
    if wait.has_happened or (wait.until is not None and wait.until <= cluster.now):
        return True
    if wait.code == WaitCode.MESSAGE:
        return not set(wait.topics).isdisjoint(subject.topics_there)
    if wait.code == WaitCode.RESULT:
        return wait.target is not None and wait.target.status is not Status.PENDING
    return False


def recv(subject: Subject, wait: Wait, cluster: Cluster) -> Why:
    """A message."""
    since = "" if wait.since is None else f" since {moment(wait.since, cluster.now)} ({ago(wait.since, cluster.now)})"
    until = "" if wait.until is None else f", until {moment(wait.until, cluster.now)}"
    others = len(subject.topics_there)
    there = ""
    if others:
        count = f"over {COUNTED_MAX} messages" if others > COUNTED_MAX else some(others, "message")
        there = f" {count} on other topics {'is' if others == 1 else 'are'} there."
    waits = f"Waits for a message on {named(wait.topics)}{since}{until}."
    if subject.set_aside is not None:
        return Why("recv_aside", f"{waits}{there} {aside(subject.set_aside)}", wait.until)
    return Why("recv", f"{waits}{there} {NOTHING_WRONG}", wait.until)


def aside(found: SetAside) -> str:
    """Messages that it was given too often."""
    on = "" if found.topic is None else f" on `{found.topic}`"
    if found.count == 1:
        why = "" if not found.detail else f": it {found.detail}"
        return f"1 message{on} was set aside as a dead letter{why}."
    count = f"Over {COUNTED_MAX}" if found.count > COUNTED_MAX else f"{found.count}"
    why = "" if not found.detail else f"; the last{on} {found.detail}"
    return f"{count} messages were set aside as dead letters{why}."


def named(topics: tuple[str, ...]) -> str:
    return " or ".join(f"`{topic}`" if topic else "no topic" for topic in topics)


def time(wait: Wait, cluster: Cluster) -> Why:
    """A time: a sleep, or the next attempt of something."""
    slept = not wait.what or wait.what.partition(";")[0] == SLEEP
    if wait.until is None:
        return Why("sleep", f"Sleeps. {NOTHING_WRONG}" if slept else f"Waits for {wait.what}.")
    left = duration(between(cluster.now, wait.until))
    if slept:
        return Why("sleep", f"Sleeps until {moment(wait.until, cluster.now)} ({left}). {NOTHING_WRONG}", wait.until)
    return Why("backoff", f"Waits until {moment(wait.until, cluster.now)} ({left}) for {wait.what}.", wait.until)


def other(wait: Wait, cluster: Cluster) -> Why:
    """Another workflow."""
    target = wait.target
    if target is None:
        return Why("handle", f"Waits for {wait.what}.", wait.until)
    link = link_to(target.workflow_uuid)
    if target.circle and target.status is Status.PENDING:
        return Why("cycle", cycle(target, wait, cluster), wait.until, link)
    whose = f"`{target.name}` {brief(target.workflow_uuid)}"
    if wait.code == WaitCode.EVENT:
        event = f"Waits for event `{wait.key}` of {whose}"
        if target.status is Status.PENDING:
            return Why("event", f"{event}, {what_it_does(target, cluster)}.", wait.until, link)
        ends = (
            "waits until that is resumed" if wait.until is None else f"times out at {moment(wait.until, cluster.now)}"
        )
        return Why("event_never", f"{event}, which is {target.status} and did not set it; it {ends}.", wait.until, link)
    if target.is_child:
        return Why("child", f"Waits for child {whose}, {what_it_does(target, cluster)}.", wait.until, link)
    return Why("handle", f"Waits for the result of {whose}, {what_it_does(target, cluster)}.", wait.until, link)


def cycle(target: Target, wait: Wait, cluster: Cluster) -> str:
    """They wait for one another."""
    way = {1: "itself", 2: f"{brief(target.workflow_uuid)}, which waits for this one"}.get(
        target.circle, f"{brief(target.workflow_uuid)}, which waits for this one by way of {target.circle - 2} more"
    )
    who = "it cannot" if target.circle == 1 else "neither can" if target.circle == 2 else "none of them can"
    before = "" if wait.until is None else f" before {moment(wait.until, cluster.now)}"
    return f"Waits for {way}: {who} go on{before}. Cancel one, or send what it waits for."


def what_it_does(target: Target, cluster: Cluster) -> str:
    """In half a sentence."""
    wait, doing = target.wait, target.doing
    if doing is not None and doing.name is not None:
        if doing.again_at is not None and doing.again_at > cluster.now:
            return f"which waits to try `{doing.name}` again"
        since = "" if doing.since is None else f" since {ago(doing.since, cluster.now)}"
        return f"which runs `{doing.name}`{since}"
    if wait is None:
        return "which runs" if target.owned else "which is ready to run"
    match wait.code:
        case WaitCode.MESSAGE:
            return f"which itself waits for a message on {named(wait.topics)}"
        case WaitCode.TIME if wait.until is not None and wait.what == SLEEP:
            return f"which sleeps until {moment(wait.until, cluster.now)}"
        case WaitCode.CRASH:
            return "which crashed, and waits for its next life"
        case _:
            return f"which itself waits for {wait.what}"
