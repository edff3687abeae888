"""`python -m tests.mutants`: makes each mutant, runs its tests, and says which of them nobody noticed.

First the tests run on what is there, or a mutant would count as noticed for another's fault. Exit code 1: a mutant
survived, or its tests did not run.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence

from operon.database import testbed
from operon.testing import FOLDER, SERVER
from tests.mutants.laboratory import Fate, Outcome, copied, judge, tested
from tests.mutants.mutants import MUTANTS, Mutant

TEMPLATES = "select datname from pg_database where datname like 'operon_test_template_%'"


async def main() -> int:
    options = arguments()
    chosen = [mutant for mutant in MUTANTS if options.only in mutant.name]
    server = os.environ.get(SERVER) or await testbed.embedded_server(FOLDER)
    if not options.hurry and not await all_is_well(chosen, server):
        return 1
    before = await templates(server)
    outcomes: list[tuple[Mutant, Outcome]] = []
    try:
        for mutant in chosen:
            outcome = await judge(mutant, server)
            outcomes.append((mutant, outcome))
            print(f"| {mutant.name} | {outcome.fate} | {outcome.seconds:.0f} s | {outcome.by} |", flush=True)
            if outcome.fate is Fate.UNDECIDED:
                print(outcome.said[-2000:])
    finally:
        for name in await templates(server) - before:
            await testbed.drop_database(server, name)
    left = [mutant.name for mutant, outcome in outcomes if outcome.fate is not Fate.KILLED]
    print(f"{len(outcomes) - len(left)} of {len(outcomes)} mutants were noticed", *left, sep="\n")
    return 1 if left else 0


async def all_is_well(mutants: Sequence[Mutant], server: str) -> bool:
    """Whether the tests pass where nothing was taken out."""
    tests = list(dict.fromkeys(test for mutant in mutants for test in mutant.tests))
    with copied() as folder:
        code, said, seconds = await tested(folder, tests, server)
    print(f"without a mutant: {'passed' if code == 0 else said[-3000:]}, {seconds:.0f} s", flush=True)
    return code == 0


async def templates(server: str) -> set[str]:
    """The databases that tests are copied from."""
    return {row[0] for row in await testbed.fetch(server, TEMPLATES)}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--only", default="", help="part of the names of the mutants to make")
    parser.add_argument("--hurry", action="store_true", help="without the run on what is there")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
