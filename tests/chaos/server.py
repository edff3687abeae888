"""A Postgres of the run's own, which it may crash. What it refused is counted out of its log, by SQLSTATE.

It keeps the time of every commit (`track_commit_timestamp`), so that it can be said afterwards whether a communicator
was entered before or after its step had been recorded.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit, urlunsplit

from operon.database import testbed
from operon.database.connection import connect, is_weather
from operon.database.embedded import EmbeddedPostgres
from operon.testing import with_database
from tests.chaos import application
from tests.chaos.proxy import SOCKET

DATABASE = "operon_test_chaos"
SETTINGS = {"track_commit_timestamp": "on", "log_min_messages": "error", "log_line_prefix": "%e "}
REFUSAL = re.compile(r"^(\w{5}) (?:ERROR|FATAL):  (.*)$", re.MULTILINE)
ASK_SECONDS = 60.0


class Server:
    """The server, its database, and a connection to look at both."""

    def __init__(self, folder: Path) -> None:
        self._postgres = EmbeddedPostgres(folder / "postgres")
        self._admin: Any = None
        self._pid = 0
        self._log = Path()
        self._kept = folder / "postgres.log"
        self._url = ""
        self._harvested = 0  # how much of the log
        self.refusals: Counter[str] = Counter()

    async def start(self) -> None:
        """Makes it, with the database and its tables."""
        server = await asyncio.to_thread(self._postgres.start, production=False)
        for name, value in SETTINGS.items():
            await testbed.execute(server, f"alter system set {name} = '{value}'")
        await asyncio.to_thread(self._postgres.stop)
        server = await asyncio.to_thread(self._postgres.start, production=False)
        await testbed.create_database(server, DATABASE)
        self._url = with_database(server, DATABASE)
        await testbed.execute(self._url, application.TABLES)
        await self._look()

    async def _look(self) -> None:
        data = Path(await self.ask("show data_directory"))
        self._pid = int((await self.ask("select pg_read_file('postmaster.pid')")).split()[0])
        self._log = data / "server.log"

    @property
    def socket(self) -> Path:
        """Where it listens."""
        return Path(parse_qs(urlsplit(self._url).query)["host"][0]) / SOCKET

    def url(self, folder: Path | None = None) -> str:
        """The database's; through the socket in a folder, if there is one."""
        if folder is None:
            return self._url
        return urlunsplit(urlsplit(self._url)._replace(query=f"host={folder}&port=5432"))

    async def fetch(self, question: str, *args: Any) -> list[Any]:
        """The rows of a question; asked again while the server is away."""
        async with asyncio.timeout(ASK_SECONDS):
            while True:
                try:
                    if self._admin is None or self._admin.is_closed():
                        self._admin = await connect(self._url, {"application_name": "chaos"})
                    rows: list[Any] = await self._admin.fetch(question, *args)
                    return rows
                except Exception as error:
                    if not is_weather(error):
                        raise
                await asyncio.sleep(0.05)

    async def ask(self, question: str, *args: Any) -> Any:
        """The first column of the first row; None without one."""
        rows = await self.fetch(question, *args)
        return rows[0][0] if rows else None

    async def lock(self, table: str, seconds: float) -> bool:
        """Keeps everybody out of a table of ours for so long; False if that was cut short."""
        try:
            connection = await connect(self._url, {"application_name": "chaos"})
            try:
                async with connection.transaction():
                    await connection.execute(f"lock table operon.{table}")
                    await asyncio.sleep(seconds)
            finally:
                connection.terminate()
        except Exception as error:
            if not is_weather(error):
                raise
            return False
        return True

    async def crash(self) -> None:
        """`pg_ctl stop -m immediate`, and a start at once: all that a power failure does, but the power."""
        os.kill(self._pid, signal.SIGQUIT)
        with contextlib.suppress(ProcessLookupError):
            while True:
                os.kill(self._pid, 0)
                await asyncio.sleep(0.01)
        self.harvest()
        await asyncio.to_thread(self._postgres.start, production=False)
        self._harvested = 0  # each start begins another log
        await self._look()

    def harvest(self) -> None:
        """Counts what it has refused since the last time."""
        log = self._log.read_bytes()
        said, self._harvested = log[self._harvested :].decode(errors="replace"), len(log)
        with self._kept.open("a") as kept:
            kept.write(said)
        for state, text in REFUSAL.findall(said):
            what = "23502 of a checkpoint" if state == "23502" and '"checkpoints"' in text else state
            self.refusals[what] += 1

    async def stop(self) -> None:
        """Ends and removes it."""
        if self._admin is not None:
            self._admin.terminate()
        await asyncio.to_thread(self._postgres.remove)
