"""The embedded Postgres: PostgreSQL 18 out of a wheel, so that an application runs before anyone set up a database.

One server per folder, shared by every process that names the folder. The rules it keeps:

- **The server belongs to no process of ours.** It is a daemon in a session of its own, and outlives Ctrl-C, exit and
  `kill -9` of whoever started it; only `stop` ends it. So a running server is found, never remembered: by what it wrote
  to `postmaster.pid`, by its process, and by a connection to its socket. None of these needs a lock or a subprocess.
- **Its DSN stays the same over restarts,** so that other processes' pools find it again.
- **Starting and stopping happen under a file lock** (`flock` on the folder), and look again once they hold it.
- **The data directory appears whole or not at all.** `initdb` works in `new-*`, and a rename publishes it.
- **Nobody else connects.** Data and socket lie in 0700 directories, there is no TCP, and it asks for a random password.
- **Durable like any other:** fsync and synchronous_commit stay on.

    FOLDER/data        PGDATA; tunable in data/postgresql.conf, log of this start in data/server.log
    FOLDER/socket      the socket; under /tmp where this path is too long for one (see `postmaster.socket_folders`)
    FOLDER/password    of the superuser `operon`, 0600
    FOLDER/elsewhere   a link, for root only, to where the three above are when the server's user cannot enter FOLDER

Postgres refuses to run as root. Root therefore runs it under a user id that nobody has (see `programs.free_uid`). No
`useradd`, and no existing folder's permissions are widened: the wheel's own start-up code opens /root to all for this.

The wheel is never imported, only its programs are run: an import would write warnings, and a lock file in /tmp.
The process is in `postmaster`, the programs and the user who runs them in `programs`; here is what joins them.
POSIX only, as asyncpg has no Unix sockets on Windows; import this module when no `database_url` is given.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from anyio import to_thread

from operon.database import postmaster, programs
from operon.errors import DatabaseUnusable

DEFAULT_FOLDER = Path(".operon/postgres")

# For an orphaned initdb whose files vanish to notice. What is left after that is only untidy.
_ORPHAN_SECONDS = 5.0

# Written into postgresql.conf once, by initdb, so that a user can change them there.
_SETTINGS = {
    "fsync": "on",
    "synchronous_commit": "on",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "max_wal_size": "2GB",
    # The superuser is called as the runtime's schema is; by the default, `"$user", public`, an application's tables
    # would be made there, among the runtime's own.
    "search_path": "public",
    # Not in /dev/shm: systemd empties that when the user logs out (RemoveIPC; Postgres manual, section 18.4.2), and
    # containers give it 64 MB. Costs some disk writes, but only where a query runs in parallel.
    "dynamic_shared_memory_type": "mmap",
    # Nobody rotates this log, and clients get their errors anyway: a retry loop must not fill the disk with them.
    "log_min_messages": "log",
    "log_checkpoints": "off",
}


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
    """The DSN of the folder's server if it runs, else None. Takes well under a millisecond, the first time some 20."""
    return EmbeddedPostgres(folder).url()


class EmbeddedPostgres:
    """The Postgres server of one folder. Holds nothing but the path; all methods block."""

    def __init__(self, folder: Path = DEFAULT_FOLDER) -> None:
        # The real path: by a link, whose path may be too long for a socket, a server that is well would look deaf.
        self.folder = Path(os.path.realpath(folder))

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
            tools = programs.find_tools()
            deadline = time.monotonic() + programs.START_SECONDS
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._locked(deadline):
                return self._ensure_ready(tools, deadline)

    def stop(self) -> bool:
        """Stop the server, sessions and all, and keep the data. Returns whether there was one to stop."""
        with self._explained("stop"):
            if not self.folder.exists():
                return False
            with self._locked(time.monotonic() + programs.START_SECONDS):
                return postmaster.halt(self._home)

    def remove(self) -> None:
        """Stop the server and delete the folder with all its data, for good."""
        with self._explained("remove"):
            if not self.folder.exists():
                return
            with self._locked(time.monotonic() + programs.START_SECONDS):
                home = self._home
                postmaster.halt(home)
                if home.exists():
                    shutil.rmtree(home)
                if home != self.folder:
                    shutil.rmtree(self.folder)

    def url(self) -> str | None:
        """The DSN if the server runs and takes connections, else None."""
        with self._explained("look at"):
            home = self._home
            lock_file = postmaster.LockFile.read(home / "data")
            if lock_file is None or not lock_file.ready:
                return None
            # After a kill -9 a child that was just being started may hold the socket for a moment, and seem to answer.
            if not postmaster.is_postmaster(lock_file.pid, home / "data"):
                return None
            for folder in postmaster.socket_folders(home):
                if postmaster.answers(folder, home):
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
                    time.sleep(postmaster.POLL_SECONDS)
            yield
        finally:
            os.close(descriptor)

    def _ensure_ready(self, tools: Path, deadline: float) -> str:
        if not (self._home / "data").exists():
            self._create(tools)
        while time.monotonic() < deadline:
            # Looked at before it is called, or a server that becomes ready in between would be taken for a deaf one.
            state = postmaster.look(self._home / "data")
            if (dsn := self.url()) is not None:
                return dsn
            match state:
                case postmaster.State.ABSENT:
                    self._launch(tools, deadline)
                case postmaster.State.BUSY:
                    time.sleep(postmaster.POLL_SECONDS)
                case postmaster.State.DEAF:
                    postmaster.halt(self._home)
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
            self.folder.chmod(programs.home_mode())
            (self.folder / ".gitignore").write_text("*\n")
        if os.geteuid() == 0 and not programs.open_to_all(self.folder):
            home = programs.find_store() / hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:16]
            if home.exists():
                # Left by a folder of this path. Whoever deletes a data folder wants an empty one.
                postmaster.halt(home)
                shutil.rmtree(home)
            home.mkdir()
            home.chmod(programs.home_mode())
            self._init(tools, home)
            # Last, so that a start killed before this line leaves nothing that looks like lost data.
            (self.folder / "elsewhere").symlink_to(home)
        else:
            self._init(tools, self.folder)

    def _init(self, tools: Path, home: Path) -> None:
        # A name of its own: the initdb of a start that was killed may still be at work in another.
        for left in home.glob("new-*"):
            _remove_while_written(left)
        with tempfile.TemporaryDirectory(prefix="new-", dir=home, ignore_cleanup_errors=True) as name:
            new = Path(name)
            self._run_initdb(tools, new)
            if os.geteuid() == 0:
                uid = programs.free_uid(home)
                programs.give(new, programs.Owner(uid, uid))
            (new / "password").rename(home / "password")
            (new / "data").rename(home / "data")

    def _run_initdb(self, tools: Path, new: Path) -> None:
        password = new / "password"
        password.touch(mode=0o600)
        password.write_text(secrets.token_urlsafe(32))
        owner = None
        if os.geteuid() == 0:
            # initdb wants a user with a name; the server does not.
            owner = programs.Owner(named := programs.named_uid(), named)
            programs.give(new, owner)
        settings = [word for name, value in _SETTINGS.items() for word in ("-c", f"{name}={value}")]
        # The builtin C.UTF-8 sorts by code point, the same on every system and after every libc upgrade.
        locale = ["--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        secret = ["--username=operon", "--pwfile=password", "--auth=scram-sha-256"]
        done = programs.run([tools / "initdb", "--pgdata=data", *secret, *locale, *settings], folder=new, owner=owner)
        if done.returncode != 0:
            raise self._unusable("could not be created", done.stdout)

    def _launch(self, tools: Path, deadline: float) -> None:
        home = self._home
        data = (home / "data").resolve()
        owner = None
        if os.geteuid() == 0:
            status = data.stat()
            owner = programs.Owner(status.st_uid, status.st_gid)
        with suppress(FileNotFoundError):
            (data / "server.log").replace(data / "server.log.old")
        postmaster.remove_stale_lock_file(data)
        socket_folder = postmaster.make_socket_folder(home, owner)

        # pg_ctl puts --pgdata and --log into a shell command unquoted, so those are relative. The full path comes in
        # again through the options, where it can be quoted: it is how `postmaster.look` knows the process.
        options = shlex.join(["-D", str(data), "-c", "listen_addresses=", "-k", str(socket_folder)])
        seconds = max(1, int(deadline - time.monotonic()))
        flags = ["--pgdata=data", "--log=data/server.log", f"--options={options}", "--wait", f"--timeout={seconds}"]
        done = programs.run([tools / "pg_ctl", "start", *flags], folder=home, owner=owner)
        if done.returncode == 0:
            return
        said = _log(data) or done.stdout
        # After a kill -9 of the postmaster its children take a moment to notice; Postgres rightly waits for the last.
        if "pre-existing shared memory block" not in said:
            raise self._unusable("did not start", said)
        time.sleep(postmaster.POLL_SECONDS)

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


def _remove_while_written(folder: Path) -> None:
    """Delete a folder in which an orphan may still make files; it gives up once those it needs are gone."""
    deadline = time.monotonic() + _ORPHAN_SECONDS
    while folder.exists() and time.monotonic() < deadline:
        shutil.rmtree(folder, ignore_errors=True)


def _log(data: Path) -> str:
    try:
        return (data / "server.log").read_text(errors="replace")
    except FileNotFoundError:
        return ""
