"""How every connection is opened, and what an error of one means.

An error of a connection is one of three things. *Weather*: the server is away, restarting, full or busy; wait and try
again, nothing of it is anybody's fault. *Conflict*: two transactions that cannot both commit; run it again. *Refusal*:
the statement or its data is wrong, and would be wrong again.

A connection may lead through a pooler in transaction mode, which gives the server's sessions to others between
transactions. Then nothing may be left in a session, or be expected to be there: no settings, no prepared statements, no
locks, no LISTEN. `pooled` says so, from `routes` on; what a transaction needs is then set in that transaction.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

import asyncpg

from operon.dsn import masked, without_passwords
from operon.errors import DatabaseUnavailable, DatabaseUnusable

driver: Any = asyncpg  # it ships no types; what leaves this file has some


class Connection(Protocol):
    """What the runtime uses of an asyncpg connection, with types: asyncpg ships none."""

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str: ...
    async def executemany(self, command: str, args: Any, *, timeout: float | None = None) -> None: ...
    async def fetch(self, query: str, *args: Any, timeout: float | None = None) -> list[Any]: ...
    async def fetchmany(self, query: str, args: Any, *, timeout: float | None = None) -> list[Any]: ...
    async def fetchrow(self, query: str, *args: Any, timeout: float | None = None) -> Any: ...
    async def fetchval(self, query: str, *args: Any, column: int = 0, timeout: float | None = None) -> Any: ...
    async def prepare(self, query: str) -> Any: ...
    async def add_listener(self, channel: str, callback: Callable[[Any, int, str, object], None]) -> None: ...
    async def remove_listener(self, channel: str, callback: Callable[[Any, int, str, object], None]) -> None: ...
    async def close(self, *, timeout: float | None = None) -> None: ...
    def cursor(self, query: str, *args: Any, prefetch: int | None = None) -> Any: ...
    def transaction(self) -> AbstractAsyncContextManager[Any]: ...
    def add_termination_listener(self, callback: Callable[[Any], None]) -> None: ...
    def is_closed(self) -> bool: ...
    def is_in_transaction(self) -> bool: ...
    def terminate(self) -> None: ...


# Without these a partitioned executor pins its row locks for two hours: Postgres' own defaults are no limits at all.
SESSION = {
    "application_name": "operon",
    "idle_in_transaction_session_timeout": "10s",
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "8000",
    "client_connection_check_interval": "2s",
    "jit": "off",
}

# The committer's lane is shared: a statement that waits for a lock leaves it and waits elsewhere.
# And an executor that stops in the middle of a batch holds its own row, which its peers want: not for longer than this.
WRITER = {**SESSION, "lock_timeout": "1s", "idle_in_transaction_session_timeout": "3s"}

# The runtime's own questions are small and go by an index. A plan that was made while a table had a page or two would
# read the whole table, and is kept until that is analyzed: for a minute of load, each question would read all there is.
LOOK_UP = {**SESSION, "enable_seqscan": "off", "enable_hashjoin": "off", "enable_mergejoin": "off"}
# ... and how somebody else's question is asked in such a session.
READ_ANYTHING = (
    "begin read only; set local enable_seqscan = on; set local enable_hashjoin = on; set local enable_mergejoin = on"
)

# What a transaction sets for itself where a session cannot: after its `begin`, in the same message.
SHARED_SESSION = "; set local idle_in_transaction_session_timeout = '10s'"
SHARED_WRITER = "; set local lock_timeout = '1s'; set local idle_in_transaction_session_timeout = '3s'"

CONNECT_SECONDS = 10
COMMAND_SECONDS = 60.0
PREPARED_MAX = 256  # statements that a session keeps prepared

WEATHER = ("08", "57P0", "25006", "25P03", "53", "55P03", "57014", "58")
CONFLICTS = ("40001", "40P01")


class SharedSession(driver.Connection):  # type: ignore[misc]
    """A connection whose session others use too: what it has to prepare has a name that nobody else takes."""

    def _get_unique_id(self, prefix: str) -> str:
        return f"__operon_{prefix}_{secrets.token_hex(8)}__"


async def connect(
    url: str, session: dict[str, str] = SESSION, database: str | None = None, *, pooled: bool = False
) -> Connection:
    """A connection with the runtime's session settings; asyncpg's own errors when there is none to be had.

    pooled: it may lead through a pooler in transaction mode. Of the settings it has only its name then, and it prepares
    nothing that outlives a question, at the price of one more round trip for each.
    """
    connection: Connection = await driver.connect(
        url,
        timeout=CONNECT_SECONDS,
        command_timeout=COMMAND_SECONDS,
        database=database,
        server_settings={name: session[name] for name in session if name == "application_name" or not pooled},
        statement_cache_size=0 if pooled else PREPARED_MAX,
        connection_class=SharedSession if pooled else driver.Connection,
    )
    return connection


async def connect_at_start(url: str, session: dict[str, str] = SESSION, *, pooled: bool = False) -> Connection:
    """The first connection of a process: what goes wrong here is the operator's to know, so it is not retried."""
    try:
        return await connect(url, session, pooled=pooled)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as error:
        raise DatabaseUnusable(
            f"the database at {masked(url)} cannot be used: {describe(error, url)}",
            hint="is it running, and are host, port, user, password and database name right?",
        ) from None


def describe(error: BaseException, url: str) -> str:
    """An error's text without the password, which drivers like to quote."""
    return without_passwords(f"{type(error).__name__}: {error}", url)


def sqlstate(error: BaseException) -> str:
    return getattr(error, "sqlstate", None) or ""


def is_conflict(error: BaseException) -> bool:
    """Two transactions that cannot both commit: run it again."""
    return sqlstate(error) in CONFLICTS


def is_weather(error: BaseException) -> bool:
    """The database is away, busy or full: wait and try again."""
    if isinstance(error, asyncpg.PostgresError):
        return sqlstate(error).startswith(WEATHER)
    return isinstance(
        error, (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.InternalClientError, DatabaseUnavailable)
    )


def is_drivers(error: BaseException) -> bool:
    """Whether the server or the driver said this, and not the application's code."""
    return isinstance(error, (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError))


def is_mistake(error: Exception, read_only: bool, lost: bool) -> bool:
    """Whether an error that looks like weather is the function's own: running it again would never end.

    A write in a read-only transaction has the SQLSTATE of a standby, and asyncpg refuses a call (a wrong number of
    arguments, two statements at a time) with the class of a lost connection.
    """
    return (read_only and sqlstate(error) == "25006") or (isinstance(error, asyncpg.InterfaceError) and not lost)


async def close(connection: Connection | None) -> None:
    """Closes politely, then at once: a server that does not answer is no reason to hang."""
    if connection is None or connection.is_closed():
        return
    try:
        await asyncio.wait_for(connection.close(), 2.0)
    except (Exception, asyncio.CancelledError):
        connection.terminate()
