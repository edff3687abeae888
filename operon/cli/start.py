"""`operon start module:app` serves an application and runs its workflows."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from operon.app import Operon
from operon.cli import reload
from operon.cli.database import shown_database
from operon.cli.failure import fail
from operon.cli.target import load
from operon.cli.target import target as as_target
from operon.cli.workers import READY, Workers, command, inherited
from operon.http.server import listen, url_of
from operon.masking import masked_logger
from operon.runtime.loop import run, settle_garbage
from operon.telemetry import logs
from operon.telemetry.exporting import export_as_told

logger = masked_logger("operon.cli")


@click.command()
@click.argument("target", metavar="MODULE[:APP]", type=as_target)
@click.option("--host", help="Address to listen on; 127.0.0.1 by default.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on; 8000 by default, 0 for any free one.")
@click.option("--workers", type=click.IntRange(1), help="Processes that serve the port; 1 by default.")
@click.option("--database-url", help="The Postgres to run on; an embedded one by default.")
@click.option(
    "--log-level", default="info", type=click.Choice(["debug", "info", "warning", "error"]), show_default=True
)
@click.option("--log-format", type=click.Choice(["text", "json"]), help="Lines for people, or JSON; text by default.")
@click.option("--reload", "reloads", is_flag=True, help="Start again whenever a .py file below this folder changes.")
@click.option("--worker", hidden=True, help="Of a worker, by its parent: the sockets that it inherits.")
def start(target: tuple[str, str], log_level: str, reloads: bool, worker: str | None, **options: Any) -> None:
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
    for name, value in options.items() if worker is None else ():
        if value is not None and getattr(app.settings, name) != value:
            logger.warning("--%s has no effect: %s", name.replace("_", "-"), app.configuration.origins[name])
    if worker is None and app.settings.workers > 1:
        sys.exit(asyncio.run(keep_workers(app)))
    export_as_told(os.environ, target[0])
    run(serve(app) if worker is None else work(app, *inherited(worker)))


async def serve(app: Operon) -> None:
    """Runs the executor and HTTP until a signal says stop; then drains both."""
    stop = stopped_by_signals()
    async with app:
        settle_garbage()
        await app.serve(lambda url: announce(app, url), stop)


async def work(app: Operon, listening: socket.socket, parent: socket.socket) -> None:
    """The same in a worker, which also stops when its parent is gone."""
    stop = stopped_by_signals()
    with parent:
        asyncio.get_running_loop().add_reader(parent, stop.set)  # it never says anything: this is its end
        async with app:
            settle_garbage()
            await app.serve(lambda _: parent.send(READY), stop, listening)


async def keep_workers(app: Operon) -> int:
    """Runs the parent of the workers; gives its exit code."""
    settings = app.settings
    if os.name != "posix":
        fail("workers need POSIX, where processes can share a socket", "start without --workers")
    if settings.database_url is None:  # once, before there are several who would
        from operon.database.embedded import EmbeddedPostgres

        EmbeddedPostgres(Path(settings.data_dir)).start(production=settings.env == "production")
    with closing(await listen(settings.host, settings.port)) as listening:
        workers = Workers(settings.workers, command(), listening, settings.shutdown_seconds)
        stopped_by_signals(workers.stop)
        return await workers.run(lambda: announce(app, url_of(listening)))


def stopped_by_signals(stop: Callable[[], object] | None = None) -> asyncio.Event:
    """An event that SIGTERM and Ctrl-C set; they call `stop` too."""
    stopped = asyncio.Event()

    def told() -> None:
        stopped.set()
        if stop is not None:
            stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told)
    return stopped


def announce(app: Operon, url: str) -> None:
    workers = f"{app.settings.workers} workers; " if app.settings.workers > 1 else ""
    click.echo(f"Operon serves {url}  ({workers}Postgres: {shown_database(app.settings)}; Ctrl-C stops)")
