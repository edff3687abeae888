"""A value comes back equal, or is refused by name. There is no third way."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import enum
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, NoReturn, Optional, TypedDict, TypeVar
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from operon.codec import Codec, Masked
from operon.errors import CatalogError, DecodingError, EncodingError, InputError, OutputError
from operon.tagged import DEPTH_MAX

quick = settings(max_examples=120, deadline=None, database=None, suppress_health_check=list(HealthCheck))
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


@dataclasses.dataclass
class Fussy:
    value: int

    def __post_init__(self) -> None:
        if self.value < 0:
            raise ValueError("negative")


@dataclasses.dataclass
class Restless:
    value: int

    def __post_init__(self) -> None:
        self.value += 1


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


Untyped = collections.namedtuple("Untyped", "a b")  # noqa: PYI024
UserId = NewType("UserId", int)

zones = st.one_of(st.none(), st.just(dt.UTC), st.timezones(), st.builds(dt.timezone, st.timedeltas(
    dt.timedelta(hours=-23), dt.timedelta(hours=23))))  # fmt: skip
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
    if type(one) is not type(other):
        return isinstance(one, int) and isinstance(other, float) and one == other
    if isinstance(one, float | Decimal):
        return repr(one) == repr(other) or (one == other and not isinstance(one, Decimal))
    if isinstance(one, list | tuple):
        items: Any = one
        return len(items) == len(other) and all(map(is_same, items, other))
    if isinstance(one, dict):
        pairs: Any = one
        return is_same(list(pairs.items()), list(other.items()))
    if dataclasses.is_dataclass(one):
        return all(is_same(getattr(one, f.name), getattr(other, f.name)) for f in dataclasses.fields(one))
    if isinstance(one, msgspec.Struct):
        return all(is_same(getattr(one, name), getattr(other, name)) for name in one.__struct_fields__)
    return bool(one == other)


@pytest.mark.parametrize(("annotation", "values"), TYPED, ids=[str(annotation) for annotation, _ in TYPED])
def test_a_value_comes_back_equal_and_as_replay_gives_it(annotation: Any, values: st.SearchStrategy[Any]) -> None:
    codec: Codec[Any] = Codec(annotation, "op: result")

    @quick
    @given(values)
    def round_trip(value: Any) -> None:
        data, settled = codec.settle(value)

        assert is_same(settled, codec.decode(data))
        assert is_same(value, settled)

    round_trip()


@quick
@given(st.sampled_from([annotation for annotation, _ in TYPED]), st.one_of(anything, seats, states, animals, flags))
def test_a_value_of_any_type_comes_back_equal_or_is_refused(annotation: Any, value: Any) -> None:
    codec: Codec[Any] = Codec(annotation, "op: result")

    try:
        data, settled = codec.settle(value)
    except OutputError:
        return

    assert is_same(settled, codec.decode(data))
    assert value == settled or is_same(value, settled)


def test_nan_and_infinities_are_never_stored_as_null() -> None:
    codec: Codec[Any] = Codec(float | None, "op: result")

    back = [codec.decode(codec.encode(value)) for value in (math.nan, math.inf, -math.inf)]

    assert math.isnan(back[0])
    assert back[1:] == [math.inf, -math.inf]


def test_a_time_that_happens_twice_comes_back_as_the_one_that_was_meant() -> None:
    codec: Codec[dt.datetime] = Codec(dt.datetime, "op: result")
    second = dt.datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin"))

    back = codec.settle(second)[1]

    assert (back, back.fold, back.utcoffset(), back.tzinfo) == (second, 1, dt.timedelta(hours=1), second.tzinfo)


def test_a_dict_that_looks_like_a_tag_is_still_a_dict() -> None:
    codec: Codec[Any] = Codec(Any, "op: result")
    values: list[Any] = [
        {"$operon": 1, "value": {"$tuple": [1]}},
        ({"$tuple": [1]},),
        [{"$dict": [[1, 2]]}, b"x"],
        {"$operon": 2},
        {"$int": (1,)},
    ]

    back = [codec.decode(codec.encode(value)) for value in values]

    assert back == values


def test_what_is_plain_stays_readable_json() -> None:
    codec: Codec[Any] = Codec(Order, "op: result")
    key = uuid4()

    data = codec.encode(Order(key=key, lines=(Seat("A", 1),)))

    assert data == b'{"key":"%s","lines":[{"row":"A","number":1,"price":1.0}],"state":null}' % str(key).encode()


def test_the_live_value_is_a_copy_that_later_changes_do_not_reach() -> None:
    codec: Codec[list[Seat]] = Codec(list[Seat], "op: result")
    mine = [Seat("A", 1)]

    data, settled = codec.settle(mine)
    mine[0].number = 2

    assert settled == codec.decode(data) == [Seat("A", 1)]


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


def cyclic() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


POISON: list[tuple[Any, Callable[[], Any], str]] = [
    (Any, lambda: (number for number in [1]), "op: result cannot be stored: it is generator"),
    (Any, lambda: {"a": [object()]}, "op: result['a'][0] cannot be stored: it is object"),
    (Any, lambda: Seat("A", 1), "op: result cannot be stored: it is Seat, a class that the annotation does not name"),
    (Any, lambda: Colour.RED, "op: result cannot be stored: it is Colour, an enum"),
    (Any, lambda: Sneaky("x"), "op: result cannot be stored: it is Sneaky"),
    (str, lambda: Sneaky("x"), "op: result cannot be stored: it is Sneaky"),
    (Any, lambda: 1j, "op: result cannot be stored: it is complex"),
    (Any, cyclic, "nested deeper than 200 levels, or contains itself"),
    (Any, lambda: nested(DEPTH_MAX + 1), "nested deeper than 200 levels, or contains itself"),
    (Any, lambda: nested(100_000), "nested deeper than 200 levels, or contains itself"),
    (Any, lambda: {math.nan}, "op: result cannot be stored: it does not come back equal"),
    (int, lambda: "1", "op: result cannot be stored: it is str where int is expected"),
    (int, lambda: 1.0, "op: result cannot be stored: it is float where int is expected"),
    (bool, lambda: 1, "op: result cannot be stored: it is int where bool is expected"),
    (None, lambda: 1, "op: result cannot be stored: it is int where None is expected"),
    (NoReturn, lambda: 1, "op: result cannot be stored: it is int where nothing is expected"),
    (dt.date, lambda: dt.datetime.min, "op: result cannot be stored: it is datetime where date is expected"),
    (tuple[int, str], lambda: (1,), "op: result cannot be stored: it has 1 items where tuple[int, str] has 2"),
    (list[Seat], lambda: [Seat("A", 1), Seat("B", None)], "op: result[1].number cannot be stored: it is NoneType"),  # type: ignore[arg-type]
    (Node, lambda: Node(1, Node("x")), "op: result.next.value cannot be stored: it is str where int"),  # type: ignore[arg-type]
    (Order, lambda: Order(key=uuid4(), lines=(Seat("A", 1, "free"),)), "op: result.lines[0].price cannot"),  # type: ignore[arg-type]
    (Partial, lambda: {"when": dt.date.min}, "op: result cannot be stored: it lacks 'name' of Partial"),
    (Partial, lambda: {"name": "n", "x": 1}, "op: result cannot be stored: it has a key that Partial does not have"),
    (Literal["a"], lambda: "b", "op: result cannot be stored: it is not one of the 1 literals"),
    (Literal[1], lambda: True, "op: result cannot be stored: it is not one of the 1 literals"),
    (Annotated[int, msgspec.Meta(ge=0)], lambda: -1, "op: result cannot be stored: it breaks a constraint"),
    (Paid, lambda: Refunded("x"), "op: result cannot be stored: it is Refunded where Paid is expected"),
    (Restless, lambda: Restless(1), ""),
    (str, lambda: "x" * 20 * 1024 * 1024, "op: result cannot be stored: it is 20,971,522 bytes as JSON"),
]


@pytest.mark.parametrize(("annotation", "make", "message"), POISON)
def test_poison_is_refused_with_the_operation_and_the_field(
    annotation: Any, make: Callable[[], Any], message: str
) -> None:
    codec: Codec[Any] = Codec(annotation, "op: result")
    value = make()

    if message:
        with pytest.raises(OutputError) as caught:
            codec.settle(value)

        assert message in str(caught.value)
        assert caught.value.hint
    else:
        data, settled = codec.settle(value)

        assert settled == value == codec.decode(data)


def test_the_caller_chooses_the_error_and_the_limit() -> None:
    codec: Codec[Any] = Codec(str, "op: argument 'note'", error=InputError, bytes_max=10)

    with pytest.raises(InputError, match="op: argument 'note' cannot be stored: it is 11 bytes as JSON"):
        codec.encode("123456789")

    assert codec.encode("12345678") == b'"12345678"'


def test_a_value_stored_near_the_depth_limit_is_read_from_a_deep_stack() -> None:
    codec: Codec[Any] = Codec(Any, "op: result")
    value = nested(DEPTH_MAX)
    data = codec.encode(value)

    def from_below(frames: int) -> Any:
        return from_below(frames - 1) if frames else codec.decode(data)

    assert from_below(sys.getrecursionlimit() // 2) == value


UNSTORABLE: list[Any] = [complex, range, Callable[[], int], Iterator[int], collections.deque, "Nowhere", [int], Masked,
                         list[type], dict[str, memoryview], Box[complex], Exception]  # fmt: skip


@pytest.mark.parametrize("annotation", UNSTORABLE, ids=str)
def test_a_type_that_cannot_be_stored_is_found_at_launch(annotation: Any) -> None:
    with pytest.raises(CatalogError, match="op: result: .* is not a type that can be stored") as caught:
        Codec(annotation, "op: result")

    assert caught.value.hint


HOSTILE: list[tuple[Any, bytes]] = [
    (int, b'"1"'),
    (int, b""),
    (int, b"\xff"),
    (int, b'{"$operon":1}'),
    (int, b'{"$operon":1,"value":"x"}'),
    (Any, b"[" * 100_000),
    (Any, b'{"$operon":1,"value":{"$record":["Seat",{"row":"A","number":1,"price":1.0}]}}'),
    (Any, b'{"$operon":1,"value":{"$pickle":"gASV"}}'),
    (Any, b'{"$operon":1,"value":{"$int":"zz"}}'),
    (Seat, b'{"$operon":1,"value":{"$record":["os.system",{}]}}'),
    (Seat, b'{"$operon":1,"value":{"$record":["Seat",{"row":"A"}]}}'),
    (Seat, b'{"$operon":1,"value":{"$record":["Seat",{"row":"A","number":"1","price":1.0}]}}'),
    (Seat, b'{"row":"A"}'),
    (Colour, b'{"$operon":1,"value":{"$enum":["Colour","GREEN"]}}'),
    (Fussy, b'{"value":-1}'),
    (dt.datetime | str, b"3"),
]


@pytest.mark.parametrize(("annotation", "data"), HOSTILE)
def test_stored_data_that_does_not_fit_is_a_decoding_error(annotation: Any, data: bytes) -> None:
    codec: Codec[Any] = Codec(annotation, "op: result")

    with pytest.raises(DecodingError, match=r"^op: result.* cannot be read"):
        codec.decode(data)


def test_a_field_added_since_has_its_default() -> None:
    seat: Codec[Any] = Codec(Seat, "op: result")
    either: Codec[Any] = Codec(Dog | Seat, "op: result")

    plain = seat.decode(b'{"row":"A","number":1}')
    tagged = either.decode(b'{"$operon":1,"value":{"$record":["Dog",{"name":"Rex"}]}}')

    assert plain == Seat("A", 1, 1.0)
    assert tagged == Dog("Rex", None, [])


def test_a_masked_value_is_not_quoted_by_its_refusal() -> None:
    codec: Codec[Any] = Codec(Annotated[Fussy, Masked], "op: argument 'card'", error=InputError)

    with pytest.raises(DecodingError) as caught:
        codec.decode(b'{"value":-4242}')

    assert codec.masked
    assert "negative" not in str(caught.value)


def test_masked_is_found_in_the_fields_of_an_argument() -> None:
    fields: Any = msgspec.defstruct("Payment", [("card", Annotated[str, Masked])])

    assert Codec[Any](list[fields], "op: argument 'payment'").masked
    assert not Codec[Any](list[Seat], "op: argument 'seats'").masked


def test_refusals_are_encoding_errors() -> None:
    assert issubclass(InputError, EncodingError)
    assert issubclass(OutputError, EncodingError)


def test_an_integer_of_any_length_survives() -> None:
    codec: Codec[Any] = Codec(Any, "op: result")
    values = [2**63, -(2**63) - 1, 2**64, 2**70, 10**5000, [-(10**5000)], {10**5000: 1}]

    back = [codec.decode(codec.encode(value)) for value in values]

    assert back == values
