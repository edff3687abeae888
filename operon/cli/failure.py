"""How a command fails: one message with a hint on standard error, and exit code 1. No traceback of ours."""

from __future__ import annotations

from typing import Any, NoReturn

import click

from operon.cli.output import escaped
from operon.errors import OperonError
from operon.masking import masked


class Failure(click.ClickException):
    """An error that the user can do something about."""

    exit_code = 1

    def show(self, file: Any = None) -> None:
        click.echo("operon: " + escaped(masked(self.message), keep="\n"), err=True)


class Commands(click.Group):
    """The root of the commands, where errors of Operon become failures."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except OperonError as error:
            raise Failure(str(error)) from None


def fail(message: str, hint: str) -> NoReturn:
    """Ends the command with a message and what to do."""
    raise Failure(f"{message}\nHint: {hint}")
