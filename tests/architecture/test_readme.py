"""What the README says of settings and code is what is there."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from operon.config import Settings

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text()


def test_the_table_of_settings_has_every_setting_with_its_default() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (?:`(.*?)`)? *\|", README, re.MULTILINE)

    defaults = {name: "" if value is None else str(value) for name, value in msgspec.structs.asdict(Settings()).items()}

    assert dict(rows) == defaults
    assert [name for name, _ in rows] == list(defaults)


def test_what_it_shows_is_taken_from_the_examples() -> None:
    taste, messages, _testing = re.findall(r"```python\n(.*?)```", README, re.DOTALL)

    assert taste in (ROOT / "examples/tickets.py").read_text()
    assert messages in (ROOT / "examples/orders.py").read_text()


def test_the_files_that_it_links_to_are_there() -> None:
    links = re.findall(r"\]\(([^)]+)\)", README)

    assert [link for link in links if not (ROOT / link).exists()] == []
