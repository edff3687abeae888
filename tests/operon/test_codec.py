"""A value comes back equal, or is refused by name. There is no third way."""

from __future__ import annotations

import datetime as dt
import math
from typing import Any
from uuid import uuid4
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from operon.codec import Codec
from operon.errors import OutputError
from tests.operon.values import TYPED, Dog, Order, Seat, animals, anything, flags, is_same, seats, states

quick = settings(max_examples=120, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])


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


def test_a_zone_is_kept_wherever_the_time_is() -> None:
    codec: Codec[set[dt.datetime]] = Codec(set[dt.datetime], "op: result")
    noon = dt.datetime(2024, 5, 1, 12, tzinfo=ZoneInfo("Europe/Berlin"))

    (back,) = codec.settle({noon})[1]

    assert back.tzinfo == noon.tzinfo


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


def test_an_integer_of_any_length_survives() -> None:
    codec: Codec[Any] = Codec(Any, "op: result")
    values = [2**63, -(2**63) - 1, 2**64, 2**70, 10**5000, [-(10**5000)], {10**5000: 1}]

    back = [codec.decode(codec.encode(value)) for value in values]

    assert back == values


def test_a_field_added_since_has_its_default() -> None:
    seat: Codec[Any] = Codec(Seat, "op: result")
    either: Codec[Any] = Codec(Dog | Seat, "op: result")

    plain = seat.decode(b'{"row":"A","number":1}')
    tagged = either.decode(b'{"$operon":1,"value":{"$record":["Dog",{"name":"Rex"}]}}')

    assert plain == Seat("A", 1, 1.0)
    assert tagged == Dog("Rex", None, [])
