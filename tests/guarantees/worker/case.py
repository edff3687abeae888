"""One database, the lives that are spent on it, and what has to be true of them in the end.

After each life the checkpoints are looked at, when nothing of that process can still commit. So it is known what was
recorded when the next life began, and what a communicator of that life may do no more.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import secrets
import signal
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import psutil

from operon.database import testbed
from operon.database.connection import connect
from operon.database.stock import stock_of
from operon.testing import with_database
from tests.guarantees.worker import application, witness
from tests.guarantees.worker.life import Start, live
from tests.guarantees.worker.sites import Site
from tests.guarantees.worker.witness import Call, Witness

DEADLINE_SECONDS = 60.0  # for facts that come in well under a second on an idle machine

forks = multiprocessing.get_context("forkserver")
forks.set_forkserver_preload(["__main__", "tests.guarantees.worker.life"])

SNAPSHOT = """
select workflow_uuid, step, name, md5(c::text) as hash from operon.checkpoints c
"""
OUTCOMES = """
select workflow_uuid, status, md5(concat(output, error)) as hash from operon.workflows where status <> 0
"""
BACKENDS = """
select count(*) from pg_stat_activity
where datname = current_database() and application_name = 'operon'
"""
EMPTY = """
select format('delete from %I.%I', schemaname, tablename) from pg_tables
where schemaname in ('operon', 'public') and tablename <> 'migrations'
"""
LEDGER = """
select l.workflow_uuid, l.what, l.value, c.step,
    (select count(*) from operon.checkpoints o where o.workflow_uuid = l.workflow_uuid and o.xmin = l.xmin
        and (o.name = l.what or o.name like '%''' || l.what || '''%')) as written_with
from ledger l
left join operon.checkpoints c on c.workflow_uuid = l.workflow_uuid and c.xmin = l.xmin
    and (c.name = l.what or c.name like '%''' || l.what || '''%')
"""


class Server:
    """Has a database for every case. A case that is over leaves its own to the next: emptying is faster than making."""

    def __init__(self, url: str, witness: Witness, socket: Path, folder: Path) -> None:
        self.url = url
        self.databases: list[str] = []
        self._free: list[str] = []
        self._stock = stock_of(url)
        self.witness = witness
        self.socket = socket
        self.folder = folder

    @asynccontextmanager
    async def case(self, name: str, **settings: Any) -> AsyncGenerator[Case]:
        """An empty database; processes that are left at the end are killed. `settings`: other ones than of a life."""
        database = self._free.pop() if self._free else await self._another()
        connection: Any = await connect(database, {"application_name": "the case"})
        case = Case(name, self, database, connection, settings)
        try:
            yield case
        finally:
            for process in case.processes:
                process.kill()
            await until(case.is_quiet)
            for (statement,) in await connection.fetch(EMPTY):
                await connection.execute(statement)
            await connection.close()
            self._free.append(database)

    def close(self) -> None:
        """Gives all databases back, which are removed while the next test goes on."""
        for name in self.databases:
            self._stock.give_back(name)

    async def _another(self) -> str:
        name = await self._stock.take()
        self.databases.append(name)
        url = with_database(self.url, name)
        await testbed.execute(url, application.LEDGER)
        return url


class Case:
    """A database and the processes on it, one after another or side by side."""

    def __init__(self, name: str, server: Server, url: str, connection: Any, settings: Mapping[str, Any]) -> None:
        self.name = name
        self.url = url
        self.witness = server.witness
        self.connection = connection
        self.processes: list[ForkServerProcess] = []
        self.snapshots: list[dict[tuple[UUID, int], str]] = [{}]
        self.outcomes: dict[UUID, str] = {}
        self._settings = settings
        self._server = server
        self._id = f"{name} {secrets.token_hex(4)}"

    # ------------------------------------------------------------------ lives

    def begin(
        self,
        starts: Sequence[Start],
        *sites: Site,
        afterwards: Sequence[Start] = (),
        stay: bool = False,
    ) -> ForkServerProcess:
        """Begins a life. At the sites something happens to it."""
        number = len(self.processes)
        environment = {
            **self.environment(number),
            "STARTS": msgspec.json.encode(starts).decode(),
            "AFTERWARDS": msgspec.json.encode(afterwards).decode(),
            "STAY": "1" if stay else "",
            "KILL": msgspec.json.encode(sites).decode(),
            "TRACE": str(self.trace_of(number)),
            "LOG": str(self._server.folder / f"{self._id.rpartition(' ')[2]}.log"),
        }
        process = forks.Process(target=live, args=(environment,), daemon=True)
        process.start()
        self.processes.append(process)
        return process

    def environment(self, life: int) -> dict[str, str]:
        """What every process of this case is told."""
        return {
            "OPERON_DATABASE_URL": self.url,
            "WITNESS": str(self._server.socket),
            "CASE": self._id,
            "LIFE": str(life),
            "SETTINGS": msgspec.json.encode(self._settings).decode(),
            # What it was when the server process of the forks began may be another test's.
            "OPERON_PARK_AFTER_SECONDS": os.environ.get("OPERON_PARK_AFTER_SECONDS", ""),
        }

    def trace_of(self, life: int) -> Path:
        return self._server.folder / f"{self._id.rpartition(' ')[2]}.{life}.trace"

    def labels(self, life: int) -> list[str]:
        """The labels of the messages of a life, in the order of sending."""
        path = self.trace_of(life)
        return path.read_text().splitlines() if path.exists() else []

    async def ended(self, process: ForkServerProcess) -> int:
        """Waits for the end of a life, and until the server has let go of it; its exit code, negative for a signal."""
        gone = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(process.sentinel, gone.set)
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                await gone.wait()
        finally:
            loop.remove_reader(process.sentinel)
        process.join()
        return process.exitcode or 0

    async def settled(self) -> None:
        """Waits until nothing of a dead process can commit any more, then compares with what was recorded before."""
        await until(self.is_quiet)
        await self.look()

    async def is_quiet(self) -> bool:
        """Whether no process of the application is connected, and so none can still commit."""
        return bool(await self.connection.fetchval(BACKENDS) == 0)

    async def look(self) -> None:
        """A snapshot: what was recorded earlier is there and unchanged."""
        rows = await self.connection.fetch(SNAPSHOT)
        snapshot = {(row["workflow_uuid"], row["step"]): row["hash"] for row in rows}
        for place, hash in self.snapshots[-1].items():
            assert snapshot.get(place) == hash, f"{self}: checkpoint {place} has changed"
        outcomes = {row["workflow_uuid"]: row["hash"] for row in await self.connection.fetch(OUTCOMES)}
        for workflow, hash in self.outcomes.items():
            assert outcomes.get(workflow) == hash, f"{self}: the outcome of {workflow} has changed"
        self.snapshots.append(snapshot)
        self.outcomes = outcomes

    async def live(self, starts: Sequence[Start], *sites: Site) -> int:
        """A life from its beginning to its end; its exit code."""
        code = await self.ended(self.begin(starts, *sites))
        await self.settled()
        return code

    def again(self, starts: Sequence[Start]) -> list[Start]:
        """The same for the next life: who was told that his workflow began does not begin it again."""
        told = {news.workflow for news in self.news() if news.what == "started"}
        return [msgspec.structs.replace(start, begin=start.uuid not in told) for start in starts]

    # ------------------------------------------------------------------ what was heard

    def calls(self, life: int | None = None) -> list[Call]:
        """What the world heard of communicators and transactions, of one life or all."""
        return [c for c in self.witness.calls if c.case == self._id and life in (None, c.life)]

    def news(self, life: int | None = None) -> list[witness.News]:
        """What clients learned, in one life or all."""
        return [n for n in self.witness.news if n.case == self._id and life in (None, n.life)]

    def results(self) -> set[UUID]:
        """Whose results somebody has been told."""
        return {news.workflow for news in self.news() if news.what == "result"}

    def withhold(self, life: int, name: str) -> asyncio.Event:
        """Calls of this name in this life are answered when the event is set."""
        return self.witness.withhold(self._id, life, name)

    async def heard(self, fact: Callable[[], bool]) -> None:
        """Waits until the witness has heard something."""
        await self.witness.until(fact)

    # ------------------------------------------------------------------ what has to be true

    async def check(self, workflows: Sequence[UUID]) -> None:
        """Every promise, for workflows `everything` that have all ended."""
        await self.look()
        for workflow in workflows:
            await self.check_one(workflow)
        self.check_calls()
        await self.check_ledger()

    async def check_one(self, workflow: UUID) -> None:
        """Its result is what it should be, and what everyone was told; it has one child, and wrote everything once."""
        rows = await self.connection.fetch(
            "select workflow_uuid, status, output from operon.workflows where workflow_uuid = $1 or parent = $1 "
            "order by parent nulls first",
            workflow,
        )
        assert [row["status"] for row in rows] == [1, 1], f"{self}: one workflow and one child, both done: {rows}"
        result = msgspec.json.decode(rows[0]["output"])
        told = [news.value for news in self.news() if news.workflow == workflow and news.what != "started"]
        assert all(value == result for value in told), f"{self}: {told} was told, {result} is recorded"

        family = [row["workflow_uuid"] for row in rows]
        entries = await self.connection.fetch("select what, value from ledger where workflow_uuid = any ($1)", family)
        written = Counter(row["what"] for row in entries)
        assert written == application.LEDGER_OF_EVERYTHING, f"{self}: {written}"
        facts, luck, end = result["facts"], result["luck"], result["end"]
        assert result == application.expected(facts, luck, end), f"{self}: {result}"
        wrong = [
            row["value"] for row in entries if row["what"] == "repeatable_read" and row["value"] != f"{facts} {luck!r}"
        ]
        assert not wrong, f"{self}: drawn twice: {luck} and {wrong}"
        strays = [row["value"] for row in entries if not row["value"].startswith(result["facts"])]
        assert not strays, f"{self}: drawn twice: {result['facts']} and {strays}"

        calls = [call for call in self.calls() if call.workflow in family]
        strays = [call.payload for call in calls if call.payload != result["facts"]]
        assert not strays, f"{self}: drawn twice: {result['facts']} and {strays}"
        made = Counter((call.name, call.attempt) for call in calls if call.key != "inside")
        missing = application.CALLS_OF_EVERYTHING - made
        assert not missing, f"{self}: never called: {missing}"
        keys = {call.key for call in calls if call.key != "inside"}
        assert len(keys) == 6, f"{self}: six communicators, and the keys {keys}"

    def check_calls(self) -> None:
        """No communicator is called after it was recorded, nor twice in one life."""
        for call in self.calls():
            if call.key == "inside":
                continue
            place = UUID(call.key.split(":")[0]), int(call.key.split(":")[1])
            assert place[0] == call.workflow, f"{self}: {call} has the key of another"
            before = self.recorded_before(call.life)
            assert place not in before, f"{self}: {call} was called in life {call.life}, but was recorded before it"
        twice = [
            c
            for c, n in Counter((c.life, c.key, c.attempt) for c in self.calls() if c.key != "inside").items()
            if n > 1
        ]
        assert not twice, f"{self}: called twice in one life: {twice}"

    def recorded_before(self, life: int) -> dict[tuple[UUID, int], str]:
        """What was recorded when a life began."""
        return self.snapshots[life]

    async def check_ledger(self) -> None:
        """Each entry was committed by the database transaction that committed its checkpoint, and both ways round."""
        for row in await self.connection.fetch(LEDGER):
            assert row["written_with"] == 1, f"{self}: an entry without its checkpoint: {row}"
        kinds = await self.connection.fetch(
            "select count(*) filter (where kind in (0, 8) and error is null and name <> 'entries') as steps, "
            "(select count(*) from ledger) as entries from operon.checkpoints"
        )
        assert kinds[0]["steps"] == kinds[0]["entries"], f"{self}: {kinds}"

    def __repr__(self) -> str:
        return f"<Case {self.name}: {len(self.processes)} lives, log {self._id.rpartition(' ')[2]}>"


def kill(process: ForkServerProcess) -> None:
    os.kill(process.pid or 0, signal.SIGKILL)


async def is_stopped(process: ForkServerProcess) -> bool:
    assert process.is_alive(), "it ended instead of stopping"
    return bool(psutil.Process(process.pid).status() == psutil.STATUS_STOPPED)


async def until(fact: Callable[[], Awaitable[bool]]) -> None:
    """Waits for a fact that can only be looked at."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not await fact():  # noqa: ASYNC110 - what is in a database or a process table rings no bell
            await asyncio.sleep(0.01)


@asynccontextmanager
async def server(folder: Path) -> AsyncGenerator[Server]:
    """A server for the cases of a test file, and the witness of them all."""
    url = os.environ.get("OPERON_TEST_DATABASE_URL") or await testbed.embedded_server(Path(".operon/test-postgres"))
    socket = folder / "witness"
    async with witness.listening(socket) as heard:
        server = Server(url, heard, socket, folder)
        try:
            yield server
        finally:
            server.close()
