"""Passwords never reach a log: what looks like a database URL, a `password=` or a bearer token is masked in messages
and tracebacks.

Errors of drivers quote what they were given, and Quart and Hypercorn log errors as they are, so this is a filter on
their loggers and not a promise of whoever writes a message.
"""

from __future__ import annotations

import logging
import re

# Bounded, so that a long text cannot make the search quadratic. Masks too much rather than too little.
URL_PASSWORD = re.compile(r"(://[^\s:/@]{0,256}):[^\s'\"]{0,1024}@")
NAMED_PASSWORD = re.compile(
    r"((?:password|passwd|pwd|secret)['\"]?\s{0,8}[=:]\s{0,8})('[^']{0,256}'|\"[^\"]{0,256}\"|[^\s,;&)]{1,256})",
    re.IGNORECASE,
)
# The values of an Authorization header; shorter words after these two are words.
TOKEN = re.compile(r"\b(bearer|basic)\s{1,8}[\w.~+/=-]{12,}", re.IGNORECASE)


def masked(text: str) -> str:
    """The text without the passwords in it."""
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
