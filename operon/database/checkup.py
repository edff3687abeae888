"""A database's state of health: the facts that `operon doctor` judges. Nothing is judged here, and nothing changed."""

from __future__ import annotations

import asyncio
import secrets
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import asyncpg
import msgspec

from operon.database.connection import SESSION, Connection, close, connect, connect_at_start, describe
from operon.database.migrate import applied, migrations
from operon.database.sql import statements

SQL = statements("checkup.sql")

HEAR_SECONDS = 3.0


class Server(msgspec.Struct, frozen=True):
    """What a server says of itself, and of us."""

    version_number: int
    version: str
    read_only: bool
    fsync: bool
    full_page_writes: bool
    synchronous_commit: str
    connections: int  # that roles like ours may have, all together
    database: str
    role: str
    superuser: bool
    may_create: bool  # schemas
    pid: int
    clock: datetime


class Health(msgspec.Struct, frozen=True):
    """Everything that there is to know of a database before the runtime is started on it."""

    server: Server
    round_trip_seconds: float
    clock_ahead_seconds: float  # of the server's clock, give or take half a round trip
    pooled: bool  # something between us and the server answers for it
    refused: str | None  # why it does not take a session as the runtime opens it
    schema: list[int]  # the migrations that were applied
    known: list[int]  # those of this Operon
    missing_rights: list[str]


async def examine(url: str) -> Health:
    """Asks a database for its health. Raises DatabaseUnusable if it cannot be reached, and the driver's errors."""
    connection = await connect_at_start(url, {})  # without session settings, which poolers refuse
    try:
        server, round_trip, ahead = await asked(connection)
        driver: Any = connection
        known = [number for number, _, _ in migrations()]
        # A pooler makes up the process that it announces.
        pooled = driver.get_server_pid() != server.pid
        rights = [row[0] for row in await connection.fetch(SQL["missing_rights"])]
        schema: list[int] = []
        with suppress(asyncpg.InsufficientPrivilegeError):  # which is among the missing rights
            schema = await applied(connection)
    finally:
        await close(connection)
    return Health(server, round_trip, ahead, pooled, await refusal(url), schema, known, rights)


async def asked(connection: Connection) -> tuple[Server, float, float]:
    """The server's facts, how long an answer takes, and how far its clock is ahead of ours."""
    await connection.fetchrow(SQL["server"])  # prepares it, which is a round trip of its own
    sent, begun = time.time(), time.perf_counter()
    row = await connection.fetchrow(SQL["server"])
    round_trip = time.perf_counter() - begun
    server = Server(*row)
    here = datetime.fromtimestamp(sent + round_trip / 2, UTC)
    return server, round_trip, (server.clock - here).total_seconds()


async def refusal(url: str) -> str | None:
    """Why the database does not take a session as the runtime opens it; None if it does."""
    try:
        await close(await connect(url, SESSION))
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
        return describe(error, url)
    return None


async def hears(listen_url: str, ring_url: str) -> bool:
    """Whether a notification that one session sends reaches another that listens.

    Two sessions, because one that rings at itself is heard also behind a pooler in transaction mode.
    """
    heard = asyncio.Event()
    channel, token = f"operon_doctor_{secrets.token_hex(4)}", secrets.token_hex(8)
    listening = await connect_at_start(listen_url, {})
    try:
        await listening.add_listener(channel, lambda _c, _p, _n, payload: heard.set() if payload == token else None)
        ringing = await connect_at_start(ring_url, {})
        try:
            await ringing.fetchval(SQL["ring"], channel, token)
        finally:
            await close(ringing)
        with suppress(TimeoutError):
            await asyncio.wait_for(heard.wait(), HEAR_SECONDS)
    finally:
        listening_driver: Any = listening
        await listening_driver.reset_listeners() if hasattr(listening_driver, "reset_listeners") else None
        await close(listening)
    return heard.is_set()
