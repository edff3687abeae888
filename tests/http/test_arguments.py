"""A request's path, query string, headers and body become arguments, or an answer that says why not."""

from __future__ import annotations

import datetime as dt
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, NamedTuple, TypedDict
from uuid import UUID

import msgspec
import pytest
from quart import Quart

from operon.config import Settings
from operon.contexts import HandlerContext
from operon.errors import CatalogError
from operon.http.markers import Body, Header, Path, Query
from operon.routes import get, post, put
from tests.http.conftest import quart_of

JSON = {"content-type": "application/json"}


class Color(Enum):
    RED = "red"


class Payment(msgspec.Struct):
    card: str
    cents: int


@dataclass
class Point:
    x: int
    y: int = 0


class Extent(TypedDict):
    width: int


class Pair(NamedTuple):
    left: int
    right: int


def echo_of(annotation: Any, default: Any = inspect.Parameter.empty, method: Any = get, path: str = "/") -> Any:
    """A handler with one parameter, `value`, that answers with its repr."""

    async def echo(ctx: HandlerContext, value: Any) -> str:
        return repr(value)

    echo.__annotations__["value"] = annotation
    if default is not inspect.Parameter.empty:
        echo.__defaults__ = (default,)
    return method(path)(echo)


async def ask(annotation: Any, query: str, default: Any = inspect.Parameter.empty) -> tuple[int, Any]:
    client = quart_of(echo_of(annotation, default)).test_client()
    response = await client.get(f"/?{query}")
    return response.status_code, await outcome(response)


async def send(annotation: Any, body: bytes, default: Any = inspect.Parameter.empty) -> tuple[int, Any]:
    client = quart_of(echo_of(annotation, default, post)).test_client()
    response = await client.post("/", data=body, headers=JSON)
    return response.status_code, await outcome(response)


async def outcome(response: Any) -> Any:
    if response.status_code == 200:
        return await response.get_data(as_text=True)
    assert response.content_type == "application/problem+json"
    return [(each["in"], each["name"], each["detail"]) for each in (await response.get_json())["errors"]]


@pytest.mark.parametrize(
    ("annotation", "text", "value"),
    [
        (str, "abc", "'abc'"),
        (str, "", "''"),
        (str, "null", "'null'"),
        (str | None, "null", "'null'"),
        (int, "0", "0"),
        (int, "-1", "-1"),
        (int, "9" * 30, "9" * 30),
        (int | None, "null", "None"),
        (int | str, "5", "'5'"),
        (float, "10.1", "10.1"),
        (float, "20.2", "20.2"),
        (float, "123456789012345678901234567890", "1.2345678901234568e+29"),
        (Decimal, "10.10", "Decimal('10.10')"),
        (bool, "true", "True"),
        (bool, "1", "True"),
        (bool, "t", "True"),
        (bool, "F", "False"),
        (bool, "0", "False"),
        (bool, "FALSE", "False"),
        (dt.date, "2023-10-31", "datetime.date(2023, 10, 31)"),
        (dt.datetime, "2023-10-31", "datetime.datetime(2023, 10, 31, 0, 0, tzinfo=datetime.timezone.utc)"),
        (dt.datetime, "2023-10-31T01:02:03Z", "datetime.datetime(2023, 10, 31, 1, 2, 3, tzinfo=datetime.timezone.utc)"),
        (UUID, "8e03978e-40d5-43dd-bc93-6894a57f9324", "UUID('8e03978e-40d5-43dd-bc93-6894a57f9324')"),
        (Color, "red", "<Color.RED: 'red'>"),
        (list[str], "a", "['a']"),
        (Annotated[str, msgspec.Meta(max_length=10)], "0123456789", "'0123456789'"),
    ],
)
async def test_a_text_in_the_query_becomes_the_annotated_type(annotation: Any, text: str, value: str) -> None:
    assert await ask(annotation, f"value={text}") == (200, value)


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (int, "abc"),
        (int, "10.1"),
        (int, ""),
        (int, "1e400"),
        (float, "abc"),
        (float, "false"),
        (float, "nan"),
        (float, "inf"),
        (bool, "A"),
        (bool, "falsy"),
        (bool, "2"),
        (dt.date, "yesterday"),
        (dt.datetime, "5"),
        (dt.datetime, "2023-13-31"),
        (UUID, "8e03978e"),
        (Color, "blue"),
        (list[int], "a"),
        (Annotated[str, msgspec.Meta(max_length=10)], "01234567890"),
    ],
)
async def test_a_text_of_the_wrong_type_is_400_with_the_fields_name(annotation: Any, text: str) -> None:
    status, errors = await ask(annotation, f"value={text}")

    assert status == 400
    assert [(location, name) for location, name, _ in errors] == [
        ("query", "value" if annotation != list[int] else "value[0]")
    ]


@pytest.mark.parametrize(
    ("annotation", "text", "value"),
    [
        (str, '""', "''"),
        (str, '"\\u0000"', "'\\x00'"),
        (int, "0", "0"),
        (int, '"5"', "5"),
        (float, '"10.1"', "10.1"),
        (float, "20.2", "20.2"),
        (float, "-1", "-1.0"),
        (Decimal, "10.10", "Decimal('10.10')"),
        (bool, "false", "False"),
        (bool, "1", "True"),
        (bool, '"F"', "False"),
        (bool, '"0"', "False"),
        (int | None, "null", "None"),
        (Payment | None, "null", "None"),
        (dt.date, '"2023-10-31"', "datetime.date(2023, 10, 31)"),
        (dt.datetime, '"2023-10-31"', "datetime.datetime(2023, 10, 31, 0, 0, tzinfo=datetime.timezone.utc)"),
        (set[int], "[1, 1]", "{1}"),
        (tuple[int, str], '[1, "a"]', "(1, 'a')"),
        (bytes, '"YQ=="', "b'a'"),
        (Pair, "[1, 2]", "Pair(left=1, right=2)"),
        (Any, '{"a": [null]}', "{'a': [None]}"),
    ],
)
async def test_a_value_in_the_body_becomes_the_annotated_type(annotation: Any, text: str, value: str) -> None:
    by_name = Annotated[annotation, Body("value")]

    assert await send(by_name, f'{{"value": {text}}}'.encode()) == (200, value)


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (str, "5"),
        (str, "null"),
        (int, "null"),
        (int, '"abc"'),
        (int, "false"),
        (float, "false"),
        (float, '"nan"'),
        (bool, '"A"'),
        (bool, "2"),
        (dt.date, '"words"'),
        (dt.datetime, "5"),
        (list[int], '"5"'),
        (int, "9" * 5000),
    ],
)
async def test_a_value_of_the_wrong_type_is_400_with_the_fields_name(annotation: Any, text: str) -> None:
    status, errors = await send(annotation, f'{{"value": {text}}}'.encode())

    assert status == 400
    assert [(location, name) for location, name, _ in errors] == [("body", "value")]


@pytest.mark.parametrize("annotation", [str, int, float, bool, dt.date, int | None])
async def test_a_missing_value_is_400_on_get_and_post(annotation: Any) -> None:
    assert await ask(annotation, "") == (400, [("query", "value", "required")])
    assert await send(annotation, b"{}") == (400, [("body", "value", "required")])
    assert await send(annotation, b"") == (400, [("body", "value", "required")])


async def test_a_default_makes_an_argument_optional_on_get_and_post() -> None:
    assert await ask(int, "", default=7) == (200, "7")
    assert await ask(str | None, "", default=None) == (200, "None")
    assert await send(int, b"{}", default=7) == (200, "7")
    assert await send(int, b"", default=7) == (200, "7")
    assert await send(Payment | None, b" ", default=None) == (200, "None")


async def test_a_key_given_twice_is_refused_for_a_scalar_and_collected_for_a_list() -> None:
    assert await ask(int, "value=1&value=2") == (400, [("query", "value", "given 2 times, expected one value")])
    assert await ask(list[int], "value=1&value=2") == (200, "[1, 2]")
    assert await ask(list[bool] | None, "value=t&value=F") == (200, "[True, False]")
    assert await ask(Sequence[str], "value=1") == (200, "['1']")


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (Payment, "Payment(card='4242', cents=5)"),
        (Payment | None, "Payment(card='4242', cents=5)"),
        (dict[str, Any], "{'card': '4242', 'cents': 5}"),
        (Annotated[Payment, "a note"], "Payment(card='4242', cents=5)"),
    ],
)
async def test_the_only_argument_of_an_object_type_is_the_whole_body(annotation: Any, value: str) -> None:
    assert await send(annotation, b'{"card": "4242", "cents": 5}') == (200, value)


async def test_dataclasses_and_typed_dicts_are_objects_too() -> None:
    assert await send(Point, b'{"x": 1}') == (200, "Point(x=1, y=0)")
    assert await send(Extent, b'{"width": 1}') == (200, "{'width': 1}")


async def test_a_marker_makes_an_argument_the_whole_body_or_not() -> None:
    assert await send(Annotated[list[int], Body(whole=True)], b"[1, 2]") == (200, "[1, 2]")
    assert await send(Annotated[Point, Body(whole=False)], b'{"value": {"x": 1}}') == (200, "Point(x=1, y=0)")


async def test_an_error_inside_an_object_names_the_field_inside() -> None:
    by_name = Annotated[list[Payment], Body("value")]

    assert await send(Payment, b'{"card": "4242"}') == (400, [("body", "cents", "required")])
    assert await send(Payment, b'{"card": 5, "cents": 5}') == (400, [("body", "card", "Expected str, got int")])
    assert await send(by_name, b'{"value": [{"card": ""}]}') == (400, [("body", "value[0].cents", "required")])


async def test_every_error_of_a_request_is_reported_at_once() -> None:
    @put("/<show>")
    async def book(
        ctx: HandlerContext,
        show: int,
        seat: str,
        card: int,
        tenant: Annotated[int, Header()],
        page: Annotated[int, Query],
    ) -> None: ...

    client = quart_of(book).test_client()

    response = await client.put("/x?page=y", data=b'{"card": "z"}', headers=JSON | {"idempotency-key": "\t"})

    assert response.status_code == 400
    assert {(each["in"], each["name"]) for each in (await response.get_json())["errors"]} == {
        ("path", "show"),
        ("body", "seat"),
        ("body", "card"),
        ("header", "tenant"),
        ("query", "page"),
        ("header", "Idempotency-Key"),
    }


async def test_markers_name_the_place_of_an_argument() -> None:
    @post("/shows/<id>")
    async def book(
        ctx: HandlerContext,
        show: Annotated[int, Path("id")],
        /,
        seat: Annotated[str, Query("s")],
        *,
        tenant: Annotated[str, Header("x-tenant")] = "none",
        user_agent: Annotated[str, Header],
        payment: Payment,
    ) -> list[Any]:
        return [show, seat, tenant, user_agent, payment]

    client = quart_of(book).test_client()

    response = await client.post(
        "/shows/5?s=A1&payment=no",
        data=b'{"card": "c", "cents": 1}',
        headers=JSON | {"x-tenant": "t", "user-agent": "pytest"},
    )

    assert await response.get_json() == [5, "A1", "t", "pytest", {"card": "c", "cents": 1}]


async def test_post_does_not_look_at_the_query_string() -> None:
    client = quart_of(echo_of(int, method=post)).test_client()

    response = await client.post("/?value=1", data=b"{}", headers=JSON)

    assert response.status_code == 400


@pytest.mark.parametrize(
    ("path", "annotation", "url", "value"),
    [
        ("/<value>", str, "/a%20b", "'a b'"),
        ("/<value>", int, "/0", "0"),
        ("/<int:value>", int, "/7", "7"),
        ("/<int:value>", str, "/7", "'7'"),
        ("/<uuid:value>", UUID, f"/{UUID(int=1)}", f"UUID('{UUID(int=1)}')"),
        ("/<uuid:value>", str, f"/{UUID(int=1)}", f"'{UUID(int=1)}'"),
        ("/<path:value>", str, "/a/b", "'a/b'"),
        ("/<string(length=2):value>", str, "/ab", "'ab'"),
        ("/<value>", str, "/%F0%9F%8E%AD", "'🎭'"),
        ("/<value>", str, "/%EF%BF%BD", "'\ufffd'"),
    ],
)
async def test_a_variable_of_the_path_becomes_the_annotated_type(
    path: str, annotation: Any, url: str, value: str
) -> None:
    client = quart_of(echo_of(annotation, path=path)).test_client()

    response = await client.get(url)

    assert (response.status_code, await response.get_data(as_text=True)) == (200, value)


async def test_a_variable_that_does_not_convert_is_400() -> None:
    client = quart_of(echo_of(int, path="/<value>")).test_client()

    response = await client.get("/abc")

    assert (response.status_code, await outcome(response)) == (400, [("path", "value", "Expected int, got str")])


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b'{"value": 1',
        b'{"value": 1}}',
        b'{"value": NaN}',
        b'{"value": "\\ud800"}',
        b"[]",
        b"null",
        b'"text"',
        b"\xff",
        b'{"value": 1, "other": "\xff"}',
        b'{"other": ' + b"[" * 100_000 + b"]" * 100_000 + b', "value": 1}',
        b"[" * 100_000,
    ],
)
async def test_a_body_that_is_no_json_object_is_400(body: bytes) -> None:
    status, errors = await send(int, body)

    assert status == 400
    assert [(location, name) for location, name, _ in errors] == [("body", "")]


async def test_a_whole_body_that_is_not_json_is_complained_of_once() -> None:
    assert await send(Payment, b'{"card": "\xff"}') == (400, [("body", "", "not UTF-8")])
    assert (await send(Payment, b"["))[0] == 400
    assert await send(Payment, b"5") == (400, [("body", "", "Expected object, got int")])


async def test_json_nested_too_deeply_in_a_field_is_400() -> None:
    status, _ = await send(Any, b'{"value": ' + b'{"a":' * 50_000 + b"1" + b"}" * 50_000 + b"}")

    assert status == 400


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-type": "text/plain"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": "application/json; charset=latin-1"},
        {"content-type": "application/json", "content-encoding": "gzip"},
    ],
)
async def test_a_body_that_is_not_declared_as_json_is_415(headers: dict[str, str]) -> None:
    client = quart_of(echo_of(int, method=post)).test_client()

    response = await client.post("/", data=b'{"value": 1}', headers=headers)

    assert response.status_code == 415
    assert (await response.get_json())["code"] == "unsupported_media_type"


async def test_a_json_dialect_and_a_charset_are_accepted() -> None:
    client = quart_of(echo_of(int, method=post)).test_client()

    response = await client.post(
        "/", data=b'{"value": 1}', headers={"content-type": "application/merge-patch+json; charset=UTF-8"}
    )

    assert response.status_code == 200


async def test_an_oversized_body_is_413() -> None:
    settings = Settings(port=0, body_limit_bytes=100)
    client = quart_of(echo_of(str, method=post), settings=settings).test_client()

    fits = await client.post("/", data=b'{"value": "%s"}' % (b"x" * 80), headers=JSON)
    exceeds = await client.post("/", data=b'{"value": "%s"}' % (b"x" * 100), headers=JSON)

    assert fits.status_code == 200
    assert exceeds.status_code == 413
    assert (await exceeds.get_json())["code"] == "body_too_large"


async def test_the_limit_holds_in_a_given_quart_with_a_higher_one() -> None:
    settings = Settings(port=0, body_limit_bytes=100)
    client = quart_of(echo_of(str, method=post), settings=settings, quart=Quart("own")).test_client()

    response = await client.post("/", data=b'{"value": "%s"}' % (b"x" * 100), headers=JSON)

    assert response.status_code == 413


async def test_a_query_that_is_not_utf_8_is_400() -> None:
    assert await ask(str, "value=%ff") == (400, [("query", "", "not UTF-8"), ("query", "value", "required")])


async def test_a_query_of_too_many_fields_is_400() -> None:
    status, errors = await ask(str, "&".join(["value=1"] * 2000))

    assert (status, errors[0]) == (400, ("query", "", "more than 1000 fields"))


def test_what_a_request_can_never_give_is_refused_at_launch() -> None:
    async def no_such_parameter(ctx: HandlerContext) -> None: ...
    async def variadic(ctx: HandlerContext, *values: int) -> None: ...
    async def two_markers(ctx: HandlerContext, value: Annotated[int, Query, Header]) -> None: ...
    async def two_bodies(ctx: HandlerContext, a: Annotated[Point, Body(whole=True)], b: int) -> None: ...

    for handler, reason in [
        (get("/<missing>")(no_such_parameter), "<missing>"),
        (get("/")(variadic), "variadic"),
        (get("/")(two_markers), "2 markers"),
        (post("/")(two_bodies), "whole body"),
        (echo_of(Point), "is an object"),
        (echo_of(Annotated[int, Path("id")], path="/<value>"), "<id>"),
        (get("/<nope:value>")(echo_of(str).fn), "malformed"),
        (get("/<value")(echo_of(str).fn), "malformed"),
    ]:
        with pytest.raises(CatalogError, match=reason):
            quart_of(handler)
