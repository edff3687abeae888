"""Log records say where they come from, in lines for people or in JSON."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from operon.masking import MASKING
from operon.telemetry.logs import FORMATS, FieldLogger
from operon.testing import TestRuntime
from tests.telemetry import shop
from tests.telemetry.conftest import Seen, ids


class Log:
    """Everything that is logged, in one of the formats of `operon start`."""

    def __init__(self) -> None:
        self.out = io.StringIO()
        self.handler = logging.StreamHandler(self.out)
        self.handler.addFilter(MASKING)

    def format(self, name: str) -> None:
        self.handler.setFormatter(FORMATS[name]())

    @property
    def text(self) -> str:
        return self.out.getvalue()

    def documents(self, logger: str = "operon.application") -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.text.splitlines()]
        return [line for line in lines if line["logger"] == logger]


@pytest.fixture
def log() -> Iterator[Log]:
    log = Log()
    log.format("json")
    root = logging.getLogger()
    before = root.level
    root.addHandler(log.handler)
    root.setLevel("INFO")
    yield log
    root.removeHandler(log.handler)
    root.setLevel(before)


async def test_every_record_says_which_workflow_operation_user_and_trace_it_is_of(
    runtime: TestRuntime, seen: Seen, log: Log
) -> None:
    handle = await shop.declined(runtime.app.context(user="ada"), "1234")
    with pytest.raises(shop.Declined):
        await handle.get_result()
    await runtime.restart()

    in_workflow, in_step = log.documents()
    for record, name in ((in_workflow, "declined"), (in_step, "decline")):
        trace_id, span_id = ids(seen.one(name))
        assert record["workflow_uuid"] == str(handle.workflow_uuid)
        assert (record["operation"], record["user"]) == (name, "ada")
        assert (record["trace_id"], record["span_id"]) == (f"{trace_id:032x}", f"{span_id:016x}")
    assert in_workflow["level"] == "info"
    assert in_workflow["note"] == "card ***"  # the fields of a call go along


async def test_a_handler_s_records_say_which_function_it_is(runtime: TestRuntime, seen: Seen, log: Log) -> None:
    await runtime.app.quart.test_client().get("/hello")

    (record,) = log.documents()
    assert record["operation"] == "hello"
    assert record["trace_id"] == f"{ids(seen.one('GET /hello'))[0]:032x}"


async def test_without_a_tracer_the_stored_trace_is_named(log: Log) -> None:
    async with TestRuntime(shop) as runtime:
        await runtime.app.quart.test_client().post(
            "/declined/1234", headers={"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}
        )

    assert {record["trace_id"] for record in log.documents()} == {"4bf92f3577b34da6a3ce929d0e0e4736"}


def test_a_line_for_people_ends_with_the_fields_that_are_known(log: Log) -> None:
    log.format("text")

    FieldLogger(logging.getLogger("shop"), None, "checkout", "ada", None).info("three %s", "seats")
    logging.getLogger("shop").info("nothing known")

    first, second = log.text.splitlines()
    assert first.endswith(" INFO    shop: three seats  [operation=checkout user=ada]")
    assert second.endswith(" INFO    shop: nothing known")


@pytest.mark.parametrize("format", ["text", "json"])
def test_passwords_are_masked_in_every_record_of_anybody(log: Log, format: str) -> None:
    log.format(format)

    try:
        raise OSError("cannot reach postgres://operon:hunter2@db")
    except OSError:
        logging.getLogger("anybody").exception("password=%s", "hunter2", extra={"dsn": "postgres://a:hunter2@db"})

    assert "hunter2" not in log.text
    assert "cannot reach postgres://operon:***@db" in log.text


def test_a_json_line_is_one_line_whatever_is_in_it(log: Log) -> None:
    logging.getLogger("anybody").info("two\nlines, \u2028 and \ud800", extra={"count": 3, "odd": object, "flag": True})

    (record,) = log.documents("anybody")
    assert record["message"] == "two\n  lines, \\u2028 and \\ud800"
    assert (record["count"], record["flag"], record["odd"]) == (3, True, "<class 'object'>")
