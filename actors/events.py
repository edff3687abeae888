"""What happens in a supervision tree, told as it happens: for logs, tables, dashboards and tests."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from actors.exits import Exit

__all__ = ["Event", "Happening"]


class Happening(StrEnum):
    """What happened. An ordinary start or end of a dynamic child is not told: there may be 40,000 a second."""

    STARTED = "started"
    CRASHED = "crashed"
    RESTARTED = "restarted"
    FINISHED = "finished"
    ZOMBIE = "zombie"  # a child did not stop in time
    BURIED = "buried"  # ... and then did end
    SUSPENDED = "suspended"
    RESUMED = "resumed"
    ESCALATED = "escalated"  # the supervisor gave up
    STOPPED = "stopped"  # the supervisor stopped, and all its children before it


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened. `path`: the supervisors from the observed one down, then the child if there is one."""

    path: tuple[str, ...]
    happening: Happening
    exit: Exit | None = None
