"""Passwords do not reach a log."""

from __future__ import annotations

import io
import logging

import pytest

from operon.http.masking import mask, masked


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("postgres://operon:hunter2@db:5432/app", "postgres://operon:***@db:5432/app"),
        ("to postgresql+x://:hunter2@db, again", "to postgresql+x://:***@db, again"),
        ("'redis://a:hun@ter2@db'", "'redis://a:***@db'"),
        ("host=db password=hunter2 user=a", "host=db password=*** user=a"),
        ("{'password': 'hunter 2', 'a': 1}", "{'password': ***, 'a': 1}"),
        ("connect(PASSWORD='hunter2')", "connect(PASSWORD=***)"),
        ("Authorization: Bearer eyJhbGciOi.J9.eyJz-_", "Authorization: Bearer ***"),
        ("{'authorization': 'basic YWRhOmh1bnRlcjI='}", "{'authorization': 'basic ***'}"),
        ("basic rules, and a bearer of news", "basic rules, and a bearer of news"),
        ("http://localhost:8000/a", "http://localhost:8000/a"),
    ],
)
def test_what_looks_like_a_password_is_masked(text: str, expected: str) -> None:
    assert masked(text) == expected


def test_a_long_text_is_masked_in_a_moment() -> None:
    hostile = "://a:" * 20_000 + "password='" * 20_000 + "bearer " + "a" * 200_000

    assert len(masked(hostile)) > 0


def test_messages_arguments_and_tracebacks_are_masked() -> None:
    out = io.StringIO()
    logger = mask(logging.Logger("test"))
    logger.addHandler(logging.StreamHandler(out))

    try:
        raise ValueError("postgres://operon:hunter2@db") from OSError("password=hunter2")
    except ValueError:
        logger.exception("cannot reach %s", "postgres://operon:hunter2@db")

    assert "hunter2" not in out.getvalue()
    assert "cannot reach postgres://operon:***@db" in out.getvalue()
    assert "The above exception was the direct cause" in out.getvalue()
