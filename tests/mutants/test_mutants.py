"""Every mutant can still be made: what it takes out is there, once, and what it names to notice it exists."""

from __future__ import annotations

import re

import pytest

from tests.mutants.laboratory import ROOT
from tests.mutants.mutants import MUTANTS, Mutant

MADE = pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)


@MADE
def test_what_a_mutant_takes_out_is_there_once(mutant: Mutant) -> None:
    for change in mutant.changes:
        changed = change.apply(ROOT)

        assert changed != (ROOT / change.file).read_text()
        if change.file.endswith(".py"):
            compile(changed, change.file, "exec")


@MADE
def test_a_mutant_names_tests_that_exist(mutant: Mutant) -> None:
    assert mutant.tests
    for test in mutant.tests:
        file, _, name = test.partition("::")

        assert re.search(rf"def {name}\(" if name else "def test_", (ROOT / file).read_text())


def test_mutants_are_called_by_names_of_their_own() -> None:
    names = [mutant.name for mutant in MUTANTS]

    assert len(set(names)) == len(names)
