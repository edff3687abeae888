"""Runs user transactions: exactly once, because the checkpoint commits in the user's own database transaction.

    BEGIN isolation level ...                      one round trip
    the user's statements                          one each
    EXECUTE operon_checkpoint (...); COMMIT        one round trip: fence, checkpoint and commit together

What an error means depends on where it struck. Before COMMIT was sent nothing has happened, so the transaction can run
again. After that the outcome is unknown, whatever the exception says: of transactions that were cut off at random most
had committed. Then the step's checkpoint is looked up; its primary key makes a second commit impossible, and its token
tells whose it is.

A transaction runs in a task of its own: a workflow that is taken down meanwhile leaves it to end in peace.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, NoReturn

from operon.database import checkpoints
from operon.database.connection import (
    SHARED_SESSION,
    Connection,
    is_conflict,
    is_drivers,
    is_mistake,
    is_weather,
    sqlstate,
)
from operon.database.pool import Pool
from operon.errors import Fenced, InvocationError, OperonInternalError, StopActor
from operon.failures import encode_error
from operon.masking import masked_logger
from operon.runtime.client import TransactionClient
from operon.runtime.setback import Setback
from operon.telemetry.spans import attempt_failed

logger = masked_logger("operon.transactions")

BACKOFF_FIRST_SECONDS = 0.005
BACKOFF_MAX_SECONDS = 1.0
# A statement that ran into its time limit may have met a dead network, which is weather, or be slow, which is not.
TIMEOUTS_MAX = 3

Settle = Callable[[Any], tuple[bytes, Any]]


class Work:
    """One transaction step: what to run, and where its checkpoint belongs."""

    __slots__ = (
        "begin",
        "body",
        "kind",
        "name",
        "output",
        "read_only",
        "replayed",
        "running",
        "seen",
        "setback",
        "settle",
        "started",
        "step",
        "token",
        "workflow",
    )

    def __init__(
        self,
        workflow: tuple[Any, int, int],
        step: int,
        seen: str | None,
        kind: int,
        name: str,
        started: float,
        isolation: str,
        read_only: bool,
        body: Callable[[TransactionClient], Awaitable[Any]],
        settle: Settle,
        replayed: Callable[[bytes | None, bytes | None], Any],
    ) -> None:
        self.workflow = workflow  # UUID, owner, epoch
        self.step = step
        self.seen = seen
        self.kind = kind
        self.name = name
        self.started = started
        self.begin = begin_message(isolation, read_only)
        self.read_only = read_only
        self.body = body
        self.settle = settle
        self.replayed = replayed  # the value of a checkpoint that turned out to be there; raises its error
        self.output = b""
        self.token = secrets.randbits(62)
        # For those who ask what the workflow does.
        self.setback: Setback | None = None
        self.running: Coroutine[Any, Any, Any] | None = None

    def commit_message(self, attempt: int, prepared: bool) -> str:
        """The last message. A read-only transaction cannot hold its checkpoint: the caller records its output.

        prepared: whether the session has the checkpoint prepared.
        """
        if self.read_only:
            return "commit"
        uuid, owner, epoch = self.workflow
        attempts = attempt if attempt > 1 else None
        return checkpoints.commit_with_checkpoint(
            uuid,
            self.step,
            owner,
            epoch,
            self.name,
            self.token,
            self.output,
            self.started,
            self.seen,
            attempts,
            self.kind,
            prepared=prepared,
        )


class Failed(Exception):
    """The transaction itself failed and was rolled back; its error is to be recorded."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error
        self.stored = encode_error(error)


class TransactionRunner:
    """The tasks of the transactions that are under way."""

    def __init__(self, pool: Pool, quiet: asyncio.Event) -> None:
        self._pool = pool
        self._quiet = quiet  # set when the last one has ended
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def busy(self) -> bool:
        """Whether a transaction is under way."""
        return bool(self._tasks)

    async def run(self, work: Work) -> Any:
        """The value of a transaction. Raises Failed when it was rolled back for good, Fenced when another owns it."""
        return await asyncio.shield(self.launch(work))

    def launch(self, work: Work) -> asyncio.Task[Any]:
        """Starts a transaction and does not wait."""
        work.running = self._until_settled(work)
        task = asyncio.get_running_loop().create_task(work.running)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not self._tasks:
            self._quiet.set()
        if not task.cancelled():
            task.exception()  # seen, also when the workflow that waited for it is gone

    async def close(self) -> None:
        """Cancels what is still under way; its connections are terminated."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _until_settled(self, work: Work) -> Any:
        attempt = 0
        timeouts = 0
        while True:
            attempt += 1
            try:
                return await self._attempt(work, attempt)
            except Again as again:
                timeouts += again.timed_out
                attempt_failed(again.error, attempt)
                if timeouts >= TIMEOUTS_MAX:
                    raise Failed(again.error) from again.error
                if attempt % 10 == 0:
                    logger.warning("%s has met %d conflicts or lost connections: %s", work.name, attempt, again.error)
                pause = min(BACKOFF_MAX_SECONDS, BACKOFF_FIRST_SECONDS * 2 ** min(attempt, 10)) * random.random()  # noqa: S311
                work.setback = Setback(attempt, type(again.error).__name__, time.time() + pause)
            await asyncio.sleep(pause)

    async def _attempt(self, work: Work, attempt: int) -> Any:
        try:
            connection = await self._pool.acquire()
        except Exception as error:
            if not is_weather(error):
                raise Failed(error) from error
            raise Again(error) from error
        try:
            value = await self._transact(connection, work, attempt)
        except (Again, Unacknowledged) as unsettled:
            if sqlstate(unsettled.error):
                self._pool.release(connection)  # rolled back, or terminated when it could not be
            else:
                self._pool.discard(connection)  # the driver's own words: who knows what it takes the session for
            if isinstance(unsettled, Again):
                raise
            # Only now: if all of the pool asked on a second connection each, none would ever get one.
            return await self._look_up(work, unsettled.error)
        except (Failed, StopActor):
            self._pool.release(connection)
            raise
        except BaseException:
            self._pool.discard(connection)
            raise
        self._pool.release(connection)
        return value

    async def _transact(self, connection: Connection, work: Work, attempt: int) -> Any:
        try:
            await connection.execute(work.begin + (SHARED_SESSION if self._pool.pooled else ""))
        except Exception as error:
            await rollback(connection)
            raise_if_transient(error)
            raise Failed(error) from error
        client = TransactionClient(connection)
        try:
            value = await work.body(client)
            work.output, value = work.settle(value)
        except Exception as error:
            lost = connection.is_closed()
            await rollback(connection)
            failure = client.failure or (error if is_drivers(error) else None)  # a cursor's errors are not noted
            if failure is not None and not is_mistake(failure, work.read_only, lost):
                raise_if_transient(failure)
            raise Failed(error) from error
        finally:
            client.close()
        if not connection.is_in_transaction():
            raise Failed(
                InvocationError(
                    f"{work.name} ended its own database transaction",
                    hint="no commit and no rollback: return to commit, raise to roll back",
                )
            )
        try:
            await connection.execute(work.commit_message(attempt, prepared=not self._pool.pooled))
        except Exception as error:
            await self._not_committed(connection, work, client.failure, error)
        return value

    async def _not_committed(
        self, connection: Connection, work: Work, earlier: Exception | None, error: Exception
    ) -> NoReturn:
        """COMMIT did not answer, or refused: raises what that means."""
        await rollback(connection)
        state = sqlstate(error)
        ours = getattr(error, "table_name", None) == "checkpoints" and getattr(error, "schema_name", None) == "operon"
        if ours and state == "23502":
            raise Fenced(f"workflow {work.workflow[0]} has another owner") from error
        if (ours and state == "23505") or (is_weather(error) and not is_conflict(error)):
            raise Unacknowledged(error) from error
        if state == "25P02" and earlier is not None:  # the function caught a database error and went on
            if not is_mistake(earlier, work.read_only, lost=False):
                raise_if_transient(earlier)
            raise Failed(earlier) from error
        raise_if_transient(error)
        raise Failed(error) from error

    async def _look_up(self, work: Work, error: Exception) -> Any:
        """The recorded value if the checkpoint is there; Again if it is not."""
        while True:
            try:
                async with self._pool.connection() as connection:
                    recorded = await checkpoints.recorded(connection, work.workflow[0], work.step)
                break
            except Exception as again:
                if not is_weather(again):
                    raise
                await asyncio.sleep(BACKOFF_MAX_SECONDS * random.random())  # noqa: S311
        if recorded is None:
            # The old connection may still be committing; the primary key makes our next attempt wait for it.
            raise Again(error)
        if recorded.token != work.token:
            logger.info("step %d of %s was recorded by an earlier life of this workflow", work.step, work.workflow[0])
        return work.replayed(recorded.output, recorded.error)


class Again(Exception):
    """Nothing has happened: run the transaction again."""

    def __init__(self, error: Exception, timed_out: bool = False) -> None:
        super().__init__(str(error))
        self.error = error
        self.timed_out = timed_out


class Unacknowledged(Exception):
    """COMMIT was sent: what has become of the transaction is in the database."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


def raise_if_transient(error: Exception) -> None:
    """Raises Again for a conflict and for weather."""
    if is_conflict(error):
        raise Again(error) from error
    if is_weather(error):
        raise Again(error, isinstance(error, TimeoutError) or sqlstate(error) in ("57014", "25P03")) from error


async def rollback(connection: Connection) -> None:
    """Ends a failed transaction; the connection goes with it when that does not work at once."""
    if connection.is_closed() or not connection.is_in_transaction():
        return
    try:
        await connection.execute("rollback", timeout=5.0)
    except Exception:
        connection.terminate()


def begin_message(isolation: str, read_only: bool) -> str:
    """The first message of a transaction."""
    known = {"READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"}
    if isolation not in known:
        raise OperonInternalError(f"isolation level {isolation!r}")
    return f"begin isolation level {isolation.lower()} {'read only' if read_only else 'read write'}"
