"""The page on testing is true: what it shows is run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.testing.folder import ROOT, run_pytest

PAGE = ROOT / "docs/testing.md"
BLOCK = re.compile(r"^```(?:python|toml)\n# (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def files_of(page: str) -> dict[str, str]:
    """The files that a page shows, each perhaps in several pieces."""
    files: dict[str, str] = {}
    for name, text in BLOCK.findall(page):
        files[name] = f"{files.get(name, '')}{text}\n"
    return files


@pytest.mark.long
def test_the_tests_on_the_page_pass(tmp_path: Path, server: str) -> None:
    files = files_of(PAGE.read_text())
    tests = sum(text.count("async def test_") for text in files.values())

    said = run_pytest(tmp_path, files, server, "-W", "error")

    assert f"{tests + 1} passed" in said, said  # one of them with two settings
    assert "error" not in said.splitlines()[-1], said
