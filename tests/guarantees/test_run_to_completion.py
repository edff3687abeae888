"""Processes are killed at random moments, again and again, and every workflow runs to completion all the same."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from functools import partial
from uuid import uuid4

import pytest

from tests.guarantees.worker.case import Case, Server, is_stopped, kill, until
from tests.guarantees.worker.life import Start
from tests.guarantees.worker.sites import Site

pytestmark = pytest.mark.long

WORKFLOWS = 30
KILLS = 6


@pytest.mark.parametrize("seed", [1, 2, None], ids=["1", "2", "any"])
async def test_every_workflow_of_a_batch_finishes_however_often_its_process_dies(
    server: Server, seed: int | None
) -> None:
    """The third seed is another one in each run, and stands in the name of the case."""
    seed = random.randrange(1_000_000) if seed is None else seed
    chance = random.Random(seed)
    async with server.case(f"seed {seed}") as case:
        starts = [Start("everything", uuid4(), (f"t{number}",)) for number in range(WORKFLOWS)]

        for _ in range(KILLS):
            life = len(case.processes)
            process = case.begin(case.again(starts), stay=True)
            # Not before anything happened: a moment between two calls that the world hears of.
            await until_calls(case, chance.randrange(1, WORKFLOWS * 2), life)
            await asyncio.sleep(chance.random() * 0.05)
            kill(process)
            assert await case.ended(process) == -9
            await case.settled()
        assert await case.live(case.again(starts)) == 0

        await case.check([start.uuid for start in starts])
        assert all(case.calls(life) for life in range(3)), "the first lives were not killed at their work"


async def test_a_batch_finishes_while_its_processes_die_one_after_another_beside_each_other(server: Server) -> None:
    """Two processes share the work; each time one of them dies, a third has come."""
    chance = random.Random(3)
    async with server.case("relay") as case:
        starts = [Start("everything", uuid4(), (f"t{number}",)) for number in range(WORKFLOWS)]
        older = case.begin(starts, stay=True)

        for _ in range(KILLS):
            life = len(case.processes)
            younger = case.begin(case.again(starts) if life > 1 else [], stay=True)
            await until_calls(case, WORKFLOWS * 4 * life // KILLS)
            await asyncio.sleep(chance.random() * 0.05)
            kill(older)
            assert await case.ended(older) == -9
            older = younger
        asked = case.begin(case.again(starts))
        assert await case.ended(asked) == 0
        kill(older)
        await case.ended(older)
        await case.settled()

        for start in starts:
            await case.check_one(start.uuid)
        await case.check_ledger()


async def test_two_processes_that_take_over_at_the_same_moment_never_take_the_same_workflow(server: Server) -> None:
    """Both have seen the same candidates, and stand before the claim."""
    async with server.case("two claim") as case:
        starts = [Start("everything", uuid4(), (f"t{number}",)) for number in range(WORKFLOWS)]
        first = case.begin(starts, stay=True)
        await until_calls(case, WORKFLOWS)
        kill(first)
        await case.ended(first)
        await case.settled()

        two = [case.begin(case.again(starts), Site("workflows.claim", signal="SIGSTOP")) for _ in range(2)]
        for process in two:
            await until(partial(is_stopped, process))
        for process in two:
            os.kill(process.pid or 0, signal.SIGCONT)
        assert [await case.ended(process) for process in two] == [0, 0]

        assert await case.connection.fetchval("select max(epoch) from operon.workflows") == 2
        for start in starts:
            await case.check_one(start.uuid)
        await case.check_ledger()


async def until_calls(case: Case, count: int, life: int | None = None) -> None:
    """Waits until the world has heard so many calls, or there is nothing left to call for."""
    await case.heard(lambda: len(case.calls(life)) >= count or len(case.results()) == WORKFLOWS)
