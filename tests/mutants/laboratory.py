"""Where a mutant lives: a copy of the sources in a folder of its own, so that nobody's checkout is ever touched.

The tests run there, on the embedded server of the checkout: a mutant with another schema gets a template database of
its own, because templates are named after what was migrated.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from operon.testing import SERVER
from tests.mutants.mutants import Mutant

ROOT = Path(__file__).parent.parent.parent
SOURCES = ("operon", "actors", "pytest_operon", "tests", "examples", "pyproject.toml")
SECONDS_MAX = 240.0
PASSED, FAILED = 0, 1  # pytest's exit codes; any other means that it did not come to testing


class Fate(StrEnum):
    """What became of a mutant."""

    KILLED = "killed"
    SURVIVED = "SURVIVED"
    UNDECIDED = "UNDECIDED"  # its tests did not run


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the tests said."""

    fate: Fate
    seconds: float
    said: str

    @property
    def by(self) -> str:
        """The test that noticed."""
        failed = (line for line in self.said.splitlines() if line.startswith(("FAILED tests", "ERROR tests")))
        return next((line.split(" ")[1].rpartition("::")[2] for line in failed), "")


@contextmanager
def copied() -> Generator[Path]:
    """A copy of everything that the tests need."""
    folder = Path(tempfile.mkdtemp(prefix="operon-mutant-"))
    try:
        for name in SOURCES:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__", ".operon"))
            else:
                shutil.copy(source, folder / name)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def judge(mutant: Mutant, server: str) -> Outcome:
    """Runs the tests of a mutant on it."""
    with copied() as folder:
        for change in mutant.changes:
            text = change.apply(folder)
            (folder / change.file).write_text(text)
        code, said, seconds = await tested(folder, mutant.tests, server)
    fate = {PASSED: Fate.SURVIVED, FAILED: Fate.KILLED}.get(code, Fate.UNDECIDED)
    return Outcome(fate, seconds, said)


async def tested(folder: Path, tests: Sequence[str], server: str) -> tuple[int, str, float]:
    """Pytest's exit code, what it said, and how long it took; a run that does not end has failed."""
    began = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pytest", "-x", *tests),
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), SERVER: server},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        said, _ = await asyncio.wait_for(process.communicate(), SECONDS_MAX)
        code = process.returncode if process.returncode is not None else FAILED
    except TimeoutError:
        process.kill()
        await process.wait()
        said, code = b"", FAILED
    return code, said.decode(errors="replace"), time.monotonic() - began
