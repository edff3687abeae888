"""Markers that say where in a request an argument comes from: `Annotated[str, operon.Query("q")]`.

They hold a place and a name and do nothing, so that importing them imports no web framework.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Path:
    """From the path. `name` is the variable of the route, the parameter's own name by default."""

    name: str | None = None


@dataclass(frozen=True, slots=True)
class Query:
    """From the query string. `name` is the key, the parameter's own name by default."""

    name: str | None = None


@dataclass(frozen=True, slots=True)
class Header:
    """From a request header. `name` is the header, by default the parameter's own name with dashes for underscores."""

    name: str | None = None


@dataclass(frozen=True, slots=True)
class Body:
    """From the JSON body. `name` is the key, the parameter's own name by default.

    whole: True makes the argument the whole body, whatever its type; False makes it a key of the body's object even
    where it is the only one. None, the default, leaves it to the rule of `arguments.py`.
    """

    name: str | None = None
    whole: bool | None = None


Marker = Path | Query | Header | Body
MARKERS = (Path, Query, Header, Body)
