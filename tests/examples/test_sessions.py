"""Notes behind a login: a cookie says who asks, and only a login gives it."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import AsyncGenerator
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import pytest
from quart.typing import TestClientProtocol as HttpClient

from examples import sessions
from operon.testing import TestRuntime
from tests.examples.served import served


@pytest.fixture(scope="module")
async def runtime() -> AsyncGenerator[TestRuntime]:
    async with TestRuntime(sessions, authentication=sessions.who, quart=sessions.quart) as runtime:
        yield runtime


@pytest.fixture
def client(runtime: TestRuntime) -> HttpClient:
    """A browser of its own: it keeps its cookies."""
    return runtime.app.quart.test_client()


async def log_in(client: HttpClient, user: str, password: str) -> Any:
    return await client.post("/login", json={"user": user, "password": password})


async def test_somebody_unknown_may_log_in_and_nothing_else(client: HttpClient) -> None:
    notes, logout = await client.get("/notes"), await client.post("/logout")
    wrong, stranger = await log_in(client, "ada", "babbage"), await log_in(client, "eve", "builder")

    assert [answer.status_code for answer in (notes, logout, wrong, stranger)] == [401] * 4
    assert "set-cookie" not in wrong.headers


async def test_a_user_sees_their_own_notes_until_they_log_out(runtime: TestRuntime, client: HttpClient) -> None:
    other = runtime.app.quart.test_client()
    welcome = await log_in(client, "bob", "builder")
    await log_in(other, "ada", "lovelace")

    await client.post("/notes", json={"text": "can we fix it"})
    mine, others = await client.get("/notes"), await other.get("/notes")
    await client.post("/logout")
    after = await client.get("/notes")

    assert await welcome.get_data(as_text=True) == "Welcome, bob!"
    assert await mine.get_json() == ["can we fix it"]
    assert await others.get_json() == []
    assert after.status_code == 401


async def test_only_an_editor_clears_everything(runtime: TestRuntime, client: HttpClient) -> None:
    editor = runtime.app.quart.test_client()
    await log_in(client, "bob", "builder")
    await log_in(editor, "ada", "lovelace")

    assert (await client.delete("/notes")).status_code == 403
    assert (await editor.delete("/notes")).status_code == 200


async def test_a_cookie_that_was_changed_is_nobody_s(client: HttpClient) -> None:
    welcome = await log_in(client, "bob", "builder")
    cookie = SimpleCookie(welcome.headers["set-cookie"])["session"]
    forged = f"session={cookie.value[::-1]}"

    answer = await client.get("/notes", headers={"cookie": forged})

    assert answer.status_code == 401
    assert (cookie["httponly"], cookie["samesite"]) == (True, "Lax")


async def test_neither_password_nor_cookie_is_recorded(runtime: TestRuntime, client: HttpClient) -> None:
    welcome = await log_in(client, "bob", "builder")
    cookie = SimpleCookie(welcome.headers["set-cookie"])["session"].value

    await client.post("/notes", json={"text": "a note"})
    stored = await runtime.fetch(
        "select convert_from(inputs || coalesce(request, '') || coalesce(output, ''), 'UTF8') from operon.workflows"
        " union all select convert_from(output, 'UTF8') from operon.checkpoints"
    )

    assert any("a note" in row[0] for row in stored)
    assert not [row[0] for row in stored if "builder" in row[0] or cookie in row[0]]


async def test_it_is_served_as_its_first_lines_say(database_url: str, tmp_path: Path) -> None:
    async with served("examples.sessions", tmp_path, "--database-url", database_url) as shop:
        browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())

        def ask(path: str, body: Any = None) -> bytes:
            headers = {"content-type": "application/json"}
            data = None if body is None else json.dumps(body).encode()
            with browser.open(urllib.request.Request(shop.url + path, data, headers), timeout=60) as answer:
                content: bytes = answer.read()
            return content

        said = await asyncio.to_thread(ask, "/login", {"user": "ada", "password": "lovelace"})
        await asyncio.to_thread(ask, "/notes", {"text": "buy milk"})
        notes = await asyncio.to_thread(ask, "/notes")

    assert (said, json.loads(notes)) == (b"Welcome, ada!", ["buy milk"])
