"""What a workflow that has an executor does there, and how far it is: the sentences of those that run."""

from __future__ import annotations

from operon.explain.facts import Cluster, Doing, Place, Subject, Why
from operon.explain.words import ago, between, duration, moment, some

LONG_SECONDS = 1.0  # what takes less is never called long
STANDS_SECONDS = 5.0  # from then on it is also said where its code stands


def owner_of(subject: Subject, cluster: Cluster) -> Place | None:
    """The executor that has it, if that is known."""
    return None if subject.owner is None else cluster.places.get(subject.owner)


def owner_in_doubt(subject: Subject, cluster: Cluster) -> Why | None:
    """Whoever has it may be gone, or is about to go."""
    place = owner_of(subject, cluster)
    match place:
        case Place(state="suspect"):
            age, left = duration(place.lease_age_seconds), duration(place.moves_in_seconds)
            text = f"Owned by {place.name}, whose lease is {age} old; it moves at the latest in {left}."
            return Why("owner_suspect", text, link="/operon/supervisor")
        case Place(state="draining"):
            doing = subject.doing
            what = "this step" if doing is None or doing.name is None else f"`{doing.name}`"
            text = f"{place.name} is draining: it finishes {what}, then another executor takes it."
            return Why("owner_draining", text, link="/operon/supervisor")
        case _:
            return None


def retried(subject: Subject, cluster: Cluster) -> Why | None:
    """A call that has failed, and is made again."""
    doing = subject.doing
    if doing is None or doing.name is None or not doing.failures:
        return None
    if doing.kind == "transaction":
        met = some(doing.failures, "conflict or lost connection", "conflicts or lost connections")
        last = "" if doing.last_error is None else f", the last `{doing.last_error}`"
        waits = doing.again_at is not None and doing.again_at > cluster.now
        again = f"in {duration(between(cluster.now, doing.again_at))}" if waits and doing.again_at else "now"
        text = f"Its transaction `{doing.name}` met {met}{last}, and tries again {again}{told(subject)}."
        return Why("transaction_retry", text, doing.again_at if waits else None)
    if doing.again_at is None:
        return None
    of = "" if doing.attempts_max is None else f" of {doing.attempts_max}"
    last = "" if doing.last_error is None else f", the last with `{doing.last_error}`"
    when = f"{moment(doing.again_at, cluster.now)}, in {duration(between(cluster.now, doing.again_at))}"
    failed = f"{doing.failures}{of} attempts failed{last}"
    return Why("backoff", f"Waits to try `{doing.name}` again at {when}: {failed}{told(subject)}.", doing.again_at)


def replaying(subject: Subject, cluster: Cluster) -> Why | None:
    """It is given again what was recorded."""
    doing = subject.doing
    if doing is None or doing.name is not None or not doing.recorded or doing.replayed is None:
        return None
    done = round(100 * doing.replayed / doing.recorded)
    text = f"Replays {doing.recorded:,} steps{on(subject, cluster)}, {done} % done{told(subject)}."
    return Why("replaying", text, stands=doing.stands)


def running(subject: Subject, cluster: Cluster) -> Why:
    """Nothing holds it up."""
    doing = subject.doing
    if doing is not None and doing.name is not None and doing.since is not None:
        return calling(subject, doing, cluster)
    where = on(subject, cluster)
    stands = () if doing is None else doing.stands
    if subject.step_name is None:
        step = "" if subject.step is None else f" step {subject.step}"
        return Why("running", f"Runs{step}{where} for {ago(subject.created_at, cluster.now)}.", stands=stands)
    since = "" if subject.step_at is None else f" {ago(subject.step_at, cluster.now)} ago"
    recorded = f"step {subject.step}, `{subject.step_name}`, was recorded{since}"
    return Why("running", f"Runs{where}; {recorded}{told(subject)}.", stands=stands)


def calling(subject: Subject, doing: Doing, cluster: Cluster) -> Why:
    """It calls a communicator, or runs a transaction."""
    seconds = 0.0 if doing.since is None else between(doing.since, cluster.now)
    many = doing.attempts_max is not None and doing.attempts_max > 1
    attempt = f", attempt {doing.attempt} of {doing.attempts_max}" if many else ""
    failed = f"; the last failed with `{doing.last_error}`" if doing.last_error is not None else ""
    others = f", and {doing.others} more at the same time" if doing.others else ""
    does = f"Runs `{doing.name}`{on(subject, cluster)} for {duration(seconds)}{attempt}{failed}{others}{told(subject)}"
    also = f" It also waits for {subject.wait.what}." if subject.wait is not None and subject.wait.what else ""
    usual = subject.usual
    if usual is not None and seconds > max(LONG_SECONDS, usual.seconds):
        here = f" It stands at {doing.stands[-1]}." if doing.stands else ""
        text = f"{does}; 99 % of {usual.count:,} take less than {duration(usual.seconds)}.{here}{also}"
        return Why("running_long", text, stands=doing.stands)
    return Why("running", f"{does}.{also}", stands=doing.stands)


def on(subject: Subject, cluster: Cluster) -> str:
    place = owner_of(subject, cluster)
    return "" if place is None else f" on {place.name}"


def told(subject: Subject) -> str:
    """How old this is, where another executor has said it."""
    return "" if subject.told_seconds is None else f", as it said {duration(subject.told_seconds)} ago"
