"""Secrets never get out in the clear: what looks like a password, and what an operation declared as `Masked`.

Errors of drivers quote what they were given, applications quote their arguments, and Quart and Hypercorn log errors as
they are. So this is a filter on loggers, and on every text that goes into a span, and not a promise of whoever writes a
message. It masks too much rather than too little.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any, cast

import msgspec

# Bounded, so that a long text cannot make the search quadratic. Masks too much rather than too little.
URL_PASSWORD = re.compile(r"(://[^\s:/@]{0,256}):[^\s'\"]{0,1024}@")
NAMED_PASSWORD = re.compile(
    r"((?:password|passwd|pwd|secret)['\"]?\s{0,8}[=:]\s{0,8})('[^']{0,256}'|\"[^\"]{0,256}\"|[^\s,;&)]{1,256})",
    re.IGNORECASE,
)
# The values of an Authorization header; shorter words after these two are words.
TOKEN = re.compile(r"\b(bearer|basic)\s{1,8}[\w.~+/=-]{12,}", re.IGNORECASE)

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


def masked(text: str) -> str:
    """The text without the passwords in it, and without what the running workflow or request has to hide."""
    for secret in sorted(_secrets.get() or (), key=len, reverse=True):
        text = text.replace(secret, "***")
    return TOKEN.sub(r"\1 ***", NAMED_PASSWORD.sub(r"\1***", URL_PASSWORD.sub(r"\1:***@", text)))


class MaskingFilter(logging.Filter):
    """Masks the message and the traceback of every record."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = masked(record.getMessage()), None
        if record.exc_info and not record.exc_text:
            record.exc_text = masked(logging.Formatter().formatException(record.exc_info))
        return True


MASKING = MaskingFilter()


def mask(logger: logging.Logger) -> logging.Logger:
    """Puts the filter on a logger, once."""
    logger.addFilter(MASKING)
    return logger
