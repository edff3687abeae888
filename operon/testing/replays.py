"""Replays what finished in a private database, and tells what came out differently."""

from __future__ import annotations

import asyncio
from bisect import bisect_right

from operon.database import checkpoints, testbed, workflows
from operon.errors import DatabaseUnavailable, NondeterminismError
from operon.runtime.executor import Executor
from operon.runtime.replay import Difference, replay

READ_SECONDS = 30.0
REPLAYS_MAX = 1_000  # the latest ones; a test that starts more repeats itself
SHOWN = 3  # of the differences


async def check_replay(executor: Executor) -> int:
    """Replays every workflow that ended; gives how many. Raises NondeterminismError."""
    incarnation = executor.incarnation
    try:
        async with asyncio.timeout(READ_SECONDS), incarnation.look_ups.connection() as connection:
            await incarnation.committer.drained()  # an end is told before it is recorded
            ended = await workflows.finished(connection, list(incarnation.catalog.operations), REPLAYS_MAX)
            history = await checkpoints.history(connection, [workflow.row.workflow_uuid for workflow in ended])
            moves = await testbed.moves(connection)
    except TimeoutError:
        raise DatabaseUnavailable(
            f"the database has not said in {READ_SECONDS:g} s which workflows there are to replay",
            hint="a test that leaves its database broken says check_replay=False",
        ) from None
    differences: list[Difference] = []
    for workflow in ended:
        recorded = history.get(workflow.row.workflow_uuid, [])
        difference = await replay(incarnation, workflow, recorded, workflow.ended_at + ahead(moves, workflow.ended_at))
        if difference is not None:
            differences.append(difference)
    if differences:
        shown = "\n\n".join(map(str, differences[:SHOWN]))
        raise NondeterminismError(
            f"of {len(ended)} workflows that ended, {len(differences)} came out differently when replayed\n\n{shown}\n",
            hint="a workflow decides only by its arguments and by what its steps answer: take the time, random numbers "
            "and UUIDs from the context, and everything else from a step; or say check_replay=False",
        )
    return len(ended)


def ahead(moves: list[tuple[float, float]], moment: float) -> float:
    """How many seconds the database's clock was ahead at a moment."""
    at = bisect_right(moves, moment, key=lambda move: move[0])
    return moves[at - 1][1] if at else 0.0
