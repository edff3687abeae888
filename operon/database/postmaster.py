"""The server process of a data directory: whether it runs, how to reach it, and how to end it.

The rule: believe no file alone. `postmaster.pid` outlives a crash, and its number may live again as a stranger's. So a
process counts only if it serves this data directory, and a socket only if it answers from a folder of its user alone.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import stat
import time
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from operon.database.programs import Owner
from operon.errors import DatabaseUnusable

POLL_SECONDS = 0.01
_STOP_SECONDS = 60.0

_SOCKET = ".s.PGSQL.5432"


class State(Enum):
    ABSENT = "no server"
    BUSY = "starting, recovering or shutting down"
    DEAF = "running, but its socket is gone: a cleaner of /tmp has been there"


@dataclass(frozen=True, slots=True)
class LockFile:
    """What a postmaster writes to `postmaster.pid` (Postgres manual, section 66.1; the lines are in miscadmin.h)."""

    pid: int
    ready: bool

    @classmethod
    def read(cls, data: Path) -> LockFile | None:
        """None if there is none, if it is still being written, or if a crash of the machine left it empty."""
        try:
            lines = (data / "postmaster.pid").read_text(errors="replace").splitlines()
            return cls(int(lines[0]), "ready   " in lines[7:])
        except (FileNotFoundError, ValueError, IndexError):
            return None


def look(data: Path) -> State:
    """What the server of this data directory is doing."""
    lock_file = LockFile.read(data)
    if lock_file is None or not is_postmaster(lock_file.pid, data):
        return State.ABSENT
    return State.DEAF if lock_file.ready else State.BUSY


def halt(home: Path) -> bool:
    """End the server, sessions and all, and wait until it is gone. Returns whether there was one to end."""
    lock_file = LockFile.read(home / "data")
    if lock_file is None or not is_postmaster(lock_file.pid, home / "data"):
        return False
    # Fast: sessions are ended, then a checkpoint. Immediate, if that does not end: the next start recovers.
    for number, seconds in ((signal.SIGINT, _STOP_SECONDS), (signal.SIGQUIT, 10.0)):
        deadline = time.monotonic() + seconds
        with suppress(ProcessLookupError):
            os.kill(lock_file.pid, number)
        while time.monotonic() < deadline:
            if not is_postmaster(lock_file.pid, home / "data"):
                for folder in socket_folders(home):
                    with suppress(OSError):
                        folder.rmdir()
                return True
            time.sleep(POLL_SECONDS)
    raise DatabaseUnusable(
        f"The embedded Postgres in {home} (process {lock_file.pid}) does not stop.",
        hint=f"see {home / 'data' / 'server.log'}, and end the process yourself.",
    )


def remove_stale_lock_file(data: Path) -> None:
    """Remove the lock file of a server that is gone, where Postgres would not dare to: if its number lives again.

    Called when no server runs. Were this wrong, Postgres would still notice by the shared memory of the other one.
    """
    import psutil

    lock_file = LockFile.read(data)
    if lock_file is None or psutil.pid_exists(lock_file.pid):
        (data / "postmaster.pid").unlink(missing_ok=True)


def socket_folders(home: Path) -> list[Path]:
    """Where the socket may be: `home/socket`, or a private folder under /tmp, named after the data directory.

    A socket's path has 107 bytes, and some shared mounts hold no sockets. Not in XDG_RUNTIME_DIR, which goes when the
    user logs out; cleaners of /tmp spare living sockets. By inode, so that a copy of the folder gets another one.
    """
    data = (home / "data").stat()
    short = Path("/tmp") / f"operon-{data.st_uid}-{data.st_dev:x}-{data.st_ino:x}"  # noqa: S108 - see _is_private
    # What a DSN, a shell and a Postgres list carry without quoting.
    plain = re.fullmatch(r"[A-Za-z0-9_./-]+", str(home)) is not None
    return [home / "socket", short] if plain else [short]


def make_socket_folder(home: Path, owner: Owner | None) -> Path:
    """The first of the folders that will do, without what a dead server left in it."""
    folders = socket_folders(home)
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


def answers(folder: Path, home: Path) -> bool:
    """Whether a server listens in this socket folder, and nobody else can have put it there."""
    try:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.setblocking(False)
            probe.connect(str(folder / _SOCKET))
    except BlockingIOError:
        pass  # its backlog is full: busy, but alive
    except OSError:
        return False
    return _is_private(folder, home)


def is_postmaster(pid: int, data: Path) -> bool:
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
