"""One life of an executor: the application, and some clients in the same process who take orders from the desk.

A life is forked from a server process that has imported everything and done nothing, so that it begins in milliseconds.
It shares no memory with any other, and ends by SIGKILL like any process. SIGTERM drains it; SIGUSR2 blocks its event
loop for BLOCK_SECONDS, as a long computation would.

    SLOT, DESK, WITNESS   who it is, and the sockets
    SETTINGS              a JSON object: the settings of the application
    LOG                   a file for what it says
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Mapping
from typing import Any

import msgspec

import operon
from operon.database.connection import is_weather
from operon.errors import DatabaseUnusable
from operon.runtime.loop import run
from tests.chaos import application
from tests.chaos.desk import Answer, Order

CLIENTS = 8
LINE = "%(asctime)s %(levelname)s %(process)d %(name)s: %(message)s"
NO_DATABASE = 75  # the exit code of a life that found none, and was to be started again


def live(environment: Mapping[str, str]) -> None:
    """From the first to the last instruction."""
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # until there is an event loop to block
    os.environ.update(environment)
    file = os.open(os.environ["LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(file, 1)
    os.dup2(file, 2)
    logging.basicConfig(
        level=logging.INFO, force=True, format="%(asctime)s %(levelname)s %(process)d %(name)s: %(message)s"
    )
    try:
        run(main())
    except Exception as error:  # of the start, or of a first look into the database
        if not (isinstance(error, DatabaseUnusable) or is_weather(error)):
            raise
        logging.getLogger("chaos").warning("no database to start with: %s", error)
        sys.exit(NO_DATABASE)


async def main() -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGUSR2, lambda: time.sleep(float(os.environ["BLOCK_SECONDS"])))
    settings: dict[str, Any] = msgspec.json.decode(os.environ["SETTINGS"])
    async with operon.Operon(application, **settings) as app:
        clients = [asyncio.create_task(client(app)) for _ in range(CLIENTS)]
        await stop.wait()
        for task in clients:
            task.cancel()
        await asyncio.gather(*clients, return_exceptions=True)


async def client(app: operon.Operon) -> None:
    """Takes orders until it is cancelled, or the desk is gone."""
    reader, writer = await asyncio.open_unix_connection(os.environ["DESK"])
    writer.write(f"{os.environ['SLOT']}\n".encode())
    try:
        while line := await reader.readline():
            answer = await attempt(app, msgspec.json.decode(line, type=Order))
            writer.write(msgspec.json.encode(answer) + b"\n")
    finally:
        writer.close()


async def attempt(app: operon.Operon, order: Order) -> Answer:
    """Fills an order, or gives up in the middle if that is what it says."""
    task = asyncio.create_task(fill(app, order))
    try:
        await asyncio.wait((task,), timeout=order.cancelled_after)
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            return Answer(cancelled=True)
        return Answer(value=task.result())
    except Exception as error:
        return Answer(error=f"{type(error).__name__}: {error}")
    finally:
        task.cancel()


async def fill(app: operon.Operon, order: Order) -> Any:
    workflow: Any = getattr(application, order.kind)
    if order.number % 5 == 0:  # a start that nobody chose a UUID for; given out again, it is another one
        assert await application.add(app.context()) == 1
    ctx = app.context(workflow_uuid=order.uuid)
    handles = await asyncio.gather(*(workflow(ctx, *order.args) for _ in range(order.times)))
    if order.kind == "correspondence":
        await write_letters(app, order)
    results = [await handle.get_result() for handle in handles]
    if any(result != results[0] for result in results):
        raise AssertionError(f"one workflow, and the results {results}")
    return results[0]


async def write_letters(app: operon.Operon, order: Order) -> None:
    """The sender who is no workflow: exactly once by keys, however often this is begun again."""
    ctx = app.context()
    senders, count = order.args
    reader = await ctx.get_event(order.uuid, "reader", timeout=120)
    for number in range(count):
        for _ in range(1 + (number % 3 == 0)):
            await ctx.send(
                reader, (senders, number), application.topic_of(senders), idempotency_key=("outside", number)
            )
