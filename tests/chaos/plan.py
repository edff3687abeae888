"""What will happen to whom and when: all of it out of one seed, before anything begins.

Rates are those of the full run, ten minutes long; a shorter one has as much of everything as its length allows.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

FULL_SECONDS = 600.0

# How often in ten minutes, and how often it has to have bitten for the run to count.
RATES: dict[str, tuple[int, int]] = {
    "kill": (330, 200),  # SIGKILL of an executor
    "stop": (40, 20),  # SIGSTOP until it was declared dead, then SIGCONT: a zombie
    "terminate": (90, 50),  # pg_terminate_backend of some session
    "cancel": (90, 50),  # pg_cancel_backend of whatever runs in some moment, as a statement_timeout would
    "lock": (20, 10),  # somebody locks a table of ours for up to three quarters of a lease
    "kill session": (8, 4),  # SIGKILL of a process of Postgres, which then ends all others and recovers
    "crash server": (16, 10),  # Postgres: stopped immediately, started at once
    "cut": (90, 50),  # connections end at a commit
    "silence": (20, 10),  # an executor is cut off for up to two and a half leases
    "deaf": (20, 10),  # its notifications are dropped
    "block": (20, 10),  # its event loop is blocked for half a lease up to two
    "drain": (20, 10),  # SIGTERM
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that happens. `size` is between 0 and 1: how long, how many."""

    at: float
    what: str
    slot: int
    size: float


def plan(seed: int, seconds: float, slots: int, nth: int = 0) -> list[Fault]:
    """The faults of a run, or of another round of it, in order."""
    rng = random.Random(f"plan {seed} {nth}" if nth else f"plan {seed}")
    faults = [
        Fault(rng.uniform(0.03, 0.97) * seconds, what, rng.randrange(slots), rng.random())
        for what, (often, _) in RATES.items()
        for _ in range(max(2, round(often * seconds / FULL_SECONDS)))
    ]
    return sorted(faults, key=lambda fault: fault.at)


def required(seconds: float) -> dict[str, int]:
    """How often each fault has to have bitten in a run of this length."""
    return {what: max(1, int(least * seconds / FULL_SECONDS)) for what, (_, least) in RATES.items()}
