"""`operon start --workers N`: one port, N processes that serve it, and a parent that does nothing but keep them.

Hypercorn has workers of its own. They are not used: they end all together when one of them dies, and know neither when
one is ready nor that an executor has to drain. What is needed is small:

- **The parent binds the port once**, and each worker inherits the listening socket. So connections that nobody has
  accepted yet wait in one queue of the kernel, and a worker that goes, or is killed, takes none of them along.
  (SO_REUSEPORT spreads connections more evenly, but gives each worker a queue that dies with it.)
- **A worker is a fresh interpreter**, `python -m operon.cli start ...`, never a fork of a process that has an event
  loop and threads. The parent imports the application for its settings, and starts the embedded Postgres; no more.
- **A pair of sockets joins a worker to its parent.** The worker says on it that it serves; and the end of the parent,
  whatever it died of, is the end of the file, upon which the worker drains. No process id is ever guessed.
- **A worker that dies is replaced,** at once the first time, ever later when it does not stay up. Its workflows do not
  wait for that: the other workers are executors of their own, and take them over.

    start       the first worker alone: what is wrong with the application or the database is said once, and ends it all
    serving     all of them; SIGTERM and Ctrl-C begin the end
    stopping    SIGTERM to each, which drains; `shutdown_seconds` later whoever is still there is killed
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence

from actors import Backoff
from operon.masking import masked_logger

logger = masked_logger("operon.workers")

BACKOFF = Backoff(first=0.1, longest=30.0, jitter=False)
STEADY_SECONDS = 10.0  # who served that long did not fail at its start
FAILURES_MAX = 8  # in a row, of one worker, while none serves: then it is not the worker; 13 seconds of trying
GRACE_SECONDS = 3.0  # for a worker whose drain took all of its time: to say so, and to hand its work over

READY = b"1"


class Worker:
    """One place among the workers, and the process that fills it now."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.ready = asyncio.Event()
        self.failures = 0  # in a row
        self.process: asyncio.subprocess.Process | None = None

    async def live(self, command: Sequence[str], listening: socket.socket) -> int:
        """One process, from its start to its end; gives its exit code, negative for a signal."""
        ours, theirs = socket.socketpair()
        with ours:
            ours.setblocking(False)
            with theirs:
                fds = (listening.fileno(), theirs.fileno())
                self.process = process = await asyncio.create_subprocess_exec(
                    *command, "--worker", f"{fds[0]},{fds[1]}", pass_fds=fds, stdin=asyncio.subprocess.DEVNULL,
                    process_group=0,  # a Ctrl-C is for the parent, which tells them
                )  # fmt: skip
            began = time.monotonic()
            if await asyncio.get_running_loop().sock_recv(ours, 1) == READY:
                self.ready.set()
                logger.info("worker %d serves, process %d", self.number, process.pid)
            code = await process.wait()
            steady = self.ready.is_set() and time.monotonic() - began > STEADY_SECONDS
            self.failures = 1 if steady else self.failures + 1
            self.ready.clear()
            return code

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to its process, if there is one."""
        if self.process is not None and self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)

    def __repr__(self) -> str:
        state = "serving" if self.ready.is_set() else f"{self.failures} failures"
        return f"<Worker {self.number}: {state}>"


class Workers:
    """The workers of one port."""

    def __init__(self, count: int, command: Sequence[str], listening: socket.socket, shutdown_seconds: float) -> None:
        self._command = command
        self._listening = listening
        self._shutdown_seconds = shutdown_seconds
        self._workers = [Worker(number) for number in range(1, count + 1)]
        self._stop = asyncio.Event()
        self._given_up = False
        self._is_beginning = True  # until the first worker serves

    def stop(self) -> None:
        """Begins the end."""
        self._stop.set()

    async def run(self, started: Callable[[], object]) -> int:
        """Keeps the workers until `stop`; gives the exit code. `started` is called once when all of them serve."""
        keepers: list[asyncio.Task[None]] = []
        announcing: asyncio.Task[None] | None = None
        try:
            for worker in self._workers:
                keepers.append(asyncio.create_task(self._keep(worker)))
                if len(keepers) == 1 and not await self._first(worker):
                    return await self._end(keepers)
            announcing = asyncio.create_task(self._announce(started))
            await self._stop.wait()
            return await self._end(keepers)
        finally:
            if announcing is not None:
                announcing.cancel()
            for worker in self._workers:
                worker.signal(signal.SIGKILL)

    async def _keep(self, worker: Worker) -> None:
        """Fills a worker's place again and again."""
        while not self._stop.is_set():
            code = await worker.live(self._command, self._listening)
            if self._stop.is_set():
                return
            if (worker is self._workers[0] and self._is_beginning) or self._is_hopeless(worker):
                self._given_up = True
                self._stop.set()
                return
            pause = BACKOFF.delay(worker.failures)
            logger.warning("worker %d ended with %s; another one starts in %.1f s", worker.number, told(code), pause)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), pause)

    async def _first(self, worker: Worker) -> bool:
        """Waits for the first worker; whether the others may start."""
        waits = [asyncio.create_task(event.wait()) for event in (worker.ready, self._stop)]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        self._is_beginning = False
        return not self._stop.is_set()

    def _is_hopeless(self, worker: Worker) -> bool:
        return worker.failures >= FAILURES_MAX and not any(other.ready.is_set() for other in self._workers)

    async def _announce(self, started: Callable[[], object]) -> None:
        for worker in self._workers:
            await worker.ready.wait()
        started()

    async def _end(self, keepers: Sequence[asyncio.Task[None]]) -> int:
        """Tells each worker to go, and waits."""
        for worker in self._workers:
            worker.signal(signal.SIGTERM)
        _, late = await asyncio.wait(keepers, timeout=self._shutdown_seconds + GRACE_SECONDS)
        if late:
            logger.error("%d workers did not end within shutdown_seconds, and are killed", len(late))
            for worker in self._workers:
                worker.signal(signal.SIGKILL)
            await asyncio.wait(late)
        return 1 if late or self._given_up else 0

    def __repr__(self) -> str:
        return f"<Workers {self._workers!r}>"


def told(code: int) -> str:
    """An exit code in words."""
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name


def command() -> list[str]:
    """This command again, in a fresh interpreter."""
    return [sys.executable, "-m", "operon.cli", *sys.argv[1:]]


def inherited(worker: str) -> tuple[socket.socket, socket.socket]:
    """In a worker: the listening socket, and the one that joins it to its parent."""
    listening, parent = (socket.socket(fileno=int(fd)) for fd in worker.split(","))
    for each in (listening, parent):
        os.set_inheritable(each.fileno(), False)
        each.setblocking(False)
    return listening, parent
