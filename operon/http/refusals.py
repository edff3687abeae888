"""What is wrong with a request, as data: one `Complaint` per field, all of them in one refusal.

A client that corrects its request wants to hear everything at once, so whoever reads a part of a request appends to
one list and goes on; the list is raised when every part was read. On the wire a complaint is
`{"in": "query", "name": "page", "detail": "Expected int, got str"}`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

import msgspec

from operon.errors import RequestError

Location = Literal["path", "query", "header", "body"]

# msgspec appends the place to its message: "Expected `int`, got `str` - at `$.items[0].price`".
PLACE = re.compile(r" - at `(?:key in )?\$(?P<place>[^`]*)`$")
MISSING = re.compile(r"^Object missing required field `(?P<field>[^`]*)`$")


class Complaint(msgspec.Struct, frozen=True):
    """One thing that is wrong with a request, and where."""

    location: Location = msgspec.field(name="in")
    name: str  # `payment.items[0].price`; empty for the location as a whole
    detail: str


class BadInput(RequestError):
    """A request that does not fit what it reaches. `complaints` has every reason."""

    def __init__(self, complaints: Sequence[Complaint]) -> None:
        first = complaints[0]
        more = f", and {len(complaints) - 1} more" if len(complaints) > 1 else ""
        where = f"{first.location} {first.name!r}" if first.name else first.location
        super().__init__(f"{where}: {first.detail}{more}")
        self.complaints = tuple(complaints)


class BodyTooLarge(RequestError):
    """The body is larger than `body_limit_bytes`."""

    status = 413
    code = "body_too_large"


class UnsupportedContent(RequestError):
    """The body is not JSON in UTF-8, by its own headers."""

    status = 415
    code = "unsupported_media_type"


def required(location: Location, name: str) -> Complaint:
    """Nothing was given where something must be."""
    return Complaint(location, name, "required")


def misfit(location: Location, name: str, error: Exception) -> Complaint:
    """What msgspec says of a value, at the name the client knows it by: `payment.items[0].price`."""
    if isinstance(error, UnicodeDecodeError):
        return Complaint(location, name, "not UTF-8")
    if isinstance(error, RecursionError):
        return Complaint(location, name, "nested too deeply")
    detail = str(error)
    place = PLACE.search(detail)
    if place is not None:
        detail = detail[: place.start()]
        name = f"{name}{place['place']}"
    missing = MISSING.match(detail)
    if missing is not None:
        detail = "required"
        name = f"{name}.{missing['field']}"
    return Complaint(location, name.removeprefix("."), detail.replace("`", ""))
