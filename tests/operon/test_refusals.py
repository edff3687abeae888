"""What cannot come back equal is refused, and what does not fit is not read: both by name, both typed."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import math
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal, NoReturn
from uuid import uuid4

import msgspec
import pytest

from operon.codec import Codec, Masked
from operon.errors import CatalogError, DecodingError, InputError, OutputError
from operon.tagged import DEPTH_MAX
from tests.operon.values import Box, Colour, Node, Order, Paid, Partial, Refunded, Seat, Sneaky


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
    (str, lambda: "x" * 20 * 1024 * 1024, "op: result cannot be stored: it is 20,971,522 bytes as JSON"),
]


@pytest.mark.parametrize(("annotation", "make", "message"), POISON)
def test_poison_is_refused_with_the_operation_and_the_field(
    annotation: Any, make: Callable[[], Any], message: str
) -> None:
    codec: Codec[Any] = Codec(annotation, "op: result")
    value = make()

    with pytest.raises(OutputError) as caught:
        codec.settle(value)

    assert message in str(caught.value)
    assert caught.value.hint


def test_a_class_that_changes_what_it_is_given_still_comes_back_equal() -> None:
    codec: Codec[Restless] = Codec(Restless, "op: result")
    value = Restless(1)

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
    with pytest.raises(CatalogError, match=r"op: result: .* is not a type that can be stored") as caught:
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


def test_a_masked_value_is_not_quoted_by_its_refusal() -> None:
    codec: Codec[Any] = Codec(Annotated[Fussy, Masked], "op: argument 'card'", error=InputError)

    with pytest.raises(DecodingError) as caught:
        codec.decode(b'{"value":-4242}')

    assert codec.masked
    assert "negative" not in "".join(traceback.format_exception(caught.value))


def test_masked_is_found_in_the_fields_of_an_argument() -> None:
    fields: Any = msgspec.defstruct("Payment", [("card", Annotated[str, Masked])])

    assert Codec[Any](list[fields], "op: argument 'payment'").masked
    assert Codec[Any](tuple[Annotated[str, Masked], Annotated[int, "plain"]], "op: argument 'pair'").masked
    assert not Codec[Any](list[Seat], "op: argument 'seats'").masked
