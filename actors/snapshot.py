"""A supervision tree as plain data: strings, numbers and tuples, ready for `dataclasses.asdict` and JSON.

Times are durations in seconds, because the loop's clock means nothing outside the process.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ChildSnapshot", "SupervisorSnapshot", "describe"]


@dataclass(frozen=True, slots=True)
class ChildSnapshot:
    """One child. `tree` is what is below it, when it is a supervisor itself."""

    name: str
    state: str
    restart: str
    restarts: int
    last_exit: str | None
    uptime_seconds: float | None
    last_error: str | None = None  # the message of the crash, if the last exit was one
    restart_in_seconds: float | None = None
    mailbox_depth: int | None = None
    tree: SupervisorSnapshot | None = None


@dataclass(frozen=True, slots=True)
class SupervisorSnapshot:
    """One supervisor. Of dynamic children only some are in `children`; `omitted` says how many are not.

    `restarts` counts since the supervisor was made; `restarts_in_window` of `restarts_allowed` are used up within the
    last `period_seconds`. For a dynamic supervisor these two count distinct children that crashed.
    """

    name: str
    strategy: str
    state: str
    dynamic: bool
    running: int
    restarting: int
    zombies: int
    restarts: int
    restarts_in_window: int
    restarts_allowed: int
    period_seconds: float
    uptime_seconds: float
    children: tuple[ChildSnapshot, ...] = ()
    omitted: int = 0


def describe(tree: SupervisorSnapshot) -> str:
    """Say it in one line, as reprs do."""
    parts = [f"{tree.running} running"]
    if tree.restarting:
        parts.append(f"{tree.restarting} restarting")
    if tree.zombies:
        parts.append(f"{tree.zombies} zombies")
    parts.append(f"{tree.restarts_in_window}/{tree.restarts_allowed} restarts in {tree.period_seconds:g} s")
    state = "" if tree.state == "running" else f" {tree.state}"
    return f"{tree.name} {tree.strategy}{state}: {', '.join(parts)}"
