"""A database's state of health: the facts that `operon doctor` judges. Nothing is judged here, and nothing changed."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import asyncpg
import msgspec

from operon.database.connection import SESSION, Connection, close, connect, connect_at_start, describe
from operon.database.migrate import applied, migrations
from operon.database.sql import statements
from operon.errors import DatabaseUnavailable

SQL = statements("checkup.sql")

HEAR_SECONDS = 3.0
PROCESSES_TRIED = 3  # a pooler gives the one that was used last, or goes round


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


class Health(msgspec.Struct, frozen=True):
    """Everything that there is to know of a database before the runtime is started on it."""

    server: Server
    round_trip_seconds: float
    clock_ahead_seconds: float  # of the server's clock, give or take half a round trip
    pooled: bool  # something between us and the server answers for it
    shared: bool  # ... and gives our sessions to others between transactions
    refused: str | None  # why it does not take a session as the runtime opens it, without a pooler
    schema: list[int]  # the migrations that were applied
    known: list[int]  # those of this Operon
    missing_rights: list[str]


async def examine(url: str) -> Health:
    """Asks a database for its health. Raises DatabaseUnusable if it cannot be reached, DatabaseUnavailable later on."""
    try:
        async with session(url) as connection:
            async with connection.transaction():
                server, round_trip, ahead = await asked(connection)
                rights = [row[0] for row in await connection.fetch(SQL["missing_rights"])]
            schema = await versions(connection)
            pooled = announced(connection) != server.pid
            shared = pooled and await is_shared(url, connection)
        refused = None if pooled else await refusal(url)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
        raise DatabaseUnavailable(
            f"the database gave no answer: {describe(error, url)}", hint="nothing was changed; ask again"
        ) from error
    known = [number for number, _, _ in migrations()]
    return Health(server, round_trip, ahead, pooled, shared, refused, schema, known, rights)


@asynccontextmanager
async def session(url: str) -> AsyncGenerator[Connection]:
    """A session that any pooler takes: without settings of its own, and without statements that outlive a question."""
    connection = await connect_at_start(url, {}, pooled=True)
    try:
        yield connection
    finally:
        await close(connection)


async def asked(connection: Connection) -> tuple[Server, float, float]:
    """The server's facts, how long an answer takes, and how far its clock is ahead of ours."""
    server = Server(*await connection.fetchrow(SQL["server"]))
    sent, begun = time.time(), time.perf_counter()
    await connection.execute("select 1")  # in the simple protocol, which is one round trip
    round_trip = time.perf_counter() - begun
    clock: datetime = await connection.fetchval(SQL["clock"])
    took = time.perf_counter() - begun - round_trip
    here = datetime.fromtimestamp(sent + round_trip + took / 2, UTC)
    return server, round_trip, (clock - here).total_seconds()


async def versions(connection: Connection) -> list[int]:
    """The migrations that were applied; none to a role that may not know, which is among its missing rights."""
    try:
        async with connection.transaction():
            return await applied(connection)
    except asyncpg.InsufficientPrivilegeError:
        return []


async def is_pooled(url: str) -> bool:
    """Whether something between us and the server answers for it: poolers make up the process that they announce.

    Raises DatabaseUnusable if the database cannot be reached.
    """
    async with session(url) as connection:
        return announced(connection) != await alone(connection)


def announced(connection: Any) -> int:
    """The server process that a session was told at its login; a pooler makes it up."""
    process: int = connection.get_server_pid()
    return process


async def is_shared(url: str, mine: Connection) -> bool:
    """Whether another session is given the server process of mine, which stays open meanwhile."""
    process: int = await alone(mine)
    async with AsyncExitStack() as others:
        for _ in range(PROCESSES_TRIED):
            other = await others.enter_async_context(session(url))
            await others.enter_async_context(other.transaction())  # keeps its process, so that the next gets another
            if await other.fetchval(SQL["process"]) == process:
                return True
    return False


async def alone(connection: Connection) -> int:
    """The server process of a session, asked in a transaction of its own."""
    async with connection.transaction():
        process: int = await connection.fetchval(SQL["process"])
        return process


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

    def notified(_connection: Any, _process: int, _channel: str, payload: object) -> None:
        if payload == token:
            heard.set()

    async with session(listen_url) as listening, session(ring_url) as ringing:
        await listening.add_listener(channel, notified)
        async with ringing.transaction():
            await ringing.fetchval(SQL["ring"], channel, token)
        with suppress(TimeoutError):
            await asyncio.wait_for(heard.wait(), HEAR_SECONDS)
        await listening.remove_listener(channel, notified)
    return heard.is_set()
