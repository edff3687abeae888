"""Constant SQL, in `.sql` files beside their typed functions: named blocks, one statement each.

    -- name: register
    -- What it does and why it is written so.
    insert into ...

Nothing is ever assembled from strings, so a test can prepare every block on the migrated database.
"""

from __future__ import annotations

import re
from importlib.resources import files

NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


def statements(file: str) -> dict[str, str]:
    """The named blocks of a file of this package."""
    text = files("operon.database").joinpath(file).read_text(encoding="utf-8")
    parts = NAME.split(text)
    return {name: block.strip().rstrip(";") for name, block in zip(parts[1::2], parts[2::2], strict=True)}
