"""The one connection that batches are written on.

A flush is one round trip and one transaction. When the connection is lost in the middle of one, nobody knows whether
it landed: `landed` asks, on a new connection, and waits for the old transaction if it is still under way. If it has not
landed, its number is refused from then on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any
from uuid import UUID

import asyncpg

from operon.database import executors
from operon.database.batch import Batch
from operon.database.connection import SHARED_WRITER, WRITER, Connection, close, connect, sqlstate
from operon.database.mail import Mail
from operon.errors import Fenced

# By their numbers: UUIDs of starts, checkpoints and ends, of who received, goes on, and is sent to.
AS_TEXT = (5, 20, 29, 34, 36, 44)
REST = ", ".join(f"${n}::text::uuid[]" if n in AS_TEXT else f"${n}" for n in range(2, 61))
FLUSH = f"select * from operon.flush($1, {REST})"  # noqa: S608 - placeholders
NO_MAIL = Mail().columns(0)

# Where the session is not ours alone, the statement says itself how long it waits for locks: first of all, because the
# flush needs the answer.
PATIENCE = "(select set_config('lock_timeout', '1s', true) as is_set offset 0) as patience"
PATIENT = "case when patience.is_set is not null then $1::bigint end"
SHARED_FLUSH = f"select flush.* from {PATIENCE}, lateral operon.flush({PATIENT}, {REST}) as flush"  # noqa: S608

FENCED = ("OP001", "OP002")
REVOKED = "OP004"
OUT_OF_ORDER = "OP005"

Call = Callable[..., Awaitable[Any]]


class Revoked(Exception):
    """Workflows were cancelled by somebody else: nothing of the batch was written, and nothing of theirs may be."""

    def __init__(self, workflows: list[UUID]) -> None:
        super().__init__(f"{len(workflows)} workflows were cancelled")
        self.workflows = workflows


class OutOfOrder(Exception):
    """The batch before this one has not landed, so nothing of this one was written either."""


class Writer:
    """Owns a writing connection of an executor; used by its committer alone."""

    def __init__(self, url: str, version: str, mailbox_limit: int, *, pooled: bool = False) -> None:
        self._url = url
        self._pooled = pooled
        self._version = version
        self._mailbox_limit = mailbox_limit
        self._connection: Connection | None = None
        self._flush: Call | None = None
        self.shapes: dict[Any, Any] = {}  # what the server said of one-statement steps, by statement

    async def open(self) -> Connection:
        """The connection, opened anew if it was lost."""
        if self._connection is None or self._connection.is_closed():
            self._connection = await connect(self._url, WRITER, pooled=self._pooled)
            self._flush = None
        return self._connection

    async def _call(self, connection: Connection) -> Call:
        """A flush, prepared once; or sent anew each time where the session is not ours alone."""
        if self._flush is not None:
            return self._flush
        call: Call = partial(connection.fetchrow, SHARED_FLUSH)
        if not self._pooled:
            call = (await connection.prepare(FLUSH)).fetchrow
        self._flush = call
        return call

    async def flush(self, incarnation: int, number: int, batch: Batch, after: int | None = None) -> None:
        """Makes a batch durable, and hands it what the database says. Raises Fenced, Revoked, or asyncpg's error.

        after: the number of a batch that is on its way too, and comes first. OutOfOrder if it has not landed.
        """
        call = await self._call(await self.open())
        mail = batch.mail
        try:
            taken, woken, codes, sequences, busy = await call(
                incarnation,
                number,
                after,
                self._version,
                *batch.columns(),
                *(NO_MAIL if mail is None else mail.columns(self._mailbox_limit)),
            )
        except asyncpg.PostgresError as error:
            if sqlstate(error) in FENCED:
                raise Fenced(str(error)) from error
            if sqlstate(error) == REVOKED:
                raise Revoked([UUID(uuid) for uuid in (getattr(error, "detail", None) or "").split(",")]) from error
            if sqlstate(error) == OUT_OF_ORDER:
                raise OutOfOrder(str(error)) from error
            raise
        batch.taken, batch.woken = taken or (), woken or ()
        if mail is not None:
            mail.answered(codes or (), sequences or (), busy or ())

    async def begin(self) -> Connection:
        """Opens a transaction for one-statement steps, which the next `flush` and `commit` are part of."""
        connection = await self.open()
        await connection.execute("begin" + (SHARED_WRITER if self._pooled else ""))
        return connection

    async def commit(self) -> None:
        await (await self.open()).execute("commit")

    async def rollback(self) -> None:
        """Ends a failed transaction, with the connection if need be."""
        if self._connection is None or not self.usable:
            return
        try:
            await self._connection.execute("rollback")
        except Exception:
            self.discard()

    @property
    def usable(self) -> bool:
        """Whether the connection survived the last error."""
        return self._connection is not None and not self._connection.is_closed()

    async def landed(self, incarnation: int, number: int, batch: Batch) -> bool:
        """Whether a batch is durable, asked after its acknowledgement was lost; if not, it never will be.

        Raises Fenced if we are dead.
        """
        self.discard()
        landed, answers, alive = await executors.landed(await self.open(), incarnation, number)
        if not landed and not alive:
            raise Fenced(f"executor {incarnation} was declared dead")
        if landed and batch.mail is not None:
            batch.mail.answer_lost(answers)
        return landed

    async def forget_revoked(self, incarnation: int, workflows: Sequence[UUID]) -> None:
        """Says that these workflows were dropped."""
        await executors.forget_revoked(await self.open(), incarnation, workflows)

    def discard(self) -> None:
        """Drops the connection; the next use opens another."""
        if self._connection is not None:
            self._connection.terminate()
        self._connection = None

    async def close(self) -> None:
        await close(self._connection)
        self._connection = None
