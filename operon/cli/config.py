"""`operon config show`: every setting, where its value came from, and no secret."""

from __future__ import annotations

import os
from typing import Any

import click
import msgspec

from operon.cli.output import json_option, print_json, print_table
from operon.cli.target import load
from operon.cli.target import target as as_target
from operon.config import Configuration, shown, strangers
from operon.config import load as load_configuration
from operon.config_file import APPLICATION


class Shown(msgspec.Struct, frozen=True):
    """One setting, or one key of the application."""

    name: str
    value: Any
    origin: str


@click.group()
def config() -> None:
    """The configuration of this folder."""


@config.command()
@click.argument("target", metavar="[MODULE[:APP]]", type=as_target, required=False)
@json_option
def show(target: tuple[str, str] | None, as_json: bool) -> None:
    """Shows every setting, with secrets masked, and where its value came from.

    With MODULE:APP also what its constructor says. Of the application's own keys, text with ${VARIABLES} is shown as
    the file has it.
    """
    configuration = load_configuration() if target is None else load(target).configuration
    entries = [*settings_of(configuration), *application_of(configuration)]
    if as_json:
        print_json(entries)
    else:
        print_table(("setting", "value", "from"), [(entry.name, entry.value, entry.origin) for entry in entries])
    for warning in strangers(os.environ):
        click.echo(f"operon: {warning}", err=True)


def settings_of(configuration: Configuration) -> list[Shown]:
    values = msgspec.structs.asdict(configuration.settings)
    return [Shown(name, shown(name, value), configuration.origins[name]) for name, value in values.items()]


def application_of(configuration: Configuration) -> list[Shown]:
    """As the file has them, before variables are filled in: those are where secrets come from."""
    entries: list[Shown] = []
    for key, value in configuration.application.items():
        origin = configuration.origins[f"{APPLICATION}.{key}"]
        file = configuration.file
        written = file.application[key] if file is not None and origin == file.name else value
        entries.append(Shown(f"{APPLICATION}.{key}", shown(key, written), origin))
    return entries
