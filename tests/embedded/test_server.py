"""The embedded Postgres: one durable, private server per folder, whoever starts it and however they die."""

from __future__ import annotations

import os
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from operon.database import embedded
from operon.database.embedded import EmbeddedPostgres
from operon.errors import DatabaseUnusable
from tests.embedded.conftest import START_AND_WAIT, arguments, is_gone, postmaster, python, sql, start, until


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


def test_data_that_was_elsewhere_and_is_gone_is_not_silently_made_anew(new_folder: Path, place: Path) -> None:
    new_folder.mkdir(parents=True)
    (new_folder / "elsewhere").symlink_to(place / "gone")

    with pytest.raises(DatabaseUnusable, match="is gone"):
        start(new_folder)


def test_production_is_refused_before_anything_is_made(new_folder: Path) -> None:
    with pytest.raises(DatabaseUnusable, match="set database_url"):
        EmbeddedPostgres(new_folder).start(production=True)

    assert not new_folder.exists()


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
