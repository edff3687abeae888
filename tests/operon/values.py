"""The types an application may use, a strategy for each, and what it means to come back equal."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import enum
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, Optional, TypedDict, TypeVar
from uuid import UUID

import msgspec
from hypothesis import strategies as st

from operon.codec import Masked

T = TypeVar("T")


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Mixed(enum.Enum):
    PAIR = (1, 2)
    NOTHING = None
    ONE = 1
    WORD = "word"


class Word(enum.StrEnum):
    YES = "yes"
    NO = "no"


class Number(enum.IntEnum):
    ONE = 1
    TWO = 2


class Access(enum.Flag):
    READ = 1
    WRITE = 2


@dataclasses.dataclass
class Seat:
    row: str
    number: int
    price: float = 1.0


@dataclasses.dataclass
class Animal:
    name: str
    born: dt.date | None = None


@dataclasses.dataclass
class Dog(Animal):
    tricks: list[str] = dataclasses.field(default_factory=list[str])


@dataclasses.dataclass(slots=True, frozen=True, eq=False)
class Sealed:
    amount: Decimal
    note: Any = None


@dataclasses.dataclass(slots=True)
class Node:
    value: int
    next: Optional[Node] = None  # noqa: UP045 - the spelling is part of the test


class Paid(msgspec.Struct, tag=True):
    at: dt.datetime


class Refunded(msgspec.Struct, tag=True):
    reason: str


class Box(msgspec.Struct, Generic[T]):
    inside: T


class Order(msgspec.Struct, frozen=True, kw_only=True):
    key: UUID
    lines: tuple[Seat, ...] = ()
    state: Paid | Refunded | None = None


class Point(NamedTuple):
    x: int
    y: float = 0.0


class Named(TypedDict):
    name: str


class Partial(Named, total=False):
    when: dt.date


class Sneaky(str):
    """A str that carries more than its characters."""


Untyped: Any = collections.namedtuple("Untyped", "a b")  # pyright: ignore[reportUntypedNamedTuple]
UserId = NewType("UserId", int)

# Whole seconds: `datetime.fromisoformat` loses an offset that is only microseconds, so such a value is refused.
offsets = st.integers(-23 * 3600, 23 * 3600).map(lambda seconds: dt.timezone(dt.timedelta(seconds=seconds)))
zones = st.one_of(st.none(), st.just(dt.UTC), st.timezones(), offsets)
datetimes = st.datetimes(timezones=zones)
texts = st.text(st.characters(exclude_categories=()))
ints = st.one_of(st.integers(), st.integers(-(2**200), 2**200), st.just(10**4200))
floats = st.floats()
decimals = st.decimals()
keys = st.one_of(st.none(), st.booleans(), ints, texts, st.binary(), st.dates(), st.uuids(), st.tuples(ints, texts))
scalars = st.one_of(
    keys, floats, datetimes, st.times(), st.timedeltas(), decimals, st.sampled_from(["$tuple", "$dict", "$operon"])
)
anything = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.tuples(inner, inner),
        st.dictionaries(st.one_of(keys, st.sampled_from(["$tuple", "$dict", "$operon", "value"])), inner, max_size=4),
        st.sets(keys, max_size=4),
        st.frozensets(keys, max_size=4),
    ),
    max_leaves=12,
)
seats = st.builds(Seat, texts, ints, floats)
animals = st.one_of(st.builds(Animal, texts, st.dates()), st.builds(Dog, texts, st.none(), st.lists(texts, max_size=3)))
flags = st.sampled_from([Access(0), Access.READ, Access.WRITE, Access.READ | Access.WRITE])
states = st.one_of(st.none(), st.builds(Paid, datetimes), st.builds(Refunded, texts))

TYPED: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (None, st.none()),
    (bool, st.booleans()),
    (int, ints),
    (float, floats),
    (str, texts),
    (bytes, st.binary()),
    (bytearray, st.builds(bytearray, st.binary())),
    (dt.datetime, datetimes),
    (dt.date, st.dates()),
    (dt.time, st.times(timezones=st.one_of(st.none(), st.timezones()))),
    (dt.timedelta, st.timedeltas()),
    (Decimal, decimals),
    (UUID, st.uuids()),
    (Colour, st.sampled_from(Colour)),
    (Mixed, st.sampled_from(Mixed)),
    (Word, st.sampled_from(Word)),
    (Number, st.sampled_from(Number)),
    (Access, flags),
    (list[float], st.lists(floats)),
    (tuple[int, str], st.tuples(ints, texts)),
    (tuple[Decimal, ...], st.lists(decimals).map(tuple)),
    (set[int], st.sets(ints)),
    (frozenset[tuple[int, str]], st.frozensets(st.tuples(ints, texts))),
    (dict[int, str], st.dictionaries(ints, texts)),
    (dict[dt.date, Decimal], st.dictionaries(st.dates(), decimals)),
    (dict[tuple[int, str], list[bytes]], st.dictionaries(st.tuples(ints, texts), st.lists(st.binary()), max_size=3)),
    (dict[float, bool], st.dictionaries(st.floats(allow_nan=False), st.booleans())),
    (Sequence[int], st.one_of(st.lists(ints), st.lists(ints).map(tuple))),
    (Mapping[str, Any], st.dictionaries(texts, anything, max_size=3)),
    (Seat, seats),
    (Animal, animals),
    (list[Animal], st.lists(animals, max_size=3)),
    (Sealed, st.builds(Sealed, decimals, anything)),
    (Paid | Refunded | None, states),
    (Order, st.builds(Order, key=st.uuids(), lines=st.lists(seats, max_size=2).map(tuple), state=states)),
    (Box[dt.datetime], st.builds(Box, datetimes)),
    (Box[Seat | Animal], st.builds(Box, st.one_of(seats, animals))),
    (Point, st.builds(Point, ints, floats)),
    (Untyped, st.builds(Untyped, anything, anything)),
    (Partial, st.fixed_dictionaries({"name": texts}, optional={"when": st.dates()})),
    (int | None, st.one_of(st.none(), ints)),
    (int | str | float, st.one_of(ints, texts, floats)),
    (dt.datetime | str, st.one_of(datetimes, texts)),
    (bytes | str | UUID, st.one_of(st.binary(), texts, st.uuids())),
    (list[int] | tuple[int, ...] | set[int], st.one_of(st.lists(ints), st.lists(ints).map(tuple), st.sets(ints))),
    (Seat | Animal | dict[str, int], st.one_of(seats, animals, st.dictionaries(texts, ints))),
    (Literal[1, "a", None], st.sampled_from([1, "a", None])),
    (UserId, ints),
    (Annotated[str, Masked], texts),
    (Any, anything),
    (object, anything),
]  # fmt: skip


def is_same(one: Any, other: Any) -> bool:
    """Equal as a person would say it: NaN is NaN, fields count without `__eq__`, and classes are kept."""
    if one.__class__ is not other.__class__:  # but for an int where float is annotated
        return isinstance(one, int) and isinstance(other, float) and bool(one.__eq__(int(other)))
    items: Any = other
    match other:
        case Decimal():
            return repr(one) == repr(other)
        case float():
            return bool(one == other) or repr(one) == repr(other) == "nan"
        case list() | tuple():
            return len(one) == len(items) and all(map(is_same, one, items))
        case dict():
            return is_same(list(one.items()), list(items.items()))
        case msgspec.Struct():
            return all(is_same(getattr(one, name), getattr(other, name)) for name in one.__struct_fields__)
        case _ if dataclasses.is_dataclass(one):
            return all(is_same(getattr(one, f.name), getattr(other, f.name)) for f in dataclasses.fields(one))
        case _:
            return bool(one == other)
