"""What commands print: text of anybody's is shown and never obeyed, and nothing is cut off in a pipe."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from operon.cli.failure import Failure
from operon.cli.output import escaped, print_fields, print_json, print_table

CLEAR_SCREEN = "\x1b[2J"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Zoë 🎭 naïve", "Zoë 🎭 naïve"),
        (CLEAR_SCREEN, "\\x1b[2J"),
        ("a\nb\r\tc\0", "a\\x0ab\\x0d\\x09c\\x00"),
        ("\x7f\x9b2J", "\\x7f\\x9b2J"),
        ("evil\u202etxt.exe", "evil\\u202etxt.exe"),
        ("a\u2028b\u200bc\ufeff", "a\\u2028b\\u200bc\\ufeff"),
        ("\ud800", "\\ud800"),
    ],
)
def test_control_characters_are_made_visible(text: str, expected: str) -> None:
    assert escaped(text) == expected


def test_a_table_in_a_pipe_is_not_cut_and_not_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    long = "x" * 500

    print_table(("name", "value"), [("[bold]a[/bold]", long), (CLEAR_SCREEN, None)])

    assert capsys.readouterr().out.splitlines() == [
        "name            value",
        f"[bold]a[/bold]  {long}",
        "\\x1b[2J",
    ]


def test_fields_in_a_pipe_are_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    print_fields({"started": datetime(2024, 2, 29, 13, 37, 5, 999, UTC), "text": "two\nlines", "roles": ["a", "b"]})

    assert capsys.readouterr().out.splitlines() == [
        "started  2024-02-29 13:37:05Z",
        "text     two\\x0alines",
        "roles    a, b",
    ]


def test_json_is_ascii_and_comes_back(capsys: pytest.CaptureFixture[str]) -> None:
    value: dict[str, Any] = {"text": f"Zoë\x7f\x9b{CLEAR_SCREEN}", "id": UUID(int=1), "n": None}

    print_json([value])

    printed = capsys.readouterr().out
    assert all(character == "\n" or " " <= character < "\x7f" for character in printed)
    assert json.loads(printed) == [{**value, "id": str(UUID(int=1))}]


def test_a_failure_quotes_nothing_that_steers(capsys: pytest.CaptureFixture[str]) -> None:
    Failure(f"it said {CLEAR_SCREEN}\nHint: no").show()

    assert capsys.readouterr().err == "operon: it said \\x1b[2J\nHint: no\n"
