"""`TestRuntime`: an application on a database of its own, for one test."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar, overload
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID

from operon.app import Operon
from operon.authorization import caller_named
from operon.catalog import Namespace
from operon.contexts import ApplicationContext, CommunicatorContext, TransactionContext
from operon.database import testbed
from operon.database.stock import Stock, stock_of
from operon.errors import ConfigurationError, InputError, OperonError
from operon.given import as_uuid
from operon.http.server import HttpClient
from operon.operations import Communicator, Operation, Transaction
from operon.runtime.executor import Executor
from operon.testing import clock, doubles, replays

P = ParamSpec("P")
R = TypeVar("R")

SERVER = "OPERON_TEST_DATABASE_URL"  # a server to make databases on; the embedded one otherwise
FOLDER = Path(".operon/test-postgres")


class TestRuntime:
    """An application that runs on a database of its own, which is removed at the end.

    namespaces: what to run: modules and classes with operations, as for `Operon`; or one `Operon` application.
    database_url: the server to make it on; `OPERON_TEST_DATABASE_URL`, or an embedded one, by default.
    evict_always: a workflow that waits leaves memory at once and comes back by replaying, so what it forgets is found.
    check_replay: whether every workflow that ended is replayed at the end, see `check_replay()`.
    Other arguments are those of `Operon`.
    """

    __test__ = False  # not a test itself, whatever pytest thinks of its name

    def __init__(
        self,
        *namespaces: Namespace | Operon,
        database_url: str | None = None,
        config: Mapping[str, Any] | None = None,
        evict_always: bool = False,
        check_replay: bool = True,
        **settings: Any,
    ) -> None:
        if evict_always and settings.setdefault("park_after_seconds", 0) != 0:
            raise ConfigurationError(
                "evict_always parks a workflow as soon as it waits, and park_after_seconds says something else",
                hint="give one of the two",
            )
        self._server = database_url
        self._name = ""
        self._url = ""
        self.checks_replay = check_replay
        self._client: HttpClient | None = None
        self._overrides: dict[str, Any] = {}
        self.app: Operon
        match namespaces:
            case (Operon() as app,):
                if config is not None:
                    raise ConfigurationError("an application has its config already", hint="TestRuntime(module, ...)")
                self.app, self._overrides = app, {**settings, "database_url": None}
            case _:
                modules = [each for each in namespaces if not isinstance(each, Operon)]
                if len(modules) < len(namespaces):
                    raise ConfigurationError("a test runtime runs one application", hint="TestRuntime(app)")
                self.app = Operon(*modules, config=config, **settings)

    async def __aenter__(self) -> Self:
        self._server = self._server or os.environ.get(SERVER) or await testbed.embedded_server(FOLDER)
        self._name = await self._stock.take()
        try:
            await self._open()
        except BaseException:
            self._stock.give_back(self._name)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if self.checks_replay and error is None and self.executor.running:
                await self.check_replay()
        finally:
            try:
                await self._close()
            finally:
                self._stock.give_back(self._name)
                self.app.override(**dict.fromkeys(self._overrides))

    @property
    def database_url(self) -> str:
        """The private database."""
        return self._url

    @property
    def context(self) -> ApplicationContext:
        """A context to start workflows with."""
        return self.app.context()

    def context_of(
        self,
        user: str | None = None,
        roles: Sequence[str] = (),
        *,
        request: Mapping[str, Any] | None = None,
        workflow_uuid: UUID | str | None = None,
    ) -> ApplicationContext:
        """A context to start workflows with as somebody: `await refund(runtime.context_of("ada", ["clerk"]), 100)`.

        request: what `ctx.request` is of the workflows. workflow_uuid: the identity of what it starts.
        """
        caller = replace(caller_named(user, roles), request=request)
        return self.executor.context(caller, None if workflow_uuid is None else as_uuid(workflow_uuid, InputError))

    async def invoke(
        self,
        operation: Operation[..., R],
        *args: Any,
        user: str | None = None,
        roles: Sequence[str] = (),
        request: Mapping[str, Any] | None = None,
        workflow_uuid: UUID | str | None = None,
        **kwargs: Any,
    ) -> R:
        """Calls an operation as somebody: the value of a step, the handle of a workflow.

        `await operation(runtime.context_of(...), ...)` is the same, and checks the arguments' types.
        """
        return await operation(
            self.context_of(user, roles, request=request, workflow_uuid=workflow_uuid), *args, **kwargs
        )

    @property
    def client(self) -> HttpClient:
        """Quart's test client of the application; it keeps its cookies. `await runtime.client.get("/shows")`."""
        if self._client is None:
            self._client = self.app.quart.test_client()
        return self._client

    @property
    def executor(self) -> Executor:
        """The executor under test."""
        return self.app.executor

    async def execute(self, statement: str, *args: Any) -> str:
        """Runs a statement on the private database."""
        return await testbed.execute(self._url, statement, *args)

    async def fetch(self, statement: str, *args: Any) -> list[Any]:
        """The rows of a query on the private database."""
        return await testbed.fetch(self._url, statement, *args)

    async def fetchval(self, statement: str, *args: Any) -> Any:
        """The first column of the first row of a query on the private database, or None."""
        rows = await testbed.fetch(self._url, statement, *args)
        return rows[0][0] if rows else None

    async def restart(self) -> None:
        """Shuts the application down in order and starts it again on the same database."""
        await self._close()
        await self._open()

    async def crash(self) -> None:
        """Drops everything that lives in this process, as `kill -9` would, and lets the next incarnation recover it."""
        await self.executor.crash()

    async def crash_everywhere(self) -> AsyncIterator[int]:
        """Yields 0 for a run without a crash, then crashes after checkpoint 1, 2, 3, ... until a run has no more.

        Each run starts from the database as it is now, and makes the same UUIDs again.
        """
        await self._close()
        snapshot, self._name = self._name, ""
        try:
            checkpoint = 0
            while True:
                self._name = await self._stock.copy(snapshot)
                await self._open(repeatable=True)
                crashed = self.executor.crash_after(checkpoint) if checkpoint else None
                yield checkpoint
                if crashed is not None and not crashed():
                    break
                await self._close()
                self._stock.give_back(self._name)
                checkpoint += 1
        finally:
            self._stock.give_back(snapshot)
        await self._close()  # not when the loop was left: then this run goes on
        await self._open()

    async def settled(self, timeout: float = clock.REST_SECONDS) -> None:
        """Waits until every workflow waits durably or has ended. OperonError if one does not, in so many seconds."""
        await clock.rest(self.executor, timeout)

    async def advance(self, *, days: float = 0, hours: float = 0, minutes: float = 0, seconds: float = 0) -> None:
        """Lets time pass at once, for the workflows and for `operon.clock()` in the database.

        It stops at every deadline on the way. When it returns, every workflow whose time had come has been woken, has
        gone on, and waits durably again or has ended. Steps that are under way are waited for.
        """
        passed = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
        await clock.advance(self.executor, passed.total_seconds())

    @overload
    def double(
        self, operation: Transaction[P, R], fn: Callable[Concatenate[TransactionContext, P], Awaitable[R]]
    ) -> AbstractContextManager[None]: ...

    @overload
    def double(
        self, operation: Communicator[P, R], fn: Callable[Concatenate[CommunicatorContext, P], Awaitable[R] | R]
    ) -> AbstractContextManager[None]: ...

    def double(self, operation: Any, fn: Callable[..., Any]) -> AbstractContextManager[None]:
        """Puts a function in the place of a communicator's or a transaction's: `with runtime.double(charge, fn):`.

        What it returns or raises is recorded as if the real one had. Other applications of this process that have the
        operation get the double too. Raises InvocationError for a workflow.
        """
        return doubles.double(operation, fn)

    async def check_replay(self) -> int:
        """Replays every workflow that ended, from its checkpoints; gives how many. Happens by itself at the end.

        No step runs, and nothing is written, but the workflows' own code does run again. Raises NondeterminismError,
        which shows step by step what came out differently. Of more than 1,000 workflows the latest are replayed.
        """
        return await replays.check_replay(self.executor)

    async def _open(self, repeatable: bool = False) -> None:
        self._url = with_database(self._require_server(), self._name)
        self.app.override(**{**self._overrides, "database_url": self._url})
        if repeatable:
            self.app.executor.new_uuid = RepeatableUuids()
        await self.app.__aenter__()

    async def _close(self) -> None:
        await self.app.__aexit__(None, None, None)

    @property
    def _stock(self) -> Stock:
        return stock_of(self._require_server())

    def _require_server(self) -> str:
        if self._server is None:
            raise OperonError("the test runtime was not entered", hint="async with TestRuntime(...) as runtime:")
        return self._server


class RepeatableUuids:
    """The same UUIDs in the same order, so that idempotency keys are the same in every run."""

    def __init__(self) -> None:
        self._made = 0

    def __call__(self) -> UUID:
        self._made += 1
        digest = hashlib.sha256(f"operon test {self._made}".encode()).digest()
        return UUID(
            bytes=digest[:6] + bytes((0x70 | digest[6] & 0x0F, digest[7], 0x80 | digest[8] & 0x3F)) + digest[9:16]
        )


def with_database(url: str, name: str) -> str:
    """The same server, another database."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=f"/{name}"))
