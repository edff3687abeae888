"""No password reaches a log, an answer or a stored error, and no text of a client's begins a line of a log."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from operon.masking import MASKING, mask_handlers, masked, masked_data, masked_logger, on_its_own_lines

PACKAGE = Path(__file__).parent.parent.parent / "operon"
PIECES = ["password", "=", ":", "'", '"', "hunter2", " ", "://", "@", "bearer ", "cookie: ", "\\", "a" * 20, "***", ";"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("postgres://operon:hunter2@db:5432/app", "postgres://operon:***@db:5432/app"),
        ("to postgresql+x://:hunter2@db, again", "to postgresql+x://:***@db, again"),
        ("'redis://a:hun@ter2@db'", "'redis://a:***@db'"),
        ("host=db password=hunter2 user=a", "host=db password=*** user=a"),
        ("host=db sslpassword='hun ter\\'2' user=a", "host=db sslpassword=*** user=a"),
        ("{'password': 'hunter 2', 'a': 1}", "{'password': ***, 'a': 1}"),
        ('{"api_key": "hunter\\"2", "a": 1}', '{"api_key": ***, "a": 1}'),
        ("connect(PASSWORD='hunter2')", "connect(PASSWORD=***)"),
        ("DB_PASSWORD=hunter2", "DB_PASSWORD=***"),
        ("/reset?token=hunter2&to=ada", "/reset?token=***&to=ada"),
        ("client_secret: hunter2", "client_secret: ***"),
        ("Authorization: Bearer eyJhbGciOi.J9.eyJz-_", "Authorization: ***"),
        ("GET / \nCookie: session=hunter2; other=hunter2\nAccept: */*", "GET / \nCookie: ***\nAccept: */*"),
        ("X-API-Key: hunter2", "X-API-Key: ***"),
        ("{'authorization': 'basic YWRhOmh1bnRlcjI='}", "{'authorization': ***}"),
        ("it sent basic YWRhOmh1bnRlcjI=", "it sent basic ***"),
        ("basic rules, and a bearer of news", "basic rules, and a bearer of news"),
        ("a token is missing: two were expected", "a token is missing: two were expected"),
        ("http://localhost:8000/a", "http://localhost:8000/a"),
    ],
)
def test_what_looks_like_a_secret_is_masked(text: str, expected: str) -> None:
    assert masked(text) == expected


@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=30).map("".join))
def test_what_was_masked_once_stays_as_it_is(text: str) -> None:
    once = masked(text)

    assert masked(once) == once


def test_a_long_text_is_masked_in_a_moment() -> None:
    hostile = (
        "://a:" * 20_000 + "password='" * 20_000 + "bearer " + "a" * 200_000 + "cookie:" * 20_000 + "\\'" * 100_000
    )

    assert len(masked(hostile)) > 0


def test_the_values_of_keys_that_say_so_are_masked_and_nothing_else() -> None:
    data = {"password": "hunter2", "retries": 3, "seat": "A1", "urls": ["redis://a:hunter2@db", ("x",)], "cookie": None}

    assert masked_data(data) == {
        "password": "***",
        "retries": 3,
        "seat": "A1",
        "urls": ["redis://a:***@db", ["x"]],
        "cookie": None,
    }


@pytest.fixture
def out() -> Iterator[io.StringIO]:
    """What a logger of ours says, with a first column to look at."""
    out = io.StringIO()
    logger = masked_logger("operon.test_masking")
    logger.propagate = False
    handler = logging.StreamHandler(out)
    handler.setFormatter(logging.Formatter("LOG %(message)s"))
    logger.addHandler(handler)
    yield out
    logger.removeHandler(handler)


def test_messages_arguments_and_tracebacks_are_masked(out: io.StringIO) -> None:
    try:
        raise ValueError("postgres://operon:hunter2@db") from OSError("password=hunter2")
    except ValueError:
        masked_logger("operon.test_masking").exception("cannot reach %s", "postgres://operon:hunter2@db")

    assert "hunter2" not in out.getvalue()
    assert "cannot reach postgres://operon:***@db" in out.getvalue()
    assert "The above exception was the direct cause" in out.getvalue()


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029"])
def test_nothing_that_a_client_sends_begins_a_line_of_a_log(out: io.StringIO, end: str) -> None:
    forged = f"no show{end}LOG root logged in{end}{end}LOG again \x1b[2K\x08\x00"
    logger = masked_logger("operon.test_masking")

    logger.warning("unknown: %s", forged)
    try:
        raise LookupError(forged) from KeyError(forged)
    except LookupError:
        logger.exception("failed")

    lines = out.getvalue().splitlines()
    assert [line for line in lines if not line.startswith("  ")] == [lines[0], "LOG failed"]
    assert lines[0].startswith("LOG unknown: no show")
    assert not set(out.getvalue()) & {"\x1b", "\x08", "\x00", "\r"}


def test_a_process_of_ours_masks_the_records_of_every_library() -> None:
    root, out = logging.getLogger(), io.StringIO()
    handler = logging.StreamHandler(out)
    root.addHandler(handler)
    try:
        mask_handlers()
        logging.getLogger("somebody.else").warning("password=hunter2")
    finally:
        for each in root.handlers:
            each.removeFilter(MASKING)
        root.removeHandler(handler)

    assert out.getvalue() == "password=***\n"


def test_a_text_is_indented_once_however_often_it_is_looked_at() -> None:
    assert on_its_own_lines(on_its_own_lines("a\nb\n  c\td")) == "a\n  b\n  c\td"


def test_every_logger_of_ours_is_a_masked_one() -> None:
    found = {file.name for file in PACKAGE.rglob("*.py") if re.search(r"\bgetLogger\b", file.read_text())}

    assert found == {"masking.py"}
