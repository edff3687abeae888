"""For tests of applications: a private database each, and crashes on demand. Nothing is faked: it is the real runtime.

async def test_checkout_charges_once_wherever_it_crashes() -> None:
    async with TestRuntime(tickets) as runtime:
        async for _crash in runtime.crash_everywhere():     # no crash, then after checkpoint 1, 2, 3, ...
            handle = await checkout(runtime.context, "Hamlet", "A1", card="4242")

            assert await handle.get_result() is True
            assert len(bank.keys) == 1                      # one key, however many attempts
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID

from operon.app import Operon
from operon.catalog import Namespace
from operon.contexts import ApplicationContext
from operon.database import testbed
from operon.errors import ConfigurationError, OperonError
from operon.runtime.executor import Executor

__all__ = ["TestRuntime"]

SERVER = "OPERON_TEST_DATABASE_URL"  # a server to make databases on; the embedded one otherwise
FOLDER = Path(".operon/test-postgres")


class TestRuntime:
    """An application that runs on a database of its own, which is removed at the end.

    database_url: the server to make it on; `OPERON_TEST_DATABASE_URL`, or an embedded one, by default.
    evict_always: a workflow that waits leaves memory at once, as others do after `park_after_seconds`, and is replayed
    when it goes on: what it does not replay alike is found by the first test that makes it wait.
    Other arguments are those of `Operon`.
    """

    __test__ = False  # not a test itself, whatever pytest thinks of its name

    def __init__(
        self,
        *namespaces: Namespace,
        database_url: str | None = None,
        config: Mapping[str, Any] | None = None,
        evict_always: bool = False,
        **settings: Any,
    ) -> None:
        if evict_always:
            if "park_after_seconds" in settings:
                raise ConfigurationError("evict_always is park_after_seconds=0", hint="give one of the two")
            settings["park_after_seconds"] = 0.0
        self._namespaces = namespaces
        self._server = database_url
        self._config = config
        self._settings = settings
        self._name = f"operon_test_{secrets.token_hex(6)}"
        self._url = ""
        self.app: Operon = Operon(*namespaces, config=config, **settings)

    async def __aenter__(self) -> Self:
        server = self._server or os.environ.get(SERVER) or await testbed.embedded_server(FOLDER)
        self._server = server
        self._url = with_database(server, self._name)
        await testbed.create_database(server, self._name)
        await self._open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self._close()
        finally:
            await testbed.drop_database(self._require_server(), self._name)

    @property
    def database_url(self) -> str:
        """The private database."""
        return self._url

    @property
    def context(self) -> ApplicationContext:
        """A context to start workflows with."""
        return self.app.context()

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
        snapshot = f"{self._name}_snapshot"
        await testbed.create_database(self._require_server(), snapshot, template=self._name)
        try:
            checkpoint = 0
            while True:
                await testbed.drop_database(self._require_server(), self._name)
                await testbed.create_database(self._require_server(), self._name, template=snapshot)
                await self._open(repeatable=True)
                crashed = self.executor.crash_after(checkpoint) if checkpoint else None
                yield checkpoint
                if crashed is not None and not crashed():
                    return
                await self._close()
                checkpoint += 1
        finally:
            await self._close()
            await testbed.drop_database(self._require_server(), snapshot)
            await self._open()

    async def _open(self, repeatable: bool = False) -> None:
        self.app.override(database_url=self._url)
        if repeatable:
            self.app.executor.new_uuid = RepeatableUuids()
        await self.app.__aenter__()

    async def _close(self) -> None:
        await self.app.__aexit__(None, None, None)

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
