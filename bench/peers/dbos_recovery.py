"""DBOS's part of W6: the same workflow, gate and roles as in `bench.interrupted`.

The recovering process has the executor id and the version of the one that was killed, and so begins at its launch.
"""

from __future__ import annotations

from typing import Any

from dbos import DBOS

from bench import harness
from bench.gate import Gate, Part, part_from_arguments
from bench.peers.dbos_bench import config

gate = Gate()


@DBOS.step()
async def charge(item: str, number: int) -> dict[str, Any]:
    return {"step": number, "done": f"charged {item}", "cents": 5000}


@DBOS.step()
async def pass_gate() -> None:
    await gate.passed()


@DBOS.workflow()
async def interrupted(item: str) -> None:
    for number in (1, 2, 3):
        await charge(item, number)
    await pass_gate()


async def main(part: Part) -> None:
    gate.shut, gate.awaited = part.role == "crash", part.workflows
    DBOS(config=config(part.database_url))
    DBOS.launch()
    if part.role == "crash":
        for number in range(part.workflows):
            await DBOS.start_workflow_async(interrupted, f"seat {number}")
        await gate.all_arrived.wait()
    await harness.parent_says_go({"bench": "ready"})


if __name__ == "__main__":
    harness.run(main(part_from_arguments()))
