"""How a workflow ended, or that an operator has to decide: the sentences of those that are over."""

from __future__ import annotations

from operon.explain.facts import Cluster, Error, Subject, Why
from operon.explain.words import between, duration, moment, some
from operon.status import Status


def ended(subject: Subject, cluster: Cluster) -> Why:
    """It is over, or an operator has to decide."""
    error = subject.error
    match subject.status:
        case Status.SUCCESS:
            return Why("finished", f"Finished in {duration(between(subject.created_at, subject.updated_at))}.")
        case Status.CANCELLED:
            reason = "" if error is None else f": {error.message}"
            return Why("cancelled", f"Cancelled at {moment(subject.updated_at, cluster.now)}{reason}.")
        case Status.DEAD:
            return dead(subject, error, cluster)
        case _:
            return Why("error", f"Failed{step(subject)} with {kind(error)}; its own result, nothing is retried.")


def dead(subject: Subject, error: Error | None, cluster: Cluster) -> Why:
    """It cannot go on by itself."""
    if error is not None and error.type == "NondeterminismError":
        text = f"Stopped: {error.message}. Nothing is lost: {mended(subject, cluster)}."
        return Why("nondeterminism", text)
    if error is not None and error.type == "WorkflowDeadError":
        return Why("dead", f"Dead: {error.message}. Fix the cause, then resume.")
    crashes = some(subject.crash_count, "crash", "crashes") if subject.crash_count else "Too many crashes"
    where = "" if subject.crash_step is None else f" at step {subject.crash_step}"
    last = "" if error is None else f", the last `{error.type}`"
    return Why("dead", f"{crashes} without progress{where}{last}. Fix the cause, then resume.")


def mended(subject: Subject, cluster: Cluster) -> str:
    """What to do about code that does not fit what was recorded."""
    fits = "resume it with code that fits"
    if not subject.version:
        return f"run the version that recorded it, or {fits}"
    runs = sorted({place.version for place in cluster.places.values() if place.counts})
    if subject.version in runs:  # the number has not changed, but the code has
        return f"it was started by version {subject.version}, as it now runs; {fits}"
    now = f", and now {' and '.join(runs)} runs" if runs else ""
    return f"it was started by version {subject.version}{now}; run that one and resume it, or {fits}"


def step(subject: Subject) -> str:
    """Where it was, as far as that is recorded."""
    if subject.step is None:
        return ""
    name = "" if not subject.step_name else f", `{subject.step_name}`,"
    return f" {'at' if subject.step_failed else 'after'} step {subject.step}{name}"


def kind(error: Error | None) -> str:
    return "an error" if error is None else f"`{error.type}`"
