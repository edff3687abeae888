"""An error becomes a problem document that says what the client may know, and no more."""

from __future__ import annotations

import logging
from typing import Any, ClassVar

import pytest
from quart import Quart
from quart.typing import TestClientProtocol as ClientProtocol

from operon.contexts import HandlerContext
from operon.errors import (
    DatabaseUnavailable,
    DecodingError,
    MaxRetriesExceeded,
    NonExistentWorkflowError,
    NotAuthorizedError,
    ResultTimeout,
    WorkflowConflictError,
)
from operon.routes import get, post
from tests.http.conftest import quart_of

DSN = "postgres://operon:hunter2@db.internal:5432/app"


class SoldOut(Exception):
    status = 409


class Teapot(Exception):
    status = 418
    code = "short.and-stout"


class Broken(Exception):
    status = 503
    retry_after_seconds = 30


class Unique(Exception):
    sqlstate = "23505"


class Odd(Exception):
    status: ClassVar[Any] = 200


class Flag(Exception):
    status: ClassVar[Any] = True


def client_raising(error: BaseException) -> ClientProtocol:
    """A client of a handler that raises the error."""

    async def handler(ctx: HandlerContext) -> None:
        raise error

    return quart_of(get("/path with space")(handler)).test_client()


async def problem_of(error: BaseException) -> dict[str, Any]:
    response = await client_raising(error).get("/path%20with%20space", headers={"x-request-id": "r-1"})
    assert response.content_type == "application/problem+json"
    document: dict[str, Any] = await response.get_json()
    assert document["status"] == response.status_code
    assert document["instance"] == "/path%20with%20space"
    assert document["request_id"] == response.headers["x-request-id"] == "r-1"
    return document


@pytest.mark.parametrize(
    ("error", "status", "code", "detail"),
    [
        (SoldOut("no seat left"), 409, "sold_out", "no seat left"),
        (Teapot("tea"), 418, "short.and-stout", "tea"),
        (NonExistentWorkflowError("no such workflow"), 404, "nonexistent_workflow", "no such workflow"),
        (WorkflowConflictError("in use"), 409, "workflow_conflict", "in use"),
        (NotAuthorizedError("no"), 403, "not_authorized", "no"),
    ],
)
async def test_an_error_with_a_status_decides_its_own(error: Exception, status: int, code: str, detail: str) -> None:
    document = await problem_of(error)

    assert (document["status"], document["code"], document["detail"]) == (status, code, detail)


@pytest.mark.parametrize(
    "error",
    [ValueError(DSN), Unique("Key (email)=(a@b) already exists"), Odd(DSN), Flag(DSN), KeyError(DSN), RecursionError()],
)
async def test_an_unexpected_error_is_500_without_internals(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    document = await problem_of(error)

    assert document == {
        "status": 500,
        "title": "Internal Server Error",
        "code": "internal_error",
        "instance": "/path%20with%20space",
        "request_id": "r-1",
    }
    assert "r-1" in caplog.text
    assert "Traceback" in caplog.text
    assert type(error).__name__ in caplog.text
    assert "hunter2" not in caplog.text


async def test_an_error_of_operon_from_500_up_keeps_its_message_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    exhausted = await problem_of(MaxRetriesExceeded(f"charge failed: {DSN}", hint="look at charge"))
    unavailable = await problem_of(DatabaseUnavailable(f"cannot reach {DSN}", hint="start it"))
    timeout = await problem_of(ResultTimeout("step 5 of tickets.checkout"))

    assert (exhausted["status"], exhausted["code"], exhausted.get("detail")) == (500, "max_retries_exceeded", None)
    assert unavailable["detail"] == (
        "The database did not answer in time. Nothing that was recorded is lost; what was asked for may still happen."
    )
    assert timeout["detail"] == "The result was not there in time. The workflow goes on."
    assert not [document for document in (exhausted, unavailable, timeout) if "hint" in document]
    assert "charge failed" in caplog.text
    assert "hunter2" not in caplog.text


async def test_a_client_s_error_carries_its_hint() -> None:
    document = await problem_of(NonExistentWorkflowError("no such workflow", hint="start it first"))

    assert document["hint"] == "start it first"
    assert document["detail"] == "no such workflow"


async def test_control_characters_of_a_message_are_neutralised() -> None:
    document = await problem_of(SoldOut("a\r\nLocation: b\x00\x1b[31m\u2028c\ud800"))

    assert document["detail"] == "a Location: b [31m c?"


async def test_a_refused_client_hears_when_to_come_back() -> None:
    chosen = await client_raising(Broken("soon")).get("/path%20with%20space")
    default = await client_raising(DatabaseUnavailable("down")).get("/path%20with%20space")

    assert (chosen.status_code, chosen.headers["retry-after"]) == (503, "30")
    assert (default.status_code, default.headers["retry-after"]) == (503, "1")


async def test_an_unknown_url_is_404_and_a_wrong_method_405() -> None:
    client = client_raising(ValueError())

    unknown = await client.get("/unknown")
    wrong = await client.delete("/path%20with%20space")

    assert (unknown.status_code, (await unknown.get_json())["code"]) == (404, "not_found")
    assert (wrong.status_code, (await wrong.get_json())["code"]) == (405, "method_not_allowed")
    assert "GET" in wrong.headers["allow"]
    assert unknown.content_type == wrong.content_type == "application/problem+json"
    assert unknown.headers["x-request-id"]


async def test_an_application_s_own_error_handler_wins() -> None:
    quart = Quart("own")

    @quart.errorhandler(SoldOut)
    async def sold_out(error: SoldOut) -> tuple[str, int]:
        return "sorry", 410

    @get("/")
    async def handler(ctx: HandlerContext) -> None:
        raise SoldOut

    response = await quart_of(handler, quart=quart).test_client().get("/")

    assert (response.status_code, await response.get_data()) == (410, b"sorry")


async def test_a_given_quart_keeps_its_own_error_pages() -> None:
    quart = Quart("own")

    @quart.get("/own")
    async def own() -> str:
        raise ValueError(DSN)

    client = quart_of(quart=quart).test_client()

    unknown = await client.get("/unknown")
    broken = await client.get("/own")

    assert (unknown.status_code, unknown.content_type) == (404, "text/html; charset=utf-8")
    assert (broken.status_code, broken.content_type) == (500, "text/html; charset=utf-8")
    assert "x-request-id" not in unknown.headers


async def test_a_given_quart_keeps_its_handler_of_all_errors() -> None:
    quart = Quart("own")

    @quart.errorhandler(Exception)
    async def sorry(error: Exception) -> tuple[str, int]:
        return "sorry", 503

    @get("/ours")
    async def ours(ctx: HandlerContext) -> None:
        raise SoldOut

    client = quart_of(ours, quart=quart).test_client()

    assert (await client.get("/unknown")).status_code == 503
    assert (await client.get("/ours")).status_code == 409


async def test_a_route_of_the_own_quart_answers_its_errors_as_problems() -> None:
    quart = quart_of()

    @quart.get("/own")
    async def own() -> str:
        raise SoldOut("none left")

    response = await quart.test_client().get("/own")

    assert (response.status_code, (await response.get_json())["detail"]) == (409, "none left")


async def test_quart_s_own_log_is_masked(caplog: pytest.LogCaptureFixture) -> None:
    quart = quart_of()

    @quart.after_request
    async def fail(response: Any) -> Any:
        raise ValueError(DSN)

    with caplog.at_level(logging.ERROR):
        response = await quart.test_client().get("/unknown")

    assert (response.status_code, (await response.get_json())["code"]) == (500, "internal_error")
    assert "db.internal" in caplog.text
    assert "hunter2" not in caplog.text


@pytest.mark.parametrize("given", ["a b", "a\tb", "", "x" * 129, "é"])
async def test_a_request_id_that_is_none_is_replaced(given: str) -> None:
    response = await client_raising(SoldOut()).get("/path%20with%20space", headers={"x-request-id": given})

    assert len(response.headers["x-request-id"]) == 36


async def test_a_redirect_of_the_routing_is_no_problem() -> None:
    @post("/slash/")
    async def handler(ctx: HandlerContext) -> None: ...

    response = await quart_of(handler).test_client().post("/slash")

    assert response.status_code == 308


class MailboxFull(Exception):
    """As a mailbox that is full would say it."""

    status = 429

    def __init__(self, retry_after_seconds: Any) -> None:
        super().__init__("the mailbox is full")
        self.retry_after_seconds = retry_after_seconds


@pytest.mark.parametrize(
    ("seconds", "header"),
    [(0, "0"), (2, "2"), (0.2, "1"), (1.5, "2"), (-1, "1"), (float("inf"), "1"), (float("nan"), "1"), ("a\r\nb", "1")],
)
async def test_too_many_requests_say_when_to_come_back(seconds: Any, header: str) -> None:
    response = await client_raising(MailboxFull(seconds)).get("/path%20with%20space")

    assert (response.status_code, response.headers["retry-after"]) == (429, header)
    assert (await response.get_json())["code"] == "mailbox_full"


async def test_stored_data_that_cannot_be_read_is_the_server_s_fault(caplog: pytest.LogCaptureFixture) -> None:
    document = await problem_of(DecodingError("tickets.charge: argument 'card' cannot be read: hunter2"))

    assert (document["status"], document["code"], document.get("detail")) == (500, "decoding", None)
    assert "cannot be read" in caplog.text


async def test_an_answer_that_cannot_be_sent_is_500_without_internals(caplog: pytest.LogCaptureFixture) -> None:
    @get("/")
    async def handler(ctx: HandlerContext) -> Any:
        return "body", 200, {"x name": "a", 5: DSN}

    response = await quart_of(handler).test_client().get("/")

    document = await response.get_json()
    assert (document["status"], document["code"], document.get("detail")) == (500, "internal_error", None)
    assert "hunter2" not in caplog.text
