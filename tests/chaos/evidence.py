"""What shows that the faults bit. A run in which nothing was ever taken over, refused or in doubt proves nothing, and
is invalid."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.chaos.application import Call
from tests.chaos.desk import Desk
from tests.chaos.faults import Faults
from tests.chaos.fleet import Fleet
from tests.chaos.plan import required
from tests.chaos.server import Server

# What executors say, and what it means.
SAID = {
    "executors declared dead by another": "is dead; its workflows are taken over",
    "executors that found out that they were dead": "was declared dead; its workflows go on elsewhere",
    "flushes of unknown outcome": "a flush was interrupted",
    "heartbeats that failed": "a heartbeat failed",
    "loops found stuck": "the event loop is stuck",
    "notifications not heard": "does not hear notifications",
}
# A flush of an executor that was declared dead, of one that has lost the workflow, and a transaction of either.
OF_THE_DEAD = ("OP001", "OP002", "23502 of a checkpoint")
TAKEN_OVER = "select count(*) from operon.workflows where epoch > 1"
CLAIMS = "select coalesce(sum(epoch - 1), 0) from operon.workflows"


async def evidence(
    fleet: Fleet, server: Server, desk: Desk, faults: Faults, calls: Sequence[Call], logs: Sequence[Path]
) -> dict[str, int]:
    """Everything that was counted."""
    text = "".join(log.read_text(errors="replace") for log in logs if log.exists())
    wire: Counter[str] = Counter()
    for slot in fleet.slots:
        wire.update(slot.proxy.counts)
    times = Counter(call.key for call in calls)
    return {
        **{f"fault: {what}": count for what, count in sorted(faults.bitten.items())},
        **{f"wire: {what}": count for what, count in sorted(wire.items())},
        **{f"refused: {state}": count for state, count in sorted(server.refusals.items())},
        "writes of the dead that were refused": sum(server.refusals[state] for state in OF_THE_DEAD),
        **{what: text.count(words) for what, words in SAID.items()},
        "lives": fleet.lives,
        "orders": len(desk.answers),
        "orders given out again": desk.repeated,
        "clients cancelled": desk.cancelled,
        "workflows": await server.ask("select count(*) from operon.workflows"),
        "workflows taken over": await server.ask(TAKEN_OVER),
        "claims": int(await server.ask(CLAIMS)),
        "calls": len(calls),
        "calls made again": len(calls) - len(times),
    }


def guards(seconds: float) -> Mapping[str, int]:
    """What has to have happened, and how often, in a run of this length."""
    faults = required(seconds)
    zombies = faults["stop"]
    return {
        **{f"fault: {what}": least for what, least in faults.items()},
        "workflows taken over": faults["kill"],
        "executors declared dead by another": faults["kill"],
        "executors that found out that they were dead": zombies,
        "writes of the dead that were refused": max(1, zombies // 2),
        "refused: 23502 of a checkpoint": 1 if seconds >= 300 else 0,
        "refused: 40001": 1,
        "flushes of unknown outcome": faults["cut"],
        "wire: flush landed": 1,
        "wire: flush refused": 1,
        "wire: commit landed": 1 if seconds >= 300 else 0,
        "calls made again": faults["kill"] // 4,
        "clients cancelled": faults["kill"] // 4,
        "orders": int(2 * seconds),
    }


def missing(counts: Mapping[str, int], seconds: float) -> list[str]:
    """Which of the guards are not met."""
    return [
        f"{what}: {counts.get(what, 0)}, and {least} are needed"
        for what, least in guards(seconds).items()
        if counts.get(what, 0) < least
    ]
