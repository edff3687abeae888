"""`operon openapi module:app` prints what `/openapi.json` answers, without a server and without a database."""

from __future__ import annotations

import click

from operon.cli.output import print_json
from operon.cli.target import load
from operon.cli.target import target as as_target


@click.command()
@click.argument("target", metavar="MODULE[:APP]", type=as_target)
def openapi(target: tuple[str, str]) -> None:
    """Prints an application's OpenAPI document."""
    print_json(load(target).openapi())
