"""What fits an argument and what does not, in front of the real runtime: what is refused has left no row."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator
from typing import Annotated, Any

import msgspec
import pytest
from quart.typing import TestClientProtocol as HttpClient

import operon
from operon.contexts import HandlerContext, TransactionContext, WorkflowContext
from operon.testing import TestRuntime


@operon.post("/values")
@operon.workflow
async def values(ctx: WorkflowContext, number: int, flag: bool, text: str, nothing: int | None) -> list[Any]:
    return [number, flag, text, nothing]


@operon.workflow
async def describe(ctx: WorkflowContext, name: str, title: str = "guest", age: int | None = None) -> str:
    return f"{title} {name}, {'of no age' if age is None else age}"


@operon.get("/describe")
async def describe_over_http(ctx: HandlerContext, name: str, title: str = "guest", age: int | None = None) -> str:
    handle = await describe(ctx, name, title, age)
    return await handle.get_result()


@operon.post("/nullable")
@operon.transaction
async def nullable(tx: TransactionContext, note: str | None) -> str:
    return repr(note)


def typed(annotation: Any, path: str) -> list[Any]:
    """A GET and a POST transaction that take one value of a type."""

    async def take(tx: TransactionContext, v: Any) -> str:
        return repr(v)

    take.__annotations__["v"] = annotation
    made: list[Any] = []
    for route in (operon.get(path), operon.post(path)):
        made.append(route(operon.transaction(name=f"{path} {len(made)}")(take)))
    return made


class Types:
    text_get, text_post = typed(str, "/types/text")
    short_get, short_post = typed(Annotated[str, msgspec.Meta(max_length=10)], "/types/short")
    number_get, number_post = typed(float, "/types/number")
    flag_get, flag_post = typed(bool, "/types/flag")
    day_get, day_post = typed(dt.date, "/types/day")


@pytest.fixture(scope="module")
async def runtime() -> AsyncIterator[TestRuntime]:
    async with TestRuntime(__name__, Types, poll_seconds=0.2) as runtime:
        yield runtime


@pytest.fixture
def client(runtime: TestRuntime) -> HttpClient:
    return runtime.app.quart.test_client()


async def recorded(runtime: TestRuntime) -> int:
    count: int = await runtime.fetchval("select count(*) from operon.workflows")
    return count


async def test_falsy_values_are_values(client: HttpClient) -> None:
    body = {"number": 0, "flag": False, "text": "", "nothing": None}

    answer = await client.post("/values", json=body)

    assert (answer.status_code, await answer.get_json()) == (200, [0, False, "", None])


@pytest.mark.parametrize("missing", ["number", "flag", "text", "nothing"])
async def test_null_is_not_missing_and_missing_is_not_null(client: HttpClient, missing: str) -> None:
    body = {"number": 0, "flag": False, "text": "", "nothing": None}
    del body[missing]

    answer = await client.post("/values", json=body)

    assert answer.status_code == 400
    assert (await answer.get_json())["errors"] == [{"in": "body", "name": missing, "detail": "required"}]


@pytest.mark.parametrize(
    ("path", "given", "expected"),
    [
        ("text", "word", "'word'"),
        ("text", "", "''"),
        ("short", "0123456789", "'0123456789'"),
        ("number", "10.1", "10.1"),
        ("number", 20.2, "20.2"),
        ("number", -1, "-1.0"),
        ("number", "12345678901234567890123", "1.2345678901234568e+22"),
        ("number", 0, "0.0"),
        ("flag", True, "True"),
        ("flag", "true", "True"),
        ("flag", 1, "True"),
        ("flag", "F", "False"),
        ("flag", "0", "False"),
        ("day", "2023-10-31", "datetime.date(2023, 10, 31)"),
    ],
)
async def test_a_fitting_value_is_taken_on_get_and_post(
    client: HttpClient, path: str, given: Any, expected: str
) -> None:
    got = await client.get(f"/types/{path}", query_string={"v": str(given)})
    posted = await client.post(f"/types/{path}", json={"v": given})

    assert (got.status_code, await got.get_data(as_text=True)) == (200, expected)
    assert (posted.status_code, await posted.get_data(as_text=True)) == (200, expected)


@pytest.mark.parametrize(
    ("path", "given"),
    [
        ("short", "0123456789a"),
        ("number", "abc"),
        ("number", False),
        ("flag", "A"),
        ("flag", "falsy"),
        ("flag", 2),
        ("day", "yesterday"),
        ("day", "2023-13-31"),
    ],
)
async def test_a_value_of_the_wrong_type_is_400_with_its_name_on_get_and_post(
    runtime: TestRuntime, client: HttpClient, path: str, given: Any
) -> None:
    before = await recorded(runtime)

    got = await client.get(f"/types/{path}", query_string={"v": str(given)})
    posted = await client.post(f"/types/{path}", json={"v": given})

    for answer, location in ((got, "query"), (posted, "body")):
        problem = await answer.get_json()
        assert answer.status_code == 400
        assert [(each["in"], each["name"]) for each in problem["errors"]] == [(location, "v")]
    assert await recorded(runtime) == before


@pytest.mark.parametrize("path", ["text", "short", "number", "flag", "day"])
async def test_a_value_that_is_not_given_is_400_on_get_and_post(client: HttpClient, path: str) -> None:
    got = await client.get(f"/types/{path}")
    posted = await client.post(f"/types/{path}", json={})

    assert (got.status_code, posted.status_code) == (400, 400)


async def test_only_a_default_makes_an_argument_optional(client: HttpClient) -> None:
    left_out = await client.post("/nullable", json={})
    null = await client.post("/nullable", json={"note": None})

    assert left_out.status_code == 400
    assert await null.get_data(as_text=True) == "None"


async def test_an_argument_left_out_of_the_request_is_left_out_all_the_way(
    client: HttpClient,
) -> None:
    short = await client.get("/describe?name=ada")
    full = await client.get("/describe?name=ada&title=Countess&age=36")

    assert await short.get_data(as_text=True) == "guest ada, of no age"
    assert await full.get_data(as_text=True) == "Countess ada, 36"
