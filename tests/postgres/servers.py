"""Servers of a test's own, from the system's packages: a PostgreSQL that it may break, and a PgBouncer.

On Debian: `apt-get install postgresql postgresql-contrib pgbouncer`. Where they are missing, the tests that need them
say so and are skipped. Everything listens on a free port of the loopback, and keeps its files in a folder of its own.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.ports import free_port

START_SECONDS = 60.0
SOMEBODY = "postgres"  # whom root runs them as: both refuse to be root
QUIET = {"fsync": "off", "log_min_messages": "panic", "max_wal_size": "256MB", "shared_buffers": "32MB"}


def programs() -> Path:
    """The folder of the newest `initdb` and `postgres`; skips the test where there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name))
    if not found:
        pytest.skip("needs a PostgreSQL of the system: apt-get install postgresql postgresql-contrib")
    return found[-1]


def somebody() -> dict[str, Any]:
    """How a process is started as somebody who is not root."""
    if os.geteuid() != 0:
        return {}
    user = pwd.getpwnam(SOMEBODY)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def as_somebody(*command: Path | str) -> None:
    """Runs a program to its end. Raises with what it said."""
    run: Any = subprocess.run  # whose overloads do not see through somebody()
    done = run([str(part) for part in command], capture_output=True, cwd="/tmp", **somebody())
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()


@asynccontextmanager
async def own_folder() -> AsyncGenerator[Path]:
    """An empty folder that such a process may write in."""
    folder = Path(tempfile.mkdtemp(prefix="operon-server-", dir="/tmp"))
    give(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def give(path: Path) -> None:
    """Makes a file or a folder theirs."""
    if os.geteuid() == 0:
        user = pwd.getpwnam(SOMEBODY)
        os.chown(path, user.pw_uid, user.pw_gid)


class Server:
    """A PostgreSQL on a data directory; on a free port, or only on a socket, as the embedded one is."""

    def __init__(self, data: Path, *, only_socket: bool = False) -> None:
        self.data = data
        self.port = 5432 if only_socket else free_port()
        self.url = f"postgresql://boss@127.0.0.1:{self.port}/postgres?sslmode=disable"
        self._address = "127.0.0.1"
        if only_socket:
            self.url = f"postgresql://boss:none@/postgres?host={data}&port=5432"
            self._address = ""
        self._process: asyncio.subprocess.Process | None = None

    def make(self, **settings: str) -> None:
        """A new cluster."""
        as_somebody(programs() / "initdb", "-D", self.data, "-U", "boss", "-A", "trust", "--no-sync", "-E", "UTF8")
        self.set(**QUIET, **settings)

    def set(self, **settings: str) -> None:
        """Lines of its configuration, from the next start on."""
        with (self.data / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in settings.items())

    async def start(self) -> None:
        """Runs it, and waits until it answers."""
        self._process = await asyncio.create_subprocess_exec(
            str(programs() / "postgres"), "-D", str(self.data), "-p", str(self.port),
            "-c", f"listen_addresses={self._address}", "-c", f"unix_socket_directories={self.data}",
            cwd="/tmp", **somebody(),
        )  # fmt: skip
        async with asyncio.timeout(START_SECONDS):
            while not await answers(self.url):
                assert self._process.returncode is None, "the server ended"
                await asyncio.sleep(0.05)

    async def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT ends its sessions; SIGQUIT is what a power cut does."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(how)
            await self._process.wait()

    async def execute(self, statement: str) -> None:
        """Runs a statement as the superuser."""
        await execute(self.url, statement)


async def execute(url: str, statement: str) -> None:
    connection: Any = await asyncpg.connect(url, statement_cache_size=0)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def answers(url: str) -> bool:
    with suppress(OSError, asyncpg.PostgresError):
        await execute(url, "select 1")
        return True
    return False


@asynccontextmanager
async def postgres(*, only_socket: bool = False, **settings: str) -> AsyncGenerator[Server]:
    """A running server, which is gone afterwards."""
    programs()
    async with own_folder() as folder:
        server = Server(folder / "data", only_socket=only_socket)
        await asyncio.to_thread(server.make, **settings)
        await server.start()
        try:
            yield server
        finally:
            await server.stop()


@asynccontextmanager
async def pgbouncer(server: Server, mode: str = "transaction", **settings: Any) -> AsyncGenerator[str]:
    """The URL of the server's database through a PgBouncer."""
    program = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        pytest.skip("needs PgBouncer: apt-get install pgbouncer")
    port = free_port()
    lines: Mapping[str, Any] = {
        "listen_addr": "127.0.0.1", "listen_port": port, "unix_socket_dir": "", "auth_type": "any",
        "pool_mode": mode, "default_pool_size": 5, "max_client_conn": 500, "log_connections": 0,
        "log_disconnections": 0, "log_stats": 0, **settings,
    }  # fmt: skip
    async with own_folder() as folder:
        file = folder / "pgbouncer.ini"
        options = "\n".join(f"{name} = {value}" for name, value in lines.items())
        file.write_text(f"[databases]\n* = host=127.0.0.1 port={server.port} user=boss\n[pgbouncer]\n{options}\n")
        give(file)
        process = await asyncio.create_subprocess_exec(program, "-q", str(file), cwd="/tmp", **somebody())
        url = f"postgresql://boss@127.0.0.1:{port}/postgres?sslmode=disable"
        try:
            async with asyncio.timeout(START_SECONDS):
                while not await answers(url):
                    assert process.returncode is None, "PgBouncer ended"
                    await asyncio.sleep(0.05)
            yield url
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()
