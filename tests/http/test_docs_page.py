"""The pages that describe an application are served, show everything, and run nothing."""

from __future__ import annotations

import re
from typing import Annotated

import msgspec
from openapi_spec_validator import validate
from quart import Quart

from operon import Masked
from operon.config import Settings
from operon.contexts import HandlerContext, WorkflowContext
from operon.http.markers import Query
from operon.operations import workflow
from operon.routes import get, post
from tests.http.conftest import quart_of


class Payment(msgspec.Struct):
    card: Annotated[str, Masked]
    cents: Annotated[int, msgspec.Meta(ge=1)]


@post("/shows/<show>")
@workflow
async def book(ctx: WorkflowContext, show: str, payment: Payment, page: Annotated[int, Query] = 3) -> bool | None:
    """Books a <script>alert("seat")</script>.

    It is <b>paid</b> at once.
    """


async def test_the_document_and_the_page_are_served() -> None:
    client = quart_of(book, settings=Settings(version="1.2.3")).test_client()

    document = await client.get("/openapi.json")
    page = await client.get("/docs")

    assert (document.status_code, document.content_type) == (200, "application/json")
    described = await document.get_json()
    validate(described)
    assert list(described["paths"]) == ["/shows/{show}"]
    assert described["info"]["version"] == "1.2.3"
    text = await page.get_data(as_text=True)
    assert (page.status_code, page.content_type) == (200, "text/html; charset=utf-8")
    for shown in ("/shows/{show}", "Payment", "card", "password", "integer minimum 1", "integer = 3", "1.2.3", "204"):
        assert shown in text


async def test_the_page_runs_nothing_and_loads_nothing() -> None:
    page = await quart_of(book).test_client().get("/docs")

    text = await page.get_data(as_text=True)
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "<b>paid" not in text
    assert re.findall(r"(?:src|href)=\"(?!#|openapi\.json)", text) == []
    assert "@import" not in text
    assert "url(" not in text
    assert page.headers["content-security-policy"] == "default-src 'none'; style-src 'unsafe-inline'"


async def test_both_can_be_turned_off() -> None:
    client = quart_of(book, settings=Settings(docs=False)).test_client()

    assert [(await client.get(path)).status_code for path in ("/openapi.json", "/docs")] == [404, 404]


async def test_an_application_s_own_page_wins() -> None:
    quart = Quart("own")

    @quart.get("/docs")
    async def docs() -> str:
        return "my docs"

    @get("/openapi.json")
    async def mine(ctx: HandlerContext) -> str:
        return "my document"

    client = quart_of(mine, quart=quart).test_client()

    assert await (await client.get("/docs")).get_data() == b"my docs"
    assert await (await client.get("/openapi.json")).get_data() == b"my document"


async def test_the_pages_are_not_part_of_what_they_describe() -> None:
    described = await (await quart_of(book).test_client().get("/openapi.json")).get_json()

    assert not {"/docs", "/openapi.json"} & described["paths"].keys()
