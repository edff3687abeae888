"""The table of docs/security.md names tests that are there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
LINES = [
    line
    for line in (ROOT / "docs/security.md").read_text().splitlines()
    if line.startswith("| ") and not line.startswith("| threat")
]
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def test_every_line_names_a_test() -> None:
    assert len(LINES) > 40
    cells = [line.split("|") for line in LINES]
    assert [line for line in cells if len(line) != 6 or NAMED.search(line[4]) is None] == []


def test_every_test_that_is_named_is_there() -> None:
    named = {(file, test) for line in LINES for file, test in NAMED.findall(line)}
    defined = {
        (file, test)
        for file, _ in named
        if (ROOT / file).exists()
        for test in re.findall(r"^(?:async )?def (test_\w+)\(", (ROOT / file).read_text(), re.MULTILINE)
    }

    assert named - defined == set()
