"""Concurrent steps replay under the numbers that they had, whatever order the clock gave their answers.

The property: a random tree of concurrent branches, answered in random order with random pauses, is stopped after any
number of records; the next life, answered in another order, must give every recorded number to the same place of the
tree, and the result must be the one that any order gives. All steps have one name, so a mix-up is not found by the
check of names: it would be the wrong answer in the wrong branch, silently.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from typing import Any, cast
from uuid import UUID

import pytest

from operon.database.checkpoints import Checkpoint
from operon.database.lease import Lease
from operon.database.writer import Writer
from operon.runtime.committer import Committer
from operon.runtime.journal import Journal, StepKind, announcement

WORKFLOW = UUID(int=1)
KIND = StepKind.COMMUNICATOR

Tree = tuple[Any, ...]


# ---------------------------------------------------------------------- random trees of branches


def random_tree(rng: random.Random, depth: int) -> Tree:
    """`step`; `row`: one after another; `gather`, `group`: together; `race`: whoever is ready goes on first."""
    shape = "step" if depth == 0 else rng.choice(("step", "row", "row", "gather", "group", "race"))
    if shape == "step":
        return ("step",)
    return (shape, *(random_tree(rng, depth - 1) for _ in range(rng.randint(2, 3))))


NOBODY = cast(Writer, None)


class Life:
    """One life of a workflow: its journal, and the world that answers its steps when the test says so."""

    def __init__(self, recorded: list[Checkpoint]) -> None:
        # A committer that nobody runs: what is appended stays in its batch, in order, to be read from there.
        self._committer = Committer((NOBODY, NOBODY), cast(Lease, None), lambda: None, lambda _batch: None)
        self._journal = Journal(self._committer, WORKFLOW, "tree", recorded, None)
        self._recorded = recorded
        self.places: dict[int, str] = {}  # number -> where in the tree it was called
        self.waiting: dict[str, asyncio.Future[None]] = {}

    def step(self, place: str) -> Coroutine[Any, Any, str]:
        """A communicator as the runtime calls one: numbered now, answered later."""
        step = self._journal.call(KIND, "step")
        assert step.number not in self.places
        self.places[step.number] = place

        async def answered() -> str:
            journal = self._journal
            try:
                if step.recorded is None:
                    journal.announce(step, "step")
                else:
                    if journal.overlapping:
                        await journal.turn(step)
                    return (step.recorded.output or b"").decode()
                self.waiting[place] = asyncio.get_running_loop().create_future()
                await self.waiting[place]
                journal.record(step, KIND, "step", place.encode(), 0.0)
                if journal.overlapping:
                    await journal.turn(step)
                return place
            finally:
                journal.delivered(step)

        return answered()

    async def walk(self, tree: Tree, place: str) -> Any:
        """Runs a tree; the places of its steps, in the tree's own order."""
        shape, *branches = tree
        parts = [(branch, f"{place}.{n}") for n, branch in enumerate(branches)]
        match shape:
            case "step":
                return await self.step(place)
            case "row":
                return [await self.walk(*part) for part in parts]
            case "gather":
                return await asyncio.gather(*(self.walk(*part) for part in parts))
            case "group":
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(self.walk(*part)) for part in parts]
                return [task.result() for task in tasks]
            case _:
                # Tasks, because `as_completed` starts bare coroutines in the order of their addresses.
                async with asyncio.TaskGroup() as group:
                    racers = [group.create_task(self.walk(*part)) for part in parts]
                    return sorted([await self._follow(first) for first in asyncio.as_completed(racers)], key=str)

    async def _follow(self, walk: Any) -> Any:
        """What a race is won for: its winner's next step comes before the loser's."""
        won = await walk
        return [won, await self.step(f"after {won}")]

    def stop(self) -> None:
        """As a kill would: nothing that happens from here on is recorded."""
        self._committer.seal()

    @property
    def appended(self) -> list[Checkpoint]:
        """What this life has recorded, in the order in which it was appended."""
        batch = self._committer._current  # pyright: ignore[reportPrivateUsage]
        return [
            Checkpoint(number, kind, "step", output, None, batch.c_seen.get(row))
            for row, (number, kind, output) in enumerate(zip(batch.c_step, batch.c_kind, batch.c_output, strict=True))
        ]


async def live(rng: random.Random, tree: Tree, recorded: list[Checkpoint], records_max: int) -> tuple[Life, Any]:
    """Lives until the end, or until so many records are made; answers in random order, after random pauses."""
    life = Life(recorded)
    body = asyncio.ensure_future(life.walk(tree, "tree"))
    patience = rng.choice((0, 1, 3, 8))
    calls = {called(checkpoint) for checkpoint in recorded}
    while not body.done() and (len(life.appended) < records_max or not calls <= life.places.keys()):
        for _ in range(rng.randint(0, patience)):
            await asyncio.sleep(0)
        ready = [place for place, future in life.waiting.items() if not future.done()]
        for place in rng.sample(ready, min(len(ready), rng.choice((1, 1, 1, 2, 5)))):
            life.waiting[place].set_result(None)
        await asyncio.sleep(0)
    if not body.done():
        life.stop()
        body.cancel()
        await asyncio.gather(body, return_exceptions=True)
        return life, None
    return life, body.result()


def called(checkpoint: Checkpoint) -> int:
    """The number of a recorded step, or of an announced call."""
    return checkpoint.step if checkpoint.step >= 0 else announcement(checkpoint.step)


@pytest.mark.parametrize("seed", range(120))
async def test_any_tree_answered_in_any_order_replays_under_the_same_numbers(seed: int) -> None:
    rng = random.Random(seed)
    tree = random_tree(rng, 3)
    places: dict[int, str] = {}
    recorded: list[Checkpoint] = []
    result: Any = None

    while result is None:
        life, result = await live(rng, tree, recorded, rng.randint(1, 6))
        for checkpoint in recorded:
            assert life.places[called(checkpoint)] == places[called(checkpoint)]
        # A crash keeps what was durable, which is all that was appended up to some moment.
        kept = life.appended if result is not None else life.appended[: rng.randint(1, 6)]
        recorded = sorted([*recorded, *kept])
        places.update({called(checkpoint): life.places[called(checkpoint)] for checkpoint in kept})

    for checkpoint in recorded:
        if checkpoint.step >= 0:
            assert checkpoint.output == places[checkpoint.step].encode()
    replayed, again = await live(rng, tree, recorded, 1)
    assert again == result
    assert replayed.appended == []
    assert replayed.places == places
