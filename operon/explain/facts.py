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


class Doing(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a live workflow does at a moment, as its executor says. Of several calls: the one that takes longest."""

    name: str | None = None  # of the communicator or transaction; None: no such thing is under way
    kind: str = "communicator"
    step: int | None = None
    since: datetime | None = None  # this attempt
    attempt: int = 1
    attempts_max: int | None = None  # None: as many as it takes
    failures: int = 0
    last_error: str | None = None  # what the last attempt failed with
    again_at: datetime | None = None  # it pauses before the next attempt
    others: int = 0  # calls that are under way beside it
    replayed: int | None = None  # it replays, and was given so many ...
    recorded: int | None = None  # ... of so many steps
    stands: tuple[str, ...] = ()  # `file:line function`, outermost first

    @property
    def calls(self) -> bool:
        """Whether something is under way that is not only waited for."""
        return self.name is not None and (self.kind == "transaction" or self.again_at is None)


class Usual(msgspec.Struct, frozen=True):
    """How long a step takes otherwise."""

    seconds: float  # 99 of 100 take less
    count: int  # of recorded ones


class Target(msgspec.Struct, frozen=True):
    """Another workflow that this one waits for."""

    workflow_uuid: UUID
    name: str
    status: Status
    is_child: bool = False
    wait: Wait | None = None  # what it waits for itself
    doing: Doing | None = None
    owned: bool = True  # somebody runs it
    circle: int = 0  # how many workflows wait for one another in a circle, with the one that is explained; 0: none


class Wait(msgspec.Struct, frozen=True):
    """What it waits for, the first thing if there are several."""

    code: int
    what: str = ""  # all of it, in words
    since: datetime | None = None
    until: datetime | None = None
    topics: tuple[str, ...] = ()  # '' for messages without a topic
    key: str | None = None  # of the event
    target: Target | None = None
    has_happened: bool = False  # what it waits for of another workflow


class SetAside(msgspec.Struct, frozen=True):
    """Messages that a workflow crashed at again and again, and that are dead letters now."""

    count: int
    topic: str | None  # of the last one
    detail: str | None = None


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
    step_failed: bool = False  # its answer is an error
    ready_before: int | None = None  # older ones that nobody runs either
    version: str = ""  # of the application that started it
    set_aside: SetAside | None = None
    live: bool = False  # in the memory of its executor
    doing: Doing | None = None
    told_seconds: float | None = None  # how long ago another executor said so
    usual: Usual | None = None  # of the step that is under way
    tried_alone: bool = False  # its process died with it again and again: it is run beside no other such


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """An executor."""

    incarnation: int
    name: str
    version: str = ""
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
    """The answer. `until`: when it changes by itself; `link`: where to look next; `stands`: where its code is."""

    code: str
    text: str
    until: datetime | None = None
    link: str | None = None
    stands: tuple[str, ...] = ()
