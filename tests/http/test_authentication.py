"""Before a request reaches a function it is known who asks, and whether they may."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from quart import Blueprint, Quart, abort, websocket

import operon
from operon.authorization import Authenticated, MiddlewareContext
from operon.contexts import HandlerContext, TransactionContext
from operon.errors import CatalogError, NotAuthorizedError
from operon.http.identity import from_key
from operon.operations import transaction
from operon.routes import get, post
from tests.http.conftest import DirectInvoker, quart_of

JSON = {"content-type": "application/json"}
USERS = {"Bearer ada": Authenticated("ada", ("clerk", "admin")), "Bearer bob": Authenticated("bob", ("clerk",))}
ADA, BOB = {"authorization": "Bearer ada"}, {"authorization": "Bearer bob"}


async def by_token(ctx: MiddlewareContext) -> Authenticated | None:
    token = ctx.request.headers.get("authorization")
    if token == "Bearer revoked":
        raise NotAuthorizedError("the token was revoked", status=401, challenge='Bearer error="invalid_token"')
    return USERS.get(token)


@get("/me")
async def me(ctx: HandlerContext) -> dict[str, Any]:
    return {"user": ctx.authenticated_user, "roles": ctx.authenticated_roles, "assumed": ctx.assumed_role}


@get("/open")
@operon.required_roles()
async def opened(ctx: HandlerContext) -> dict[str, Any]:
    return {"user": ctx.authenticated_user}


@operon.required_roles("auditor", "admin")
@get("/books")
async def books(ctx: HandlerContext) -> dict[str, Any]:
    return {"assumed": ctx.assumed_role}


@operon.required_roles("clerk")
@post("/orders")
@transaction
async def order(tx: TransactionContext, seat: str) -> str:
    return seat


def client_of(*functions: Any, invoker: DirectInvoker | None = None, authentication: Any = by_token) -> Any:
    return quart_of(*functions, invoker=invoker, authentication=authentication).test_client()


async def test_without_an_authentication_function_everyone_is_nobody() -> None:
    client = client_of(me, authentication=None)

    answer = await client.get("/me", headers=ADA)

    assert await answer.get_json() == {"user": None, "roles": [], "assumed": None}


async def test_with_one_a_function_that_declares_nothing_is_for_known_users_only() -> None:
    client = client_of(me)

    unknown = await client.get("/me")
    known = await client.get("/me", headers=BOB)

    assert (unknown.status_code, (await unknown.get_json())["code"]) == (401, "not_authorized")
    assert unknown.headers["www-authenticate"] == "Bearer"
    assert await known.get_json() == {"user": "bob", "roles": ["clerk"], "assumed": None}


async def test_a_function_that_was_opened_is_for_everyone_and_knows_who_they_are() -> None:
    client = client_of(opened)

    unknown = await client.get("/open")
    known = await client.get("/open", headers=ADA)

    assert await unknown.get_json() == {"user": None}
    assert await known.get_json() == {"user": "ada"}


async def test_no_user_is_401_a_wrong_role_403_and_a_right_one_is_assumed() -> None:
    client = client_of(books)

    answers = [await client.get("/books", headers=headers) for headers in ({}, BOB, ADA)]

    assert [answer.status_code for answer in answers] == [401, 403, 200]
    assert [answer.content_type for answer in answers[:2]] == ["application/problem+json"] * 2
    assert "www-authenticate" not in answers[1].headers
    assert await answers[2].get_json() == {"assumed": "admin"}


async def test_the_authentication_function_s_own_refusal_is_the_answer() -> None:
    client = client_of(opened)

    answer = await client.get("/open", headers={"authorization": "Bearer revoked"})

    problem = await answer.get_json()
    assert (answer.status_code, problem["detail"]) == (401, "the token was revoked")
    assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'


async def test_a_challenge_cannot_break_out_of_its_header() -> None:
    def refusing(ctx: MiddlewareContext) -> None:
        raise NotAuthorizedError("no", status=401, challenge="Bearer\r\nset-cookie: a=b")

    answer = await client_of(me, authentication=refusing).get("/me")

    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer set-cookie: a=b")
    assert "set-cookie" not in answer.headers


async def test_a_refusal_of_several_lines_is_one_line() -> None:
    def refusing(ctx: MiddlewareContext) -> None:
        raise NotAuthorizedError("not\r\nyou", hint="come\nback")

    answer = await client_of(me, authentication=refusing).get("/me")

    problem = await answer.get_json()
    assert (answer.status_code, problem["detail"], problem["hint"]) == (403, "not you", "come back")


async def test_quart_s_abort_works_in_an_authentication_function() -> None:
    def refusing(ctx: MiddlewareContext) -> None:
        abort(418)

    answer = await client_of(me, authentication=refusing).get("/me")

    assert answer.status_code == 418


@pytest.mark.parametrize("gives", ["ada", ("ada", ["admin"]), {"user": "ada"}, True])
async def test_an_authentication_function_that_gives_anything_else_lets_nobody_in(gives: Any) -> None:
    def odd(ctx: MiddlewareContext) -> Any:
        return gives

    client = client_of(me, opened, authentication=odd)

    answers = [await client.get("/me"), await client.get("/open")]

    assert [answer.status_code for answer in answers] == [500, 500]


async def test_an_authentication_function_that_fails_is_500_without_its_reasons() -> None:
    def failing(ctx: MiddlewareContext) -> None:
        raise LookupError("no such key: hunter2")

    answer = await client_of(opened, authentication=failing).get("/open")

    assert answer.status_code == 500
    assert "hunter2" not in await answer.get_data(as_text=True)


async def test_a_plain_function_runs_in_a_thread_with_the_request_at_hand() -> None:
    threads: list[threading.Thread] = []

    def plain(ctx: MiddlewareContext) -> Authenticated:
        threads.append(threading.current_thread())
        return Authenticated(ctx.request.args["user"])

    answer = await client_of(me, authentication=plain).get("/me?user=eve")

    assert (await answer.get_json())["user"] == "eve"
    assert threads != [threading.main_thread()]


async def test_an_object_may_be_the_authentication_function() -> None:
    class Tokens:
        async def __call__(self, ctx: MiddlewareContext) -> Authenticated:
            return Authenticated("from an object")

    answer = await client_of(me, authentication=Tokens()).get("/me")

    assert (await answer.get_json())["user"] == "from an object"


async def test_the_function_is_told_what_is_reached_and_what_that_requires() -> None:
    seen: list[tuple[Any, ...]] = []

    async def looking(ctx: MiddlewareContext) -> Authenticated:
        seen.append((ctx.operation_name, ctx.required_roles, ctx.request.path, dict(ctx.config)))
        ctx.logger.info("asked")
        ctx.span.add_event("asked")
        return Authenticated("ada", ("clerk", "admin"))

    client = client_of(me, opened, order, authentication=looking)
    await client.get("/me")
    await client.get("/open")
    await client.post("/orders", data=b'{"seat": "A1"}', headers=JSON)

    assert seen == [("me", None, "/me", {}), ("opened", (), "/open", {}), ("order", ("clerk",), "/orders", {})]


async def test_nobody_learns_of_arguments_before_they_may_call() -> None:
    client = client_of(order)

    unknown = await client.post("/orders", data=b"{}", headers=JSON)
    known = await client.post("/orders", data=b"{}", headers=JSON | BOB)

    assert (unknown.status_code, known.status_code) == (401, 400)


async def test_an_idempotency_key_belongs_to_one_user() -> None:
    invoker = DirectInvoker()
    client = client_of(order, invoker=invoker)
    keyed = JSON | {"Idempotency-Key": "1"}

    for who in (ADA, BOB, ADA):
        await client.post("/orders", data=b'{"seat": "A1"}', headers=keyed | who)

    ada, bob = from_key("order", "ada", "1"), from_key("order", "bob", "1")
    assert [call.ctx.options.workflow_uuid for call in invoker.calls] == [ada, bob, ada]
    assert ada != bob


async def test_a_class_s_authentication_function_is_asked_for_its_routes_alone() -> None:
    def clerk(ctx: MiddlewareContext) -> Authenticated:
        return Authenticated("the clerk")

    @operon.authentication(clerk)
    class Desk:
        @operon.get("/desk")
        @staticmethod
        async def page(ctx: HandlerContext) -> str | None:
            return ctx.authenticated_user

    page: Any = Desk.page
    client = client_of(page, me)

    desk, other = await client.get("/desk"), await client.get("/me")

    assert (desk.status_code, await desk.get_data(as_text=True)) == (200, "the clerk")
    assert other.status_code == 401


async def test_a_route_that_requires_roles_where_nobody_says_who_asks_is_refused_at_launch() -> None:
    with pytest.raises(CatalogError, match=r"books at .*test_authentication\.py.* nobody says who asks"):
        quart_of(books)


async def test_a_handler_that_another_one_calls_checks_roles_too() -> None:
    @get("/through")
    async def through(ctx: HandlerContext) -> dict[str, Any]:
        return await books(ctx)

    client = client_of(through)

    assert (await client.get("/through", headers=ADA)).status_code == 200
    assert (await client.get("/through", headers=BOB)).status_code == 403


async def test_what_else_a_given_quart_app_serves_is_its_own_business() -> None:
    asked: list[str] = []

    def noting(ctx: MiddlewareContext) -> None:
        asked.append(ctx.operation_name)

    quart = Quart("theirs")
    blueprint = Blueprint("shop", "shop", url_prefix="/shop")

    @blueprint.get("/page")
    async def page() -> str:  # pyright: ignore[reportUnusedFunction]
        return "a page"

    @blueprint.websocket("/echo")
    async def echo() -> None:  # pyright: ignore[reportUnusedFunction]
        await websocket.send(await websocket.receive())

    quart.register_blueprint(blueprint)
    client: Any = quart_of(me, quart=quart, authentication=noting).test_client()

    answer = await client.get("/shop/page")
    ours = await client.get("/me")
    async with client.websocket("/shop/echo") as socket:
        await socket.send("over")
        heard = await socket.receive()

    assert await answer.get_data(as_text=True) == "a page"
    assert "x-request-id" not in answer.headers
    assert heard == "over"
    assert (ours.status_code, asked) == (401, ["me"])
