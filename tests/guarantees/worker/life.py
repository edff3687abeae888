"""One process that runs the application: it starts what it is told to, tells the witness what comes of it, and ends.

A life is forked from a server process that has imported everything and done nothing, so it begins in milliseconds. It
shares no memory with any other life, and when it is killed, the kernel closes its sockets like anybody's.

What it is to do stands in the environment:

    CASE, LIFE     whom the witness hears
    WITNESS        the socket
    STARTS         a JSON array of Start: all at once
    AFTERWARDS     the same, when those have ended
    STAY           do not end by itself
    KILL           a JSON array of Site
    SETTINGS       a JSON object of settings that are not the usual ones
    TRACE, LOG     files for the labels of its messages, and for what it says
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping
from typing import Any
from uuid import UUID

import msgspec

import operon
from operon.operations import Workflow
from operon.runtime.loop import run
from tests.guarantees.worker import application, sites, witness


class Start(msgspec.Struct, frozen=True):
    """A workflow that a client wants: to start, or, when it was started already, to hear of."""

    workflow: str
    uuid: UUID
    args: tuple[Any, ...] = ()
    begin: bool = True
    times: int = 1  # that many starts at once


# A killed process is known to be gone by its session lock, within two looks; a stopped one by its lease.
SETTINGS: dict[str, Any] = {"poll_seconds": 0.1, "lease_seconds": 2.0, "heartbeat_seconds": 0.4, "crash_budget": 50}


def live(environment: Mapping[str, str]) -> None:
    """The whole life of a process."""
    os.environ.update(environment)
    if log := os.environ.get("LOG"):
        file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.dup2(file, 1)
        os.dup2(file, 2)
        logging.basicConfig(level=logging.INFO, force=True, format="%(asctime)s %(process)d %(name)s: %(message)s")
    strikes = msgspec.json.decode(os.environ.get("KILL", "[]"), type=list[sites.Site])
    sites.install(strikes, os.environ.get("TRACE"))
    run(main())


async def main() -> None:
    settings = msgspec.json.decode(os.environ.get("SETTINGS", "{}"), type=dict[str, Any])
    app = operon.Operon(application, **{**SETTINGS, **settings})
    async with app:
        await registered(app)
        for variable in ("STARTS", "AFTERWARDS"):
            starts = msgspec.json.decode(os.environ.get(variable, "[]"), type=list[Start])
            await asyncio.gather(*(follow(app, start) for start in starts for _ in range(start.times)))
        if os.environ.get("STAY"):
            await asyncio.Event().wait()


async def registered(app: operon.Operon) -> None:
    """Waits until a death of this process would be seen by its session lock: it is held, and the lease says so."""
    lease = app.executor.incarnation.lease
    while not lease.session_lock:  # noqa: ASYNC110 - the lease has no event for it
        await asyncio.sleep(0.01)


async def follow(app: operon.Operon, start: Start) -> None:
    """What a client does: starts a workflow, or asks for one, and hears how it ended."""
    ctx = app.context(workflow_uuid=start.uuid)
    try:
        if start.begin:
            workflow: Workflow[..., Any] = getattr(application, start.workflow)
            handle = await workflow(ctx, *start.args)
            witness.tell(start.uuid, "started")
        else:
            handle = ctx.retrieve_workflow(start.uuid)
        value = await handle.get_result()
    except Exception as error:
        witness.tell(start.uuid, "error", f"{type(error).__name__}: {error}")
    else:
        witness.tell(start.uuid, "result", value)
