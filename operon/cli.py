"""The command line: `operon start module:app`."""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import signal
import sys
from typing import Any

import click

from operon import __version__
from operon.app import Operon
from operon.dsn import masked
from operon.errors import CatalogError, OperonError
from operon.masking import mask_handlers
from operon.runtime.loop import run, settle_garbage


@click.group()
@click.version_option(__version__, prog_name="operon")
def main() -> None:
    """Durable workflows over Postgres."""


@main.command()
@click.argument("target", metavar="MODULE[:APP]")
@click.option("--host", help="Address to listen on; 127.0.0.1 by default.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on; 8000 by default, 0 for any free one.")
@click.option("--database-url", help="The Postgres to run on; an embedded one by default.")
@click.option(
    "--log-level", default="info", type=click.Choice(["debug", "info", "warning", "error"]), show_default=True
)
def start(target: str, log_level: str, **settings: Any) -> None:
    """Serves an application over HTTP and runs its workflows, until SIGTERM or Ctrl-C."""
    logging.basicConfig(level=log_level.upper(), format="%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    mask_handlers()
    try:
        app = load(target)
        app.override(**settings)
        run(serve(app))
    except OperonError as error:
        click.echo(f"operon: {error}", err=True)
        sys.exit(1)


def load(target: str) -> Operon:
    """The application `module:app`; `app` by default."""
    module_name, _, attribute = target.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not module_name.startswith(error.name):
            raise
        raise CatalogError(
            f"there is no module {module_name!r} here",
            hint="run operon in the folder that holds it, as package.module:app",
        ) from None
    app = getattr(module, attribute or "app", None)
    if not isinstance(app, Operon):
        raise CatalogError(
            f"{module_name} has no Operon application named {attribute or 'app'!r}",
            hint="app = operon.Operon(__name__)",
        )
    return app


async def serve(app: Operon) -> None:
    """Runs the executor and HTTP until a signal says stop; then drains both."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with app:
        settle_garbage()
        await app.serve(lambda url: announce(app, url), stop)


def announce(app: Operon, url: str) -> None:
    database = (
        masked(app.settings.database_url) if app.settings.database_url else f"embedded in {app.settings.data_dir}"
    )
    click.echo(f"Operon serves {url}  (Postgres: {database}; Ctrl-C stops)")


if __name__ == "__main__":
    main()
