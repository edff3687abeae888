"""What an application gets without asking for it, and what it does not get."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from quart import session
from quart.typing import TestClientProtocol as HttpClient

import operon
from operon.config import Settings
from operon.contexts import HandlerContext
from operon.database import embedded
from operon.errors import DatabaseUnusable
from operon.http.server import Quart
from operon.routes import get, post
from operon.testing import TestRuntime
from tests.http.conftest import quart_of
from tests.security import application

ORIGIN = {"origin": "https://evil.example"}
PREFLIGHT = {**ORIGIN, "access-control-request-method": "POST", "access-control-request-headers": "authorization"}


@get("/hello")
async def hello(ctx: HandlerContext) -> str:
    return "hello"


@post("/enter")
async def enter(ctx: HandlerContext) -> None:
    session["user"] = "ada"


@get("/fail")
async def fail(ctx: HandlerContext) -> None:
    raise RuntimeError("inside story")


async def cookie_of(quart: Quart) -> set[str]:
    """The attributes of the session's cookie."""
    quart.secret_key = "a key"
    answer = await quart.test_client().post("/enter")
    _value, *attributes = answer.headers["set-cookie"].split(";")
    return {attribute.strip() for attribute in attributes}


async def test_a_session_s_cookie_is_for_this_site_and_no_script() -> None:
    attributes = await cookie_of(quart_of(enter))

    assert attributes == {"HttpOnly", "Path=/", "SameSite=Lax"}


async def test_in_production_a_session_s_cookie_is_never_sent_in_the_clear() -> None:
    attributes = await cookie_of(quart_of(enter, settings=Settings(env="production", port=0)))

    assert attributes == {"HttpOnly", "Path=/", "SameSite=Lax", "Secure"}


async def test_a_given_quart_keeps_its_own_cookies() -> None:
    given = Quart("given")
    given.config["SESSION_COOKIE_SAMESITE"] = "Strict"

    assert "SameSite=Strict" in await cookie_of(quart_of(enter, quart=given))


async def test_without_a_key_of_the_application_s_there_are_no_sessions() -> None:
    answer = await quart_of(enter).test_client().post("/enter")

    assert answer.status_code == 500
    assert "set-cookie" not in answer.headers


async def test_no_other_site_is_let_in_unless_the_application_does() -> None:
    client = quart_of(hello, enter, fail).test_client()

    answers = [
        await client.get("/hello", headers=ORIGIN),
        await client.options("/hello", headers=PREFLIGHT),
        await client.get("/fail", headers=ORIGIN),
        await client.get("/nowhere", headers=ORIGIN),
        await client.get("/openapi.json", headers=ORIGIN),
        await client.get("/docs", headers=ORIGIN),
    ]

    assert [name for answer in answers for name in answer.headers if "access-control" in name[0].lower()] == []


@pytest.mark.parametrize("flag", ["debug", "testing"])
async def test_an_error_tells_nothing_of_the_inside_also_while_debugging(flag: str) -> None:
    quart = quart_of(fail)
    setattr(quart, flag, True)

    answer = await quart.test_client().get("/fail")

    assert answer.status_code == 500
    assert "story" not in await answer.get_data(as_text=True)


def test_it_listens_on_this_machine_only() -> None:
    settings = Settings()

    assert settings.host == "127.0.0.1"
    assert settings.body_limit_bytes == 1024 * 1024


async def test_production_refuses_the_embedded_postgres() -> None:
    app = operon.Operon(application, authentication=application.who, env="production")

    with pytest.raises(DatabaseUnusable, match="not for production"):
        async with app:
            pass
    with pytest.raises(DatabaseUnusable, match="not for production"):
        await embedded.start(production=True)


@pytest.fixture(scope="module")
async def client() -> AsyncIterator[HttpClient]:
    async with TestRuntime(application, authentication=application.who) as runtime:
        yield runtime.app.quart.test_client()


async def test_a_pin_of_the_debugger_or_a_page_of_the_inside_is_nowhere(client: HttpClient) -> None:
    for path in ("/console", "/__debug__", "/.env", "/operon.toml", "/static/../operon.toml", "/metrics", "/admin/"):
        answer = await client.get(path)

        assert answer.status_code in (401, 404), path
