"""Promise: what happens to a server in real life is weather, or is said with what to do about it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

import operon
from operon.cli.grants import grants
from operon.database.connection import connect_at_start
from operon.database.migrate import migrate
from operon.errors import DatabaseUnusable
from tests.postgres import workload
from tests.postgres.servers import Server, execute, give, own_folder, postgres

WORKFLOWS = 60


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with postgres(max_connections="40") as server:
        await workload.prepare(server.url)
        yield server


@asynccontextmanager
async def under_load(server: Server, url: str | None = None, **settings: Any) -> AsyncGenerator[operon.Operon]:
    """An application in the middle of its work; at the end all of it has to be done, once, and by the same executor."""
    app = operon.Operon(workload, database_url=url or server.url, **settings)
    async with app:
        number = app.executor.incarnation.number
        workload.CALLS.clear()
        handles = [await workload.everything(app.context()) for _ in range(WORKFLOWS)]
        await workload.begun()
        yield app
        handles += [await workload.everything(app.context()) for _ in range(5)]
        await workload.finished(handles)
        assert app.executor.incarnation.number == number
    await workload.assert_once(server.url, WORKFLOWS + 5)


async def test_a_server_that_is_restarted_at_once_is_weather(server: Server) -> None:
    async with under_load(server):
        for _ in range(2):
            await server.stop(signal.SIGQUIT)
            await server.start()


async def test_a_table_that_somebody_locks_for_five_seconds_is_weather(server: Server) -> None:
    async with under_load(server):
        locking: Any = await asyncpg.connect(server.url)
        async with locking.transaction():
            await locking.execute("lock table operon.workflows")
            await locking.execute("select pg_sleep(5)")
        await locking.close()


async def test_a_role_whose_statements_may_not_take_long_runs_workflows(server: Server) -> None:
    await server.execute("create role hasty superuser login")
    await server.execute("alter role hasty set statement_timeout = '300ms'")

    async with under_load(server, server.url.replace("boss@", "hasty@")):
        locking: Any = await asyncpg.connect(server.url)
        async with locking.transaction():
            await locking.execute("lock table operon.workflows")
            await locking.execute("select pg_sleep(2)")
        await locking.close()


async def test_a_server_whose_connections_are_taken_is_waited_for_and_that_is_said_once(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    async with under_load(server, pool_size=30), AsyncExitStack() as stack:
        await server.execute("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'operon'")
        while True:
            try:
                connection: Any = await asyncpg.connect(server.url)
            except asyncpg.TooManyConnectionsError:
                break
            stack.push_async_callback(connection.close)
        await asyncio.sleep(3)  # as long as it lasts

    said = [record.getMessage() for record in caplog.records if "too many clients" in record.getMessage()]
    assert len(said) <= 6, said


async def test_a_server_whose_connections_are_all_taken_at_the_start_is_said(server: Server) -> None:
    async with AsyncExitStack() as stack:
        while True:
            try:
                connection: Any = await asyncpg.connect(server.url)
            except asyncpg.TooManyConnectionsError:
                break
            stack.push_async_callback(connection.close)

        with pytest.raises(DatabaseUnusable, match="too many clients"):
            async with operon.Operon(workload, database_url=server.url):
                pass


async def test_a_role_without_ddl_runs_workflows(server: Server) -> None:
    await server.execute(grants("shop_owner", "shop_app"))
    await server.execute("grant all on ledger to shop_app")
    connection = await connect_at_start(server.url.replace("boss@", "shop_owner@"))
    await migrate(connection)
    await connection.close()

    async with under_load(server, server.url.replace("boss@", "shop_app@")):
        pass


async def test_a_role_that_may_not_migrate_is_told_who_may(server: Server) -> None:
    await server.execute("create role nobody_much login")

    with pytest.raises(DatabaseUnusable, match="may not migrate") as refused:
        async with operon.Operon(workload, database_url=server.url.replace("boss@", "nobody_much@")):
            pass

    assert "operon migrate" in str(refused.value.hint)


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


def make_certificates(folder: Path) -> None:
    """An authority, and a server's certificate for 127.0.0.1 from it."""
    openssl(folder, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.pem",
            "-days", "2", "-subj", "/CN=test authority")  # fmt: skip
    openssl(folder, "req", "-newkey", "rsa:2048", "-nodes", "-keyout", "server.key", "-out", "server.csr",
            "-subj", "/CN=127.0.0.1")  # fmt: skip
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    openssl(folder, "x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
            "-out", "server.pem", "-days", "2", "-extfile", "names")  # fmt: skip
    for file in folder.iterdir():
        file.chmod(0o600)
        give(file)
    (folder / "ca.pem").chmod(0o644)


async def test_a_server_with_a_certificate_is_verified() -> None:
    async with own_folder() as folder:
        folder.chmod(0o755)
        await asyncio.to_thread(make_certificates, folder)
        certificate, key = f"{folder}/server.pem", f"{folder}/server.key"
        async with postgres(ssl="on", ssl_cert_file=certificate, ssl_key_file=key) as server:
            await workload.prepare(server.url)
            url = server.url.replace("sslmode=disable", f"sslmode=verify-full&sslrootcert={folder}/ca.pem")

            async with under_load(server, url):
                secured = await workload.value(server.url, SECURED)
            with pytest.raises(DatabaseUnusable, match="certificate"):
                async with operon.Operon(workload, database_url=url.replace("127.0.0.1", "localhost")):
                    pass

    assert secured == 1.0


SECURED = """
    select avg(ssl::int)::float8 from pg_stat_ssl join pg_stat_activity using (pid)
    where application_name = 'operon' and pid <> pg_backend_pid()
"""


@asynccontextmanager
async def small_disk(megabytes: int) -> AsyncGenerator[Path]:
    """A folder on a disk of its own, which only root can make."""
    async with own_folder() as folder:
        if not ran("mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=777", "none", str(folder)):
            pytest.skip("needs root, and the right to mount a file system")
        try:
            yield folder
        finally:
            ran("umount", "-l", str(folder))


def ran(*command: str) -> bool:
    return subprocess.run(command, capture_output=True).returncode == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount a small disk")
async def test_a_full_disk_is_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    async with small_disk(200) as disk:
        server = Server(disk / "data")
        await asyncio.to_thread(server.make, wal_init_zero="on")
        await server.start()
        try:
            await workload.prepare(server.url)
            async with under_load(server):
                filled = fill(disk / "filler")
                assert filled
                with pytest.raises(asyncpg.DiskFullError):
                    await execute(
                        server.url, "create table big as select repeat('x', 500) from generate_series(1, 20000)"
                    )
                await asyncio.sleep(1)  # as long as it lasts
                (disk / "filler").unlink()
        finally:
            await server.stop()

    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def fill(file: Path) -> int:
    """Writes until there is no room; how many bytes."""
    written = 0
    with file.open("wb", buffering=0) as out:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    written += out.write(bytes(size))
            except OSError:
                continue
    return written
