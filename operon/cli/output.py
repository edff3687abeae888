"""What a command answers: tables for people, JSON for scripts, and nothing that steers a terminal.

The rule: text that came from the database was written by anybody, so control characters in it are shown, not obeyed.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar, cast

import click
import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

Function = TypeVar("Function", bound=Callable[..., Any])

# C0, DEL and C1 steer terminals; the others are invisible and reorder what stands around them; surrogates are no text.
STEERING = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")

# For pipes: a table is as wide as what is in it.
UNBOUNDED = 100_000

STYLES = {"SUCCESS": "green", "ERROR": "red", "DEAD": "bold red", "CANCELLED": "yellow", "PENDING": "cyan"}


def json_option(command: Function) -> Function:
    """Adds `--json`, which hands `as_json` to a command."""
    return click.option("--json", "as_json", is_flag=True, help="Answer as JSON, for scripts.")(command)


def escaped(text: str, keep: str = "") -> str:
    """The text with its control characters visible: `\\x1b`. Those in `keep` stay what they are."""
    return STEERING.sub(lambda match: match[0] if match[0] in keep else visible(match[0]), text)


def visible(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def print_json(value: Any) -> None:
    """Prints structs, times and UUIDs as one JSON document, in ASCII, so that no terminal obeys it either."""
    plain = msgspec.to_builtins(value, enc_hook=str)  # an application's own configuration may hold anything
    click.echo(json.dumps(plain, indent=2).replace("\x7f", "\\u007f"))


def print_table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Prints rows under headers. On a terminal the last column gives way, in a pipe nothing is cut off."""
    on_terminal = sys.stdout.isatty()
    table = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    for position, header in enumerate(headers):
        table.add_column(header, no_wrap=position < len(headers) - 1, overflow="fold")
    for row in rows:
        table.add_row(*(cell(value) for value in row))
    print_rich(table, on_terminal)


def print_fields(fields: Mapping[str, object]) -> None:
    """Prints names and values, one to a line."""
    table = Table(box=None, pad_edge=False, show_header=False, show_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in fields.items():
        table.add_row(name, cell(value))
    print_rich(table, sys.stdout.isatty())


def print_rich(table: Table, on_terminal: bool) -> None:
    console = Console(file=sys.stdout, highlight=False, markup=False, width=None if on_terminal else UNBOUNDED)
    if on_terminal:
        console.print(table)
        return
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        click.echo(line.rstrip())


def cell(value: object) -> Text:
    """A value as a table has it: nothing for None, UTC for times, no control characters."""
    match value:
        case None:
            return Text("")
        case datetime():
            return Text(moment(value))
        case list() | tuple():
            items = cast("Sequence[object]", value)
            return Text(escaped(", ".join(str(item) for item in items)))
        case _:
            text = escaped(str(value))
            return Text(text, style=STYLES.get(text, ""))


def moment(time: datetime) -> str:
    """A time to the second, in UTC: `2024-02-29 13:37:00Z`."""
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"
