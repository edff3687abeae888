"""The validation matrix: every type, on GET and on POST, given rightly, given wrongly, and not given."""

from __future__ import annotations

import datetime as dt
import enum
import inspect
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, Literal, NotRequired, TypedDict
from uuid import UUID

import msgspec
import pytest

from operon.contexts import HandlerContext
from operon.http.markers import Body, Header
from operon.http.misfits import MISFITS_MAX, PARTS_MAX
from operon.operations import Described
from operon.routes import get, post
from tests.http.conftest import quart_of

JSON = {"content-type": "application/json"}
REQUIRED = inspect.Parameter.empty


class Size(enum.IntEnum):
    SMALL = 1


class Card(msgspec.Struct, tag="card", forbid_unknown_fields=True):
    number: Annotated[str, msgspec.Meta(pattern="^[0-9]+$")]


class Cash(msgspec.Struct, tag="cash"):
    cents: int


class Item(msgspec.Struct, rename="camel"):
    item_name: str
    count: Annotated[int, msgspec.Meta(ge=1)] = 1


@dataclass
class Address:
    street: str
    since: dt.date
    note: str = ""


class Extra(TypedDict):
    gift: bool
    until: NotRequired[dt.date]


class Basket(msgspec.Struct):
    items: list[Item]
    address: Address
    extra: Extra | None = None
    prices: dict[str, Decimal] = {}


def taking(annotation: Any, method: Any, default: Any = REQUIRED) -> Described:
    """A function with one parameter, `v`, that answers with its repr."""

    async def take(ctx: HandlerContext, v: Any) -> str:
        return repr(v)

    take.__annotations__["v"] = annotation
    take.__defaults__ = () if default is REQUIRED else (default,)
    described: Described = method("/")(take)
    return described


async def got(annotation: Any, query: str, default: Any = REQUIRED) -> Any:
    """What a GET with this query string is answered: the value's repr, or what is wrong."""
    return await outcome(await quart_of(taking(annotation, get, default)).test_client().get(f"/?{query}"))


async def posted(annotation: Any, body: str, default: Any = REQUIRED) -> Any:
    """What a POST with this body is answered."""
    client = quart_of(taking(annotation, post, default)).test_client()
    return await outcome(await client.post("/", data=body.encode(), headers=JSON))


async def outcome(response: Any) -> Any:
    if response.status_code == 200:
        return await response.get_data(as_text=True)
    assert response.status_code == 400
    return [(each["in"], each["name"], each["detail"]) for each in (await response.get_json())["errors"]]


@pytest.mark.parametrize(
    ("annotation", "missing", "null", "given"),
    [
        (int, "required", "Expected int, got null", "7"),
        (int | None, "required", "None", "7"),
        (Annotated[int | None, "a note"], "required", "None", "7"),
    ],
)
@pytest.mark.parametrize("default", [REQUIRED, 5, None], ids=["required", "default", "optional"])
async def test_a_default_decides_what_is_missing_and_the_type_decides_what_is_null(
    annotation: Any, missing: str, null: str, given: str, default: Any
) -> None:
    without = [("body", "v", missing)] if default is REQUIRED else repr(default)
    with_null = null if null == "None" else [("body", "v", null)]

    assert await posted(annotation, "{}", default) == without
    assert await posted(annotation, "", default) == without
    assert await posted(annotation, '{"v": null}', default) == with_null
    assert await posted(annotation, '{"v": 7}', default) == given
    assert await got(annotation, "", default) == ([("query", "v", missing)] if default is REQUIRED else repr(default))
    assert await got(annotation, "v=7", default) == given


@pytest.mark.parametrize(
    ("annotation", "text", "value"),
    [
        (int, "0", "0"),
        (float, "0", "0.0"),
        (float, "-0.0", "-0.0"),
        (bool, "false", "False"),
        (str, '""', "''"),
        (list[int], "[]", "[]"),
        (dict[str, int], "{}", "{}"),
        (str | None, "null", "None"),
        (Any, "0", "0"),
        (Any, "false", "False"),
        (Any, '""', "''"),
        (Any, "null", "None"),
    ],
)
async def test_what_is_falsy_is_given_and_not_the_default(annotation: Any, text: str, value: str) -> None:
    by_name = Annotated[annotation, Body("v")]

    assert await posted(by_name, f'{{"v": {text}}}', default="the default") == value


@pytest.mark.parametrize(
    ("annotation", "query", "value"),
    [
        (int, "v=9007199254740993", "9007199254740993"),
        (int, "v=-170141183460469231731687303715884105728", "-170141183460469231731687303715884105728"),
        (float, "v=1e308", "1e+308"),
        (Decimal, "v=0.1", "Decimal('0.1')"),
        (Size, "v=1", "<Size.SMALL: 1>"),
        (Literal[1, "a"], "v=a", "'a'"),
        (Literal[1, 2], "v=2", "2"),
        (dt.time, "v=10:11:12", "datetime.time(10, 11, 12)"),
        (dt.timedelta, "v=PT5S", "datetime.timedelta(seconds=5)"),
        (int | str, "v=a", "'a'"),
        (int | bool | None, "v=true", "True"),
        (UUID | int, "v=5", "5"),
        (list[Size], "v=1&v=1", "[<Size.SMALL: 1>, <Size.SMALL: 1>]"),
        (set[str], "v=a&v=a", "{'a'}"),
        (tuple[int, str], "v=1&v=b", "(1, 'b')"),
        (Annotated[list[int], msgspec.Meta(max_length=2)], "v=1&v=2", "[1, 2]"),
        (Annotated[int, msgspec.Meta(ge=0, multiple_of=5)], "v=10", "10"),
        (Annotated[str, msgspec.Meta(pattern="^a+$")], "v=aaa", "'aaa'"),
        (bytes, "v=YQ%3D%3D", "b'a'"),
        (str, "v=%2B+%20%26", "'+  &'"),
    ],
)
async def test_a_text_that_fits_is_taken(annotation: Any, query: str, value: str) -> None:
    assert await got(annotation, query) == value


@pytest.mark.parametrize(
    ("annotation", "query", "name", "detail"),
    [
        (Size, "v=2", "v", "Invalid enum value 2"),
        (Literal[1, 2], "v=3", "v", "Invalid enum value 3"),
        (Annotated[int, msgspec.Meta(ge=0)], "v=-1", "v", "Expected int >= 0"),
        (Annotated[str, msgspec.Meta(pattern="^a+$")], "v=b", "v", "Expected str matching regex '^a+$'"),
        (Annotated[list[int], msgspec.Meta(max_length=2)], "v=1&v=2&v=3", "v", "Expected array of length <= 2"),
        (list[int], "v=1&v=x&v=3", "v[1]", "Expected int, got str"),
        (tuple[int, str], "v=1", "v", "Expected array of length 2, got 1"),
        (dt.datetime, "v=2023-10-31T25:00:00Z", "v", "Invalid RFC3339 encoded datetime"),
        (dt.timedelta, "v=5", "v", "Invalid ISO8601 duration"),
        (bool, "v=yes", "v", "Expected bool, got str"),
        (int, "v=1&v=2", "v", "given 2 times, expected one value"),
        (int, "v=" + "9" * 5000, "v", "Integer value out of range"),
    ],
)
async def test_a_text_that_does_not_fit_says_why(annotation: Any, query: str, name: str, detail: str) -> None:
    assert await got(annotation, query) == [("query", name, detail)]


async def test_a_union_of_tagged_objects_is_told_apart() -> None:
    assert await posted(Card | Cash, '{"type": "cash", "cents": 5}') == "Cash(cents=5)"
    assert await posted(Card | Cash, '{"type": "card", "number": "4"}') == "Card(number='4')"
    assert await posted(Card | Cash, '{"type": "gold"}') == [("body", "type", "Invalid value 'gold'")]
    assert await posted(Card, '{"number": "4", "x": 1}') == [
        ("body", "", "Object contains unknown field x"),
    ]


async def test_a_scalar_or_an_object_goes_by_name() -> None:
    assert await posted(Cash | str, '{"v": "later"}') == "'later'"
    assert await posted(Cash | str, '{"v": {"type": "cash", "cents": 5}}') == "Cash(cents=5)"


async def test_everything_that_is_wrong_inside_a_body_is_reported_at_once() -> None:
    body = """{
        "items": [{"itemName": "tea"}, {"itemName": 5, "count": 0}, "x", {}],
        "address": {"since": "today"},
        "extra": {"until": "2023-10-31x"},
        "prices": {"tea": "cheap", "cup": 1}
    }"""

    assert await posted(Basket, body) == [
        ("body", "items[1].itemName", "Expected str, got int"),
        ("body", "items[1].count", "Expected int >= 1"),
        ("body", "items[2]", "Expected object, got str"),
        ("body", "items[3].itemName", "required"),
        ("body", "address.street", "required"),
        ("body", "address.since", "Invalid RFC3339 encoded date"),
        ("body", "extra.gift", "required"),
        ("body", "extra.until", "Invalid RFC3339 encoded date"),
        ("body", "prices.tea", "Invalid decimal string"),
    ]


async def test_what_is_wrong_in_two_places_of_a_named_argument_is_reported_under_its_name() -> None:
    by_name = Annotated[Item, Body("basket")]

    assert await posted(by_name, '{"basket": {"count": -1}}') == [
        ("body", "basket.itemName", "required"),
        ("body", "basket.count", "Expected int >= 1"),
    ]


async def test_a_thousand_errors_are_a_bounded_answer() -> None:
    errors = await posted(Annotated[list[int], Body("v")], '{"v": [' + ", ".join(['"x"'] * 10_000) + "]}")

    assert [name for _, name, _ in errors] == [f"v[{index}]" for index in range(MISFITS_MAX)]


async def test_a_list_too_long_to_look_through_is_refused_for_its_first_error() -> None:
    last = PARTS_MAX + 1

    errors = await posted(Annotated[list[int], Body("v")], '{"v": [' + "1, " * last + '"x", "y"]}')

    assert errors == [("body", f"v[{last}]", "Expected int, got str")]


@pytest.mark.parametrize(
    "value",
    ['{"$operon": 1, "value": 5}', ' {\n"$operon":1}', '{"\\u0024oper\\u006fn": 1}', '{"a": 1, "$operon": 1}'],
)
@pytest.mark.parametrize("annotation", [Any, dict[str, Any], Cash | None, str | dict[str, int]])
async def test_the_envelope_of_stored_data_is_refused_in_a_request(annotation: Any, value: str) -> None:
    by_name = Annotated[annotation, Body("v")]

    assert await posted(by_name, f'{{"v": {value}}}') == [("body", "v", "the key $operon is not for requests")]


async def test_the_envelope_is_refused_as_a_whole_body_and_is_a_text_elsewhere() -> None:
    assert await posted(dict[str, Any], '{"$operon": 1}') == [("body", "", "the key $operon is not for requests")]
    assert await posted(dict[str, Any], '{"a": {"$operon": 1}}') == "{'a': {'$operon': 1}}"
    assert await posted(str, '{"v": "{\\"$operon\\": 1}"}') == "'{\"$operon\": 1}'"


@pytest.mark.parametrize("annotation", [Any, dict[str, Any], list[Any], Item, int])
@pytest.mark.parametrize("opened", ["[", '{"a":'])
async def test_json_ten_thousand_deep_is_400(annotation: Any, opened: str) -> None:
    closed = "]" if opened == "[" else "}"
    deep = opened * 10_000 + "1" + closed * 10_000

    assert isinstance(await posted(annotation, deep), list)
    assert isinstance(await posted(annotation, f'{{"v": {deep}}}'), list)
    assert isinstance(await posted(annotation, f'{{"v": 1, "other": {deep}}}'), list)


async def test_a_header_is_read_as_its_type_and_refused_by_its_name() -> None:
    @get("/")
    async def take(
        ctx: HandlerContext, tenant_id: Annotated[int, Header], tags: Annotated[list[str], Header("x-tag")]
    ) -> str:
        return repr((tenant_id, tags))

    client = quart_of(take).test_client()

    fits = await client.get("/", headers=[("Tenant-ID", "7"), ("x-tag", "a"), ("X-Tag", "b")])
    wrong = await client.get("/", headers={"tenant-id": "seven"})

    assert await outcome(fits) == "(7, ['a', 'b'])"
    assert await outcome(wrong) == [
        ("header", "tenant-id", "Expected int, got str"),
        ("header", "x-tag", "required"),
    ]
