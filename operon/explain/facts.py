"""What `explain` is told: one workflow, and the cluster around it. Times are the database's, with a time zone."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import IntEnum
from uuid import UUID

import msgspec

from operon.status import Status


class WaitCode(IntEnum):
    """What a workflow waits for, as the database holds it."""

    MESSAGE = 0
    EVENT = 1
    RESULT = 2
    TIME = 3
    CRASH = 4  # for its next life


class Error(msgspec.Struct, frozen=True):
    """A recorded error."""

    type: str
    message: str


class Target(msgspec.Struct, frozen=True):
    """Another workflow that this one waits for."""

    workflow_uuid: UUID
    name: str
    status: Status
    is_child: bool = False
    waits_for: str | None = None  # in words
    waits_for_us: bool = False


class Wait(msgspec.Struct, frozen=True):
    """What it waits for, the first thing if there are several."""

    code: int
    what: str = ""  # all of it, in words
    since: datetime | None = None
    until: datetime | None = None
    topics: tuple[str, ...] = ()  # '' for messages without a topic
    key: str | None = None  # of the event
    target: Target | None = None


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """One workflow."""

    workflow_uuid: UUID
    name: str
    status: Status
    created_at: datetime
    updated_at: datetime
    owner: int | None = None  # the executor that has it
    wait: Wait | None = None
    topics_there: tuple[str, ...] = ()  # of the messages in its mailbox
    crash_count: int = 0  # without progress
    crash_step: int | None = None
    restarts_at: datetime | None = None  # it crashed, and is between two lives in its executor's memory
    error: Error | None = None  # its outcome, or the last crash
    step: int | None = None  # the last that is known
    step_name: str | None = None
    step_at: datetime | None = None  # when that was recorded
    ready_before: int | None = None  # older ones that nobody runs either


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """An executor."""

    incarnation: int
    name: str
    state: str = "alive"  # alive, suspect, draining, dead
    lease_age_seconds: float = 0.0
    moves_in_seconds: float = 0.0  # at the latest, if its lease is not renewed
    live: int | None = None
    max_live: int | None = None
    names: frozenset[str] | None = None  # of the operations that it can run; None: not known, or not all of them
    full_names: Mapping[str, int] = {}  # names with a limit of live workflows that is reached, and the limit
    zombies: frozenset[UUID] = frozenset()
    died_at: datetime | None = None

    @property
    def full(self) -> bool:
        """Whether it has as many live workflows as it may."""
        return self.live is not None and self.max_live is not None and self.live >= self.max_live

    @property
    def counts(self) -> bool:
        """Whether it may take work."""
        return self.state in ("alive", "suspect")


class Suspended(msgspec.Struct, frozen=True):
    """Workflows of a name are not run for now."""

    since: datetime
    until: datetime | None = None  # when one of them is tried
    crashes: int | None = None


class Cluster(msgspec.Struct, frozen=True, kw_only=True):
    """Everything around the workflow."""

    now: datetime
    places: Mapping[int, Place]
    suspended: Mapping[str, Suspended]
    crash_budget: int | None = None
    database_away_seconds: float | None = None


class Why(msgspec.Struct, frozen=True, omit_defaults=True):
    """The answer. `until`: when it changes by itself; `link`: where to look next."""

    code: str
    text: str
    until: datetime | None = None
    link: str | None = None
