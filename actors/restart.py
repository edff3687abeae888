"""Who is restarted, how often, and after how long: the policy, in plain functions.

Nothing here waits, looks at a clock or touches a task, so the whole policy can be read as a table and tested as one:

    exit \\ restart      PERMANENT   TRANSIENT   TEMPORARY
    crashed             restart     restart     forget
    normal              restart     forget      forget
    shutdown, stopped,  forget      forget      forget
    zombie

and a restart that the window has no room for escalates. The rules are those of OTP's supervisor (Erlang's
"Supervisor Behaviour"); the pause before a restart is not: OTP restarts at once, and a child that cannot start then
spins through its budget in milliseconds. The pause uses full jitter ("Exponential Backoff And Jitter", AWS
Architecture Blog, 2015), so that a thousand children that lost the same database do not come back in one instant.
"""

from __future__ import annotations

import random
from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum, StrEnum, auto

from actors.exits import Crashed, Exit, Normal

__all__ = ["Backoff", "Intensity", "Restart", "Strategy", "Verdict", "decide", "wants_restart"]


class Restart(StrEnum):
    """Which exits bring a child back."""

    PERMANENT = "permanent"  # every exit that nobody asked for
    TRANSIENT = "transient"  # a crash only: returning means being done
    TEMPORARY = "temporary"  # none


class Strategy(StrEnum):
    """Who goes down, and comes back, together with a child that crashed."""

    ONE_FOR_ONE = "one_for_one"  # nobody
    ONE_FOR_ALL = "one_for_all"  # all its siblings
    REST_FOR_ONE = "rest_for_one"  # the siblings started after it


class Verdict(Enum):
    """What is to happen after an exit."""

    FORGET = auto()
    RESTART = auto()
    ESCALATE = auto()


@dataclass(frozen=True, slots=True)
class Intensity:
    """How many restarts a supervisor bears: at most `restarts` within `period` seconds."""

    restarts: int = 3
    period: float = 5.0

    def __post_init__(self) -> None:
        if self.restarts < 0 or self.period <= 0:
            raise ValueError(f"intensity needs restarts >= 0 and period > 0, not {self.restarts} and {self.period}")

    def used(self, history: Collection[float], now: float) -> int:
        """Count the restarts of `history` (times in seconds, on the clock of `now`) that are still in the window."""
        oldest = now - self.period
        return sum(1 for when in history if when > oldest)

    def full(self, history: Collection[float], now: float) -> bool:
        """Say whether one more restart would be too many."""
        return self.used(history, now) >= self.restarts


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait before a restart, in seconds: up to `first`, then twice as long each time, at most `longest`.

    With `jitter` (the default) the pause is drawn evenly from zero to that bound; without, it is the bound.
    """

    first: float = 0.1
    longest: float = 30.0
    jitter: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.first <= self.longest:
            raise ValueError(f"backoff needs 0 <= first <= longest, not {self.first} and {self.longest}")

    def delay(self, crashes: int) -> float:
        """Return the pause after the given number of crashes in a row (1 or more)."""
        # 2**64 times anything is beyond `longest`, and 2.0**1024 is an OverflowError.
        bound = min(self.longest, self.first * 2.0 ** min(crashes - 1, 64))
        return random.uniform(0, bound) if self.jitter else bound  # noqa: S311 - spreads load, hides nothing


def wants_restart(restart: Restart, exit: Exit) -> bool:
    """Say whether this exit brings a child of this restart type back, room in the window permitting."""
    match exit:
        case Crashed():
            return restart is not Restart.TEMPORARY
        case Normal():
            return restart is Restart.PERMANENT
        case _:  # it was told to go, or left by a door that its supervisor knows
            return False


def decide(restart: Restart, exit: Exit, history: Collection[float], now: float, intensity: Intensity) -> Verdict:
    """Judge an exit. `history` has the times of earlier restarts; the present one is not in it yet."""
    if not wants_restart(restart, exit):
        return Verdict.FORGET
    return Verdict.ESCALATE if intensity.full(history, now) else Verdict.RESTART
