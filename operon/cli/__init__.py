"""The command line: `operon start`, `operon doctor`, `operon workflow list` and the others, one module each.

Exit codes, for scripts: 0 it is done; 1 it failed, and standard error says why and what to do; 2 it was called wrongly,
and standard error has the usage. Answers go to standard output: a table on a terminal, the same without colour and
borders in a pipe, and JSON with `--json`.
"""

from __future__ import annotations

import click

from operon import __version__
from operon.cli import (
    config,
    control,
    dead_letters,
    doctor,
    init,
    migrate,
    openapi,
    postgres,
    start,
    suspensions,
    top,
    workflow,
)
from operon.cli.failure import Commands

__all__ = ["control", "main"]


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="operon")
def main() -> None:
    """Durable workflows over Postgres."""


main.add_command(start.start)
main.add_command(init.init)
main.add_command(migrate.migrate)
main.add_command(postgres.postgres)
main.add_command(workflow.workflow)
main.add_command(dead_letters.dead_letters)
main.add_command(suspensions.suspensions)
main.add_command(top.top)
main.add_command(openapi.openapi)
main.add_command(config.config)
main.add_command(doctor.doctor)
