"""The states of children and supervisors, in the words that reprs, snapshots and tests share."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["ChildState", "SupervisorState"]


class ChildState(StrEnum):
    """Where a child is in its life."""

    STARTING = "starting"
    RUNNING = "running"
    RESTARTING = "restarting"  # between two lives: waiting out its pause, or for a sibling
    STOPPING = "stopping"
    FINISHED = "finished"  # left in a way that brings nobody back
    CRASHED = "crashed"  # crashed, and will not be restarted
    ZOMBIE = "zombie"  # was told to stop, and did not


class SupervisorState(StrEnum):
    """Where a supervisor is in its life. After STOPPED it can be run again."""

    NEW = "new"
    STARTING = "starting"
    RUNNING = "running"
    SUSPENDED = "suspended"  # dynamic supervisors only: no new children, no restarts
    STOPPING = "stopping"
    STOPPED = "stopped"
