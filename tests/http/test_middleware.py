"""Middleware of a class runs for its own routes; Quart's hooks and ASGI middleware are where they always were."""

from __future__ import annotations

from typing import Any

import pytest
from quart import Response, request
from quart.typing import TestClientProtocol as HttpClient

import operon
from operon.authorization import Authenticated, CallNext, MiddlewareContext
from operon.contexts import HandlerContext, TransactionContext
from tests.http.conftest import quart_of

happened: list[str] = []


@pytest.fixture(autouse=True)
def begin_anew() -> None:
    happened.clear()


def noting(name: str) -> Any:
    async def note(ctx: MiddlewareContext, call_next: CallNext) -> Any:
        happened.append(f"{name} before {ctx.operation_name}")
        answer = await call_next()
        happened.append(f"{name} after {answer.status_code}")
        answer.headers[f"x-{name}"] = "was here"
        return answer

    return note


def who(ctx: MiddlewareContext) -> Authenticated | None:
    happened.append("authentication")
    return Authenticated("ada") if "ada" in ctx.request.args else None


async def gone(ctx: MiddlewareContext, call_next: CallNext) -> Any:
    return ("no more", 410) if "late" in ctx.request.args else await call_next()


async def mending(ctx: MiddlewareContext, call_next: CallNext) -> Any:
    try:
        return await call_next()
    except KeyError as error:
        return {"mended": error.args[0]}


@operon.authentication(who)
@operon.middleware(noting("first"), noting("second"))
@operon.middleware(noting("third"))
class Shop:
    @operon.get("/shop")
    @staticmethod
    async def front(ctx: HandlerContext) -> str:
        happened.append("front")
        return "the front"

    @operon.post("/shop/seats")
    @operon.transaction
    @staticmethod
    async def reserve(tx: TransactionContext) -> None:
        happened.append("reserve")


class Other:
    @operon.get("/shop/other")
    @staticmethod
    async def other(ctx: HandlerContext) -> str:
        return "another class, below the same path"


@operon.middleware(gone, mending)
class Back:
    @operon.get("/back")
    @staticmethod
    async def door(ctx: HandlerContext, key: str | None = None) -> str:
        if key is None:
            raise KeyError("key")
        if key == "wrong":
            raise LookupError
        return "open"


@pytest.fixture
def client() -> HttpClient:
    functions: list[Any] = [Shop.front, Shop.reserve, Other.other, Back.door]
    return quart_of(*functions).test_client()


async def test_middleware_runs_in_order_once_each_around_authentication_and_the_function(client: HttpClient) -> None:
    answer = await client.get("/shop?ada")

    assert await answer.get_data(as_text=True) == "the front"
    assert happened == [
        "first before Shop.front",
        "second before Shop.front",
        "third before Shop.front",
        "authentication",
        "front",
        "third after 200",
        "second after 200",
        "first after 200",
    ]
    assert {answer.headers[f"x-{name}"] for name in ("first", "second", "third")} == {"was here"}


async def test_an_operation_s_answer_passes_through_it_as_well(client: HttpClient) -> None:
    answer = await client.post("/shop/seats?ada")

    assert (answer.status_code, answer.headers["x-first"]) == (204, "was here")
    assert answer.headers["operon-workflowuuid"]
    assert happened.count("reserve") == 1


async def test_another_class_s_route_below_the_same_path_is_left_alone(client: HttpClient) -> None:
    answer = await client.get("/shop/other")

    assert answer.status_code == 200
    assert happened == []


async def test_a_middleware_may_answer_itself(client: HttpClient) -> None:
    answer = await client.get("/back?late&key=1")

    assert (answer.status_code, await answer.get_data(as_text=True)) == (410, "no more")


async def test_a_middleware_sees_errors_as_errors_and_may_answer_them(client: HttpClient) -> None:
    mended = await client.get("/back")
    passed = await client.get("/back?key=wrong")

    assert await mended.get_json() == {"mended": "key"}
    assert (passed.status_code, passed.content_type) == (500, "application/problem+json")


async def test_a_refusal_passes_through_it(client: HttpClient) -> None:
    answer = await client.get("/shop")

    assert answer.status_code == 401
    assert happened == [*(f"{name} before Shop.front" for name in ("first", "second", "third")), "authentication"]


async def test_quart_s_own_hooks_work_as_in_quart() -> None:
    quart = quart_of(Other.other)

    @quart.before_request
    async def closed() -> tuple[str, int] | None:  # pyright: ignore[reportUnusedFunction]
        return ("closed", 503) if "closed" in request.args else None

    @quart.after_request
    async def stamp(response: Response) -> Response:  # pyright: ignore[reportUnusedFunction]
        response.headers["x-stamp"] = "yes"
        return response

    client = quart.test_client()
    open_, closed_, unknown = [await client.get(path) for path in ("/shop/other", "/shop/other?closed", "/nowhere")]

    assert (open_.status_code, closed_.status_code, unknown.status_code) == (200, 503, 404)
    assert [answer.headers["x-stamp"] for answer in (open_, closed_, unknown)] == ["yes"] * 3


async def test_asgi_middleware_works_as_in_quart() -> None:
    quart = quart_of(Other.other)
    application = quart.asgi_app

    async def around(scope: Any, receive: Any, send: Any) -> None:
        happened.append(scope["type"])
        await application(scope, receive, send)

    quart.asgi_app = around  # type: ignore[method-assign]
    answer = await quart.test_client().get("/shop/other")

    assert answer.status_code == 200
    assert happened == ["http"]
