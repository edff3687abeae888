"""`operon start module:app` serves an application and runs its workflows."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import click

from operon.app import Operon
from operon.cli import reload
from operon.cli.database import shown_database
from operon.cli.target import load
from operon.cli.target import target as as_target
from operon.masking import masked_logger
from operon.runtime.loop import run, settle_garbage
from operon.telemetry import logs
from operon.telemetry.exporting import export_as_told

logger = masked_logger("operon.cli")


@click.command()
@click.argument("target", metavar="MODULE[:APP]", type=as_target)
@click.option("--host", help="Address to listen on; 127.0.0.1 by default.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on; 8000 by default, 0 for any free one.")
@click.option("--database-url", help="The Postgres to run on; an embedded one by default.")
@click.option(
    "--log-level", default="info", type=click.Choice(["debug", "info", "warning", "error"]), show_default=True
)
@click.option("--log-format", type=click.Choice(["text", "json"]), help="Lines for people, or JSON; text by default.")
@click.option("--reload", "reloads", is_flag=True, help="Start again whenever a .py file below this folder changes.")
def start(target: tuple[str, str], log_level: str, reloads: bool, **options: Any) -> None:
    """Serves an application and runs its workflows.

    Until SIGTERM or Ctrl-C; then what is in flight is ended in order.

    A constructor's setting, as in Operon(..., port=8080), wins over an option.
    """
    logs.configure(log_level, "text")  # until the settings are known
    if reloads:
        reload.restart_on_changes()
        return
    app = load(target)
    app.command_line(**options)
    logs.configure(log_level, app.settings.log_format)
    for name, value in options.items():
        if value is not None and getattr(app.settings, name) != value:
            logger.warning("--%s has no effect: %s", name.replace("_", "-"), app.configuration.origins[name])
    export_as_told(os.environ, target[0])
    run(serve(app))


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
    click.echo(f"Operon serves {url}  (Postgres: {shown_database(app.settings)}; Ctrl-C stops)")
