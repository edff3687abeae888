"""A server is found by what is true of it, whatever a crash, a copy or a cleaner left lying about."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import pytest

from operon.database.embedded import EmbeddedPostgres
from tests.embedded.conftest import kill, postmaster, sql, start


def test_committed_data_survives_the_death_of_the_server(folder: Path) -> None:
    dsn = start(folder)
    sql(dsn, "create table kept_over_a_crash as select 42 as answer")
    kill(folder)

    again = start(folder)

    assert again == dsn
    assert sql(again, "select answer from kept_over_a_crash") == 42


def test_a_server_that_is_dead_is_not_taken_for_one_because_its_socket_still_answers(folder: Path) -> None:
    dsn = start(folder)
    kill(folder)
    path = Path(dsn.partition("host=")[2].partition("&")[0]) / ".s.PGSQL.5432"
    path.unlink()
    with socket.socket(socket.AF_UNIX) as held_by_a_child:
        held_by_a_child.bind(str(path))
        held_by_a_child.listen()

        found = EmbeddedPostgres(folder).url()
        again = start(folder)

        assert found is None
        assert again == dsn
        assert sql(again, "select 1") == 1


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


def test_a_link_too_long_for_a_socket_leads_to_the_server_that_runs(running: Path, place: Path) -> None:
    dsn = start(running)
    before = postmaster(running)
    link = place / ("long" * 40)
    link.symlink_to(running)

    found = EmbeddedPostgres(link).url()
    started = start(link)

    assert found == started == dsn
    assert postmaster(running) == before


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
