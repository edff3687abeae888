"""Masking: the one place where secrets are cut out of what leaves the program, and where clients cannot write lines.

Everything that Operon logs, answers with, or stores of an error or a request comes through here: `masked` for texts,
`masked_data` for what JSON holds, `masked_logger` for every logger. An application's password in its database's URL is
known to be one, and `dsn` cuts it out exactly; here it has to be recognised in anybody's words: a driver's error quotes
what it was given, a library logs its headers.

The rule: a password with its name beside it (`password=`, `"api_key": `), in a URL, or after `Bearer` is masked, rather
too much than too little. A secret that stands in a text without any of these cannot be told from other words.

And no text of a client begins a line of a log: what follows a line break is indented, so that a line that begins in
the first column is always a record's own; other control characters, which move a terminal's cursor, are spelled out.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

from operon.dsn import HIDDEN
from operon.telemetry.hidden import without_hidden

# Bounded, so that a long text cannot make the search quadratic.
URL_PASSWORD = re.compile(r"(://[^\s:/@]{0,256}):[^\s'\"]{0,1024}@")
FLAGS = re.IGNORECASE | re.ASCII
NAME = (
    r"passw(?:or)?d|passphrase|pwd|secret|credentials?|api[_-]?key|private[_-]?key|authorization|cookie|"
    r"(?:access|refresh|auth|csrf|id|session)[_-]?token"
)
NAMED = re.compile(
    rf"((?:{NAME})['\"]?\s{{0,8}}[=:]\s{{0,8}}|\btoken=)"
    r"('(?:[^'\\]|\\.){0,1024}'|\"(?:[^\"\\]|\\.){0,1024}\"|[^\s,;&)'\"]{1,1024})",
    FLAGS,
)
# A header with all that it holds, as it stands in a text: `Cookie: a=b; c=d`.
HEADER = re.compile(r"\b((?:set-)?cookie|(?:proxy-)?authorization|x-api-key):[^\r\n'\"]{1,8192}", FLAGS)
# The values of an Authorization header; shorter words after these two are words.
TOKEN = re.compile(r"\b(bearer|basic)\s{1,8}[\w.~+/=-]{12,}", FLAGS)
SECRET_KEY = re.compile(NAME, FLAGS)
# Looked for first: most texts have none of them, and a search for all these expressions costs thirty times as much.
WORDS = (
    "passw",
    "passphrase",
    "pwd",
    "secret",
    "credential",
    "key",
    "auth",
    "cookie",
    "token",
    "bearer",
    "basic",
)

# C0, DEL and C1 but tab and line feed; what is invisible and reorders the words around it; surrogates are no text.
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")
NEW_LINE = re.compile(r"\n(?!  )")

_is: Any = isinstance  # without narrowing, which would make list[Unknown] of an Any


def masked(text: str) -> str:
    """The text without the secrets in it. Twice is the same as once."""
    if "://" in text:
        text = URL_PASSWORD.sub(rf"\1:{HIDDEN}@", text)
    lower = text.lower()
    if any(word in lower for word in WORDS):
        text = HEADER.sub(rf"\1: {HIDDEN}", text)
        text = TOKEN.sub(rf"\1 {HIDDEN}", NAMED.sub(rf"\1{HIDDEN}", text))
    return text


def told(text: str) -> str:
    """A text for logs and spans: without its secrets, and without the masked arguments of the running workflow."""
    return masked(without_hidden(text))


def masked_data(value: Any) -> Any:
    """What JSON holds, without the secrets in it: in texts, and as values of keys that say so."""
    if _is(value, str):
        return masked(value)
    if _is(value, Mapping):
        pairs = cast("Mapping[Any, Any]", value)
        return {key: masked_value(str(key), item) for key, item in pairs.items()}
    if _is(value, (list, tuple)):
        items = cast("Sequence[Any]", value)
        return [masked_data(item) for item in items]
    return value


def masked_value(name: str, value: Any) -> Any:
    """A value of this name: hidden if the name says that it is a secret and it is a text."""
    return HIDDEN if _is(value, str) and SECRET_KEY.search(name) else masked_data(value)


def on_its_own_lines(text: str) -> str:
    """The text with nothing in it that could pass for the beginning of another record, or move a cursor."""
    return NEW_LINE.sub("\n  ", CONTROL.sub(lambda match: ascii(match[0])[1:-1], text.replace("\r\n", "\n")))


class MaskingFilter(logging.Filter):
    """Masks the message and the traceback of every record, and keeps them in their own lines."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = on_its_own_lines(told(record.getMessage())), None
        if record.exc_info and not record.exc_text:
            text = told(logging.Formatter().formatException(record.exc_info))
            record.exc_text = on_its_own_lines(f"  {text}")
        return True


MASKING = MaskingFilter()


def masked_logger(name: str) -> logging.Logger:
    """The logger of this name, with the filter on it, once."""
    logger = logging.getLogger(name)
    logger.addFilter(MASKING)
    return logger


def mask_handlers() -> None:
    """Puts the filter on the handlers of the root logger too: in a process of ours nobody's record goes unmasked."""
    for handler in logging.getLogger().handlers:
        handler.addFilter(MASKING)
