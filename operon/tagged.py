"""The tagged form: JSON for what JSON has no word for, exact for every type it knows, refusing all others.

Most values are stored as plain JSON and read back by their annotation. A value that plain JSON would bend (a tuple
under `Any`, a NaN, a lone surrogate, 10**400, a dict with dates for keys) is stored like this instead, in an envelope:

    {"$operon": 1, "value": {"seat": {"$tuple": ["A", 12]}, "paid": {"$datetime": "2024-05-01T12:00:00"}}}

An object with one key that begins with `$` is a tag. A dict of the user's own with such a key is written as
`$dict`, a list of pairs, so it can never be taken for one. Classes are written by qualified name and looked up
only among those the annotation reaches: stored data cannot name a class into being.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import math
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable
from decimal import Decimal
from types import NoneType
from typing import Any, Protocol
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec

from operon.shapes import field_names, key_path

ENVELOPE = b'{"$operon":'

# Far from the interpreter's limit of 1,000 frames, because replay may read a value from a deeper stack than wrote it.
DEPTH_MAX = 200
TOO_DEEP = f"is nested deeper than {DEPTH_MAX} levels, or contains itself"


# `isinstance` and `type` without narrowing: the type checkers would make list[Unknown] of an Any.
_is: Callable[[Any, Any], bool] = isinstance
_type: Callable[[Any], Any] = type


class Classes(Protocol):
    """Which classes may be written and read."""

    def allows(self, kind: Any) -> bool: ...
    def find(self, name: str) -> Any: ...


class Refusal(Exception):
    """A value that the tagged form does not carry; `path` grows on the way out."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.path = ""


def difference(value: Any, back: Any, depth: int = DEPTH_MAX) -> str | None:
    """The path of the first place where what came back is not what went in, or None: the codec's proof.

    Classes must match, with three exceptions that Python itself calls equal and the annotation asked for: an int
    where float is annotated, a str or int enum where str or int is, a subclass of a container where the container is.
    """
    kind = _type(back)
    if kind in _PLAIN:
        return None if value == back and _is(value, kind) else ""
    if kind is float:
        return None if _same_float(value, back) else ""
    if kind is dt.datetime or kind is dt.time:
        return None if type(value) is kind and _same_time(value, back) else ""
    if kind is Decimal:  # NaN is not equal to itself, and 1.0 is not 1.00
        return None if type(value) is Decimal and value.as_tuple() == back.as_tuple() else ""
    if depth == 0:
        raise Refusal(TOO_DEEP)
    if kind is list or kind is tuple:
        if not _is(value, kind) or len(value) != len(back):
            return ""
        for index, (one, other) in enumerate(zip(value, back, strict=True)):
            if _type(other) in _PLAIN and one == other and _type(one) is _type(other):
                continue  # what most items are, without a call
            if (path := difference(one, other, depth - 1)) is not None:
                return f"[{index}]{path}"
        return None
    if kind is dict:
        return _dict_difference(value, back, depth)
    if kind is set or kind is frozenset:
        # Equal is not enough: a str enum equals its str, and both are found under one hash.
        if not _is(value, kind) or value != back:
            return ""
        mine = {one: one for one in value}
        return None if all(difference(mine[other], other, depth - 1) is None for other in back) else ""
    if _type(value) is not kind:
        return ""
    if (names := field_names(kind)) is not None:
        for name in names:
            one, other = getattr(value, name), getattr(back, name)
            if _type(other) in _PLAIN and one == other and _type(one) is _type(other):
                continue
            if (path := difference(one, other, depth - 1)) is not None:
                return f".{name}{path}"
        return None
    return None if _is(back, (enum.Enum, msgspec.UnsetType)) and value == back else ""


def _dict_difference(value: Any, back: dict[Any, Any], depth: int) -> str | None:
    if not _is(value, dict) or len(value) != len(back):
        return ""
    for (key, one), (other_key, other) in zip(value.items(), back.items(), strict=True):
        if difference(key, other_key, depth - 1) is not None:
            return key_path(key)
        if (path := difference(one, other, depth - 1)) is not None:
            return f"{key_path(key)}{path}"
    return None


def _same_float(value: Any, back: float) -> bool:
    if type(value) is float:
        return value == back or (math.isnan(value) and math.isnan(back))
    return isinstance(value, int) and not isinstance(value, bool) and value == back


def _same_time(value: Any, back: Any) -> bool:
    # The zone counts too: tomorrow at this hour is another moment in Europe/Berlin than in +01:00.
    zone = value.tzinfo.key if isinstance(value.tzinfo, ZoneInfo) else None
    back_zone = back.tzinfo.key if isinstance(back.tzinfo, ZoneInfo) else None
    return bool(
        value == back and value.fold == back.fold and value.utcoffset() == back.utcoffset() and zone == back_zone
    )


def lower(value: Any, classes: Classes, depth: int = DEPTH_MAX) -> Any:
    """The value as None, bool, int, float, str, list and dict of these. Raises Refusal."""
    kind = _type(value)
    writer = _WRITERS.get(kind)
    if writer is not None:
        return writer(value)
    if depth == 0:
        raise Refusal(TOO_DEEP)
    if _is(value, UUID):
        # What asyncpg gives for a uuid, and a context for its workflow's: a subclass, and equal to the standard one.
        return _WRITERS[UUID](value)
    if _is(value, enum.Enum):
        return _lower_enum(value, classes, depth)
    if (names := field_names(kind)) is not None:
        if not classes.allows(kind):
            raise Refusal(f"is {kind.__qualname__}, a class that the annotation does not name")
        return {"$record": [kind.__qualname__, _lower_fields(value, names, classes, depth)]}
    if _is(value, dict):
        return _lower_dict(value, classes, depth)
    if _is(value, list):
        return _lower_items(value, classes, depth)
    for container in (tuple, set, frozenset):
        if _is(value, container):
            return {f"${container.__name__}": _lower_items(value, classes, depth)}
    raise Refusal(f"is {kind.__qualname__}, which is not data")


def _lower_fields(value: Any, names: tuple[str, ...], classes: Classes, depth: int) -> dict[str, Any]:
    lowered: dict[str, Any] = {}
    for name in names:
        try:
            lowered[name] = lower(getattr(value, name), classes, depth - 1)
        except Refusal as refusal:
            refusal.path = f".{name}{refusal.path}"
            raise
    return lowered


def _lower_items(items: Iterable[Any], classes: Classes, depth: int) -> list[Any]:
    lowered: list[Any] = []
    for index, item in enumerate(items):
        try:
            lowered.append(lower(item, classes, depth - 1))
        except Refusal as refusal:
            refusal.path = f"[{index}]{refusal.path}"
            raise
    return lowered


def _lower_dict(value: dict[Any, Any], classes: Classes, depth: int) -> dict[str, Any]:
    pairs: list[list[Any]] = []
    for key, item in value.items():
        try:
            pairs.append([lower(key, classes, depth - 1), lower(item, classes, depth - 1)])
        except Refusal as refusal:
            refusal.path = key_path(key) + refusal.path
            raise
    # One key that is not plain, or looks like a tag, and the whole dict is written as pairs.
    if all(type(key) is str and not key.startswith("$") for key, _ in pairs):
        return dict(pairs)
    return {"$dict": pairs}


def _lower_enum(value: enum.Enum, classes: Classes, depth: int) -> Any:
    if not classes.allows(type(value)):
        if isinstance(value, str | int):
            return lower(value.value, classes, depth - 1)
        raise Refusal(f"is {type(value).__qualname__}, an enum that the annotation does not name")
    if type(value).__members__.get(value.name or "") is value:
        return {"$enum": [type(value).__qualname__, value.name]}
    return {"$flags": [type(value).__qualname__, lower(value.value, classes, depth - 1)]}


def _write_int(value: int) -> Any:
    # Beyond 64 bits in hexadecimal: decimal digits cost quadratic time, so Python and msgspec both limit them.
    return value if -(2**63) <= value < 2**63 else {"$int": hex(value)}


def _write_str(value: str) -> Any:
    try:
        value.encode()
    except UnicodeEncodeError:
        return {"$str": value.encode("unicode_escape").decode("ascii")}
    return value


def _write_time(value: dt.datetime | dt.time) -> Any:
    tag = "$datetime" if isinstance(value, dt.datetime) else "$time"
    zone = value.tzinfo
    if isinstance(zone, ZoneInfo):
        return {tag: [value.replace(tzinfo=None).isoformat(), value.fold, zone.key]}
    return {tag: [value.isoformat(), value.fold, None] if value.fold else value.isoformat()}


def _read_time(kind: Any, stored: Any) -> Any:
    if _is(stored, str):
        return kind.fromisoformat(stored)
    text, fold, zone = stored
    read = kind.fromisoformat(text).replace(fold=fold)
    return read.replace(tzinfo=ZoneInfo(zone)) if zone else read


_WRITERS: dict[type, Callable[[Any], Any]] = {
    NoneType: lambda value: value,
    bool: lambda value: value,
    int: _write_int,
    float: lambda value: value if math.isfinite(value) else {"$float": str(value)},
    str: _write_str,
    bytes: lambda value: {"$bytes": b64encode(value).decode("ascii")},
    bytearray: lambda value: {"$bytearray": b64encode(value).decode("ascii")},
    dt.datetime: _write_time,
    dt.time: _write_time,
    dt.date: lambda value: {"$date": value.isoformat()},
    dt.timedelta: lambda value: {"$timedelta": [value.days, value.seconds, value.microseconds]},
    Decimal: lambda value: {"$decimal": str(value)},
    UUID: lambda value: {"$uuid": str(value)},
    msgspec.UnsetType: lambda value: {"$unset": None},
}

_PLAIN = frozenset({NoneType, bool, int, str, bytes, bytearray, dt.date, dt.timedelta, UUID})

_READERS: dict[str, Callable[[Any], Any]] = {
    "$int": lambda stored: int(stored, 16),
    "$float": float,
    "$str": lambda stored: stored.encode("ascii").decode("unicode_escape"),
    "$bytes": lambda stored: b64decode(stored, validate=True),
    "$bytearray": lambda stored: bytearray(b64decode(stored, validate=True)),
    "$datetime": lambda stored: _read_time(dt.datetime, stored),
    "$time": lambda stored: _read_time(dt.time, stored),
    "$date": dt.date.fromisoformat,
    "$timedelta": lambda stored: dt.timedelta(*stored),
    "$decimal": Decimal,
    "$uuid": UUID,
    "$unset": lambda stored: msgspec.UNSET,
}


def lift(node: Any, classes: Classes) -> Any:
    """What `lower` was given. Raises ValueError, LookupError or TypeError for what it never wrote."""
    if _is(node, list):
        return [lift(item, classes) for item in node]
    if not _is(node, dict):
        return node
    tag = next(iter(node), "")
    if len(node) != 1 or not tag.startswith("$"):
        return {key: lift(item, classes) for key, item in node.items()}
    stored = node[tag]
    if (reader := _READERS.get(tag)) is not None:
        return reader(stored)
    match tag:
        case "$tuple":
            return tuple(lift(item, classes) for item in stored)
        case "$set":
            return {lift(item, classes) for item in stored}
        case "$frozenset":
            return frozenset(lift(item, classes) for item in stored)
        case "$dict":
            return {lift(key, classes): lift(item, classes) for key, item in stored}
        case "$enum":
            return classes.find(stored[0])[stored[1]]
        case "$flags":
            return classes.find(stored[0])(lift(stored[1], classes))
        case "$record":
            return _rebuild(classes.find(stored[0]), {name: lift(item, classes) for name, item in stored[1].items()})
        case _:
            raise ValueError(f"unknown tag {tag}")


def _rebuild(kind: Any, fields: dict[str, Any]) -> Any:
    if not hasattr(kind, "__dataclass_fields__") and not hasattr(kind, "__attrs_attrs__"):
        return kind(**fields)
    # As msgspec does it: no __init__, and a field that was added since has its default.
    made: Any = object.__new__(kind)
    if dataclasses.is_dataclass(kind):
        for field in dataclasses.fields(kind):
            if field.name not in fields and field.default_factory is not dataclasses.MISSING:
                fields[field.name] = field.default_factory()
            elif field.name not in fields and field.default is not dataclasses.MISSING:
                fields[field.name] = field.default
    for name in field_names(kind) or ():
        object.__setattr__(made, name, fields[name])
    return made
