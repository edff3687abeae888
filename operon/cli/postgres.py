"""`operon postgres`: the embedded Postgres of this folder."""

from __future__ import annotations

from pathlib import Path

import click

from operon.cli.failure import fail
from operon.config import load
from operon.runtime.loop import run

folder_option = click.option("--data-dir", help="Where it keeps its data; .operon/postgres by default.")


@click.group()
def postgres() -> None:
    """The embedded Postgres of this folder."""


@postgres.command()
@folder_option
def start(data_dir: str | None) -> None:
    """Starts it, unless it runs, and prints its URL (with its password)."""
    from operon.database import embedded

    settings = load(options={"data_dir": data_dir}).settings
    click.echo(run(embedded.start(Path(settings.data_dir), production=settings.env == "production")))


@postgres.command()
@folder_option
def stop(data_dir: str | None) -> None:
    """Stops it, sessions and all. Its data stays."""
    from operon.database import embedded

    folder = Path(load(options={"data_dir": data_dir}).settings.data_dir)
    stopped = run(embedded.stop(folder))
    click.echo(f"The embedded Postgres in {folder} {'is stopped' if stopped else 'was not running'}.", err=True)


@postgres.command()
@folder_option
def url(data_dir: str | None) -> None:
    """Prints its URL (with its password), as in: psql "$(operon postgres url)"."""
    from operon.database import embedded

    folder = Path(load(options={"data_dir": data_dir}).settings.data_dir)
    found = embedded.url(folder)
    if found is None:
        fail(f"the embedded Postgres in {folder} does not run", "operon postgres start")
    click.echo(found)
