"""A database's URL as people may see it: without its password, in whatever form it has one.

The rule: rather hide too much than too little, and never fail. A URL that no driver would take is masked too, because
it is just the one that ends up in an error message.
"""

from __future__ import annotations

import re
from urllib.parse import unquote, unquote_plus

HIDDEN = "***"

# `password`, `sslpassword`, ...: what a driver takes out of the query, or libpq out of its keyword form.
SECRET_NAME = re.compile(r"pass(?!file)|pwd|secret|token|credential|key$", re.IGNORECASE)
KEYWORD = re.compile(r"""(\b\w*(?:pass|pwd|secret)(?!file)\w*\s*=\s*)('(?:[^'\\]|\\.)*'?|\S+)""", re.IGNORECASE)


def masked(url: str) -> str:
    """A database URL, or libpq's `host=... password=...`, without its passwords."""
    scheme, mark, rest = url.partition("://")
    if not mark:
        return KEYWORD.sub(rf"\1{HIDDEN}", url)
    user, password, rest = userinfo(rest)
    login = user + (f":{HIDDEN}" if password is not None else "")
    place, question, query = rest.partition("?")
    parameters = (f"{name}{'=' if is_given else ''}{hidden(name, value)}" for name, is_given, value in pairs(query))
    return f"{scheme}://{login}{place}{question}{'&'.join(parameters)}"


def passwords(url: str) -> list[str]:
    """Every password of a URL, as it is written and as it is meant, the longest first: to cut out of other texts."""
    _, mark, rest = url.partition("://")
    if not mark:
        found = {match[2].strip("'") for match in KEYWORD.finditer(url)}
    else:
        _, password, rest = userinfo(rest)
        found = {password or ""}
        found.update(value for name, _, value in pairs(rest.partition("?")[2]) if hidden(name, value) != value)
    meant = {decode(text) for text in found for decode in (unquote, unquote_plus)}
    return sorted((found | meant) - {""}, key=len, reverse=True)


def without_passwords(text: str, url: str) -> str:
    """A text about this URL, such as a driver's error, with its passwords cut out."""
    for password in passwords(url):
        text = text.replace(password, HIDDEN)
    return text


def userinfo(rest: str) -> tuple[str, str | None, str]:
    """User, password, and what follows them with its `@`, of a URL after its `://`."""
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    # A password with a slash that nobody encoded ends the authority before the `@`: then it is anything up to the last.
    end = (authority if "@" in authority else rest).rfind("@")
    if end < 0:
        return "", None, rest
    user, colon, password = rest[:end].partition(":")
    return user, password if colon else None, rest[end:]


def pairs(query: str) -> list[tuple[str, bool, str]]:
    """Name, whether a value is given, and value of each parameter, as they are written."""
    return [(name, bool(mark), value) for name, mark, value in (part.partition("=") for part in query.split("&"))]


def hidden(name: str, value: str) -> str:
    """The value of a parameter, unless its name, which may be encoded itself, says that it is a secret."""
    return HIDDEN if SECRET_NAME.search(unquote_plus(name)) else value
