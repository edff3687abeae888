"""What an operation declared as `Masked` is hidden by its values, wherever somebody quotes them.

Exceptions and log messages of applications quote what they were given. So the values of masked arguments are known to
the workflow or request that runs, and cut out of what it logs and of its spans: beside `operon.masking`, which knows
secrets by their looks. Too much is cut out rather than too little. What is stored or answered stays as it is: a replay
must see what the first life saw.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any, cast

import msgspec

SECRET_CHARS_MIN = 3  # shorter ones would blank out half of every text
SECRETS_MAX = 1_000  # of one workflow or request; the values of masked arguments are few

# The masked arguments of the workflow or request that runs. Known to the tasks that it starts, and to no others.
_secrets: ContextVar[set[str] | None] = ContextVar("operon_secrets", default=None)


def hide(values: Iterable[str]) -> None:
    """From now on these are masked in whatever this workflow or request logs, or has in its spans."""
    known = _secrets.get()
    if known is None:
        _secrets.set(known := set())
    for value in values:
        if len(value) >= SECRET_CHARS_MIN and len(known) < SECRETS_MAX:
            known.add(value)


def leaves(value: Any) -> Iterator[str]:
    """The texts and numbers in a masked argument, as they would be printed."""
    try:
        plain: Any = msgspec.to_builtins(value, str_keys=True, enc_hook=str)
    except Exception:  # it cannot be taken apart; its own text is all that can be printed of it
        plain = str(value)
    left: list[Any] = [plain]
    while left:
        one: Any = left.pop()
        if isinstance(one, dict):
            left.extend(cast("dict[str, Any]", one).values())
        elif isinstance(one, list | tuple):
            left.extend(cast("Sequence[Any]", one))
        elif one is not None and not isinstance(one, bool):
            yield str(one)


def without_hidden(text: str) -> str:
    """The text without what the running workflow or request has to hide."""
    known = _secrets.get()
    if known:
        for secret in sorted(known, key=len, reverse=True):
            text = text.replace(secret, "***")
    return text
