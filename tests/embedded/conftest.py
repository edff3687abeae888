"""A Postgres server of its own for every test that asks, and what tests do to servers and see of them.

The cluster is created once, as that takes a second; nothing of it is left behind.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import asyncpg
import psutil
import pytest

from operon.database import programs
from operon.database.embedded import EmbeddedPostgres

REPOSITORY = Path(__file__).parents[2]

START_AND_WAIT = "print(server.start(production=False), flush=True)\nsys.stdin.read()"


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that every user can pass through, which pytest's own are not; no server of it is left behind."""
    place = Path(tempfile.mkdtemp(prefix="operon-test-"))
    place.chmod(0o755)
    yield place
    for lock_file in list(place.rglob("data/postmaster.pid")):
        EmbeddedPostgres(lock_file.parents[1]).stop()
    shutil.rmtree(place)


@pytest.fixture
def new_folder(place: Path) -> Path:
    return place / ".operon" / "postgres"


@pytest.fixture(scope="package")
def cluster() -> Iterator[Path]:
    """A folder whose database was created once, as that takes a second; for tests of what comes after."""
    place = Path(tempfile.mkdtemp(prefix="operon-test-"))
    place.chmod(0o755)
    start(place / "cluster")
    yield place / "cluster"
    EmbeddedPostgres(place / "cluster").stop()
    shutil.rmtree(place)


@pytest.fixture
def folder(cluster: Path) -> Iterator[Path]:
    """The cluster, stopped before and after the test."""
    EmbeddedPostgres(cluster).stop()
    yield cluster
    EmbeddedPostgres(cluster).stop()


@pytest.fixture
def running(cluster: Path) -> Path:
    """The cluster, running; for tests that only look."""
    start(cluster)
    return cluster


@pytest.fixture
def stores(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Root's stores, not those of this machine."""
    monkeypatch.setattr(programs, "_STORES", (place / "store",))
    return place / "store"


def start(folder: Path) -> str:
    return EmbeddedPostgres(folder).start(production=False)


def sql(dsn: str, query: str) -> Any:
    connect: Any = asyncpg.connect  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]

    async def fetch() -> Any:
        connection = await connect(dsn)
        try:
            return await connection.fetchval(query)
        finally:
            await connection.close()

    return anyio.run(fetch)


def postmaster(folder: Path) -> int:
    return int((folder / "data" / "postmaster.pid").read_text().split()[0])


def until(fact: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not fact():
        if time.monotonic() > deadline:
            pytest.fail("it never came true")


def is_gone(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def arguments(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


def kill(folder: Path) -> None:
    pid = postmaster(folder)
    os.kill(pid, signal.SIGKILL)
    until(lambda: is_gone(pid))


def python(code: str, folder: Path, **options: Any) -> subprocess.Popen[str]:
    """Another process, which has EmbeddedPostgres as `server`."""
    code = (
        "import signal, sys; from pathlib import Path; from operon.database.embedded import EmbeddedPostgres\n"
        # Tests that run in the background of a shell, or under nohup, hand down a Ctrl-C that is ignored.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"server = EmbeddedPostgres(Path(sys.argv[1]))\n{code}"
    )
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-W", "error", "-c", code, str(folder)]
    pipes = subprocess.PIPE
    return subprocess.Popen(command, env=environment, stdin=pipes, stdout=pipes, text=True, **options)
