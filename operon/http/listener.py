"""The socket, the connections on it, and how they end: Hypercorn's protocol in this event loop, as one child.

Hypercorn's own `serve` is not used, because it cannot be supervised: cancelling it starts its graceful shutdown, and
from Python 3.12 on that waits for every connection without a bound. Here a connection is a task that this file owns.

How it ends, and the rule it keeps: nothing waits longer than it was told to.
1. `stop` is set: the port is closed, idle connections too, streams see `quart.shutdown_event`.
2. Requests in flight finish, for at most `shutdown_seconds`.
3. What is left is cut. A cancelled `serve` begins here.
4. Quart's `after_serving` functions run.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Callable, Generator
from typing import cast

import anyio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.asyncio.worker_context import WorkerContext
from hypercorn.config import Config
from hypercorn.typing import ASGIFramework, ConnectionState
from quart import Quart

from operon.config import Settings
from operon.errors import ConfigurationError, PortInUse
from operon.http.guard import HEADER_BYTES_MAX, Guard
from operon.masking import masked_logger

BACKLOG = 1024
# Between the last connection that is accepted and the moment when idle ones are closed: for its request to arrive.
ARRIVING_SECONDS = 0.1
# For requests whose connection was cut: long enough to unwind, short enough for a supervisor that waits.
CUT_SECONDS = 1.0

logger = masked_logger("operon.http")


async def serve(
    quart: Quart,
    settings: Settings,
    started: Callable[[str], None],
    stop: asyncio.Event,
    listening: socket.socket | None = None,
) -> None:
    """Serves until `stop` is set and the requests in flight are answered, or until it is cancelled.

    started: called once with the URL that is bound, when connections are accepted. Port 0 is a free one.
    stop: begins the drain, which lasts `settings.shutdown_seconds` at most.
    listening: a socket that listens already, of several processes; closed here at the end.

    Runs Quart's before_serving and after_serving functions. Installs no signal handlers.
    Raises PortInUse, and ConfigurationError for an address that this machine does not have.
    """
    listening = listening or await listen(settings.host, settings.port)
    cleanup_seconds = CUT_SECONDS
    with contextlib.closing(listening):
        await quart.startup()
        connections = Connections(quart)
        try:
            server = await asyncio.start_server(connections.accept, sock=listening, backlog=BACKLOG)
            with closing_server(server):
                started(url_of(listening))
                await stop.wait()
            quart.shutdown_event.set()
            await asyncio.sleep(ARRIVING_SECONDS)
            await connections.drain(settings.shutdown_seconds)
            cleanup_seconds = settings.shutdown_seconds
        finally:
            with anyio.CancelScope(shield=True):
                await connections.cut()
                with anyio.move_on_after(cleanup_seconds):
                    await quart.shutdown()


class Connections:
    """The open connections, one task each."""

    __slots__ = ("_application", "_config", "_context", "_open")

    def __init__(self, quart: Quart) -> None:
        self._application = ASGIWrapper(cast("ASGIFramework", Guard(quart)))
        self._config = hypercorn_config()
        self._context = WorkerContext(None)
        self._open: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serves one connection until it is closed."""
        task = asyncio.current_task()
        if task is None or self._context.terminated.is_set():  # accepted in the moment that the port was closed
            writer.close()
            return
        self._open[task] = writer
        loop = asyncio.get_running_loop()
        try:
            await TCPServer(self._application, loop, self._config, self._context, ConnectionState({}), reader, writer)
        except Exception:
            logger.exception("a connection failed")
        except asyncio.CancelledError:
            return  # nobody waits for this task, and asyncio logs the cancellation of one as an error
        finally:
            del self._open[task]

    async def drain(self, seconds: float) -> None:
        """Closes idle connections and waits for the others, at most so long."""
        await self._context.terminated.set()
        if self._open:
            await asyncio.wait(list(self._open), timeout=seconds)

    async def cut(self) -> None:
        """Ends every connection at once, and its request. One that swallows its cancellation is left, and logged."""
        await self._context.terminated.set()
        if not self._open:
            return
        logger.warning("cutting %d connections", len(self._open))
        for writer in self._open.values():
            # Aborted, not closed: a client that does not read would keep a polite close waiting for ever. And not
            # cancelled: Quart ends a request whose client is gone, but loses one whose own task is cancelled.
            writer.transport.abort()
        _, zombies = await asyncio.wait(list(self._open), timeout=CUT_SECONDS)
        for zombie in zombies:
            logger.error("a request does not end though its connection is cut: %r", zombie)
            zombie.cancel()

    def __repr__(self) -> str:
        state = "draining" if self._context.terminated.is_set() else "open"
        return f"<Connections {state}: {len(self._open)}>"


def hypercorn_config() -> Config:
    """Hypercorn's settings, as far as its protocols read them."""
    config = Config()
    config.include_server_header = False
    config.accesslog = None
    config.errorlog = masked_logger("hypercorn.error")
    config.h11_max_incomplete_size = HEADER_BYTES_MAX
    config.h2_max_header_list_size = HEADER_BYTES_MAX
    return config


@contextlib.contextmanager
def closing_server(server: asyncio.Server) -> Generator[None]:
    """Stops accepting at the end. `async with server` would wait for the connections too."""
    try:
        yield
    finally:
        server.close()


async def listen(host: str, port: int) -> socket.socket:
    """A bound socket. Binding here and not in Hypercorn gives port 0 a number and a taken port a clear error."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise ConfigurationError(f"host {host!r} is no address: {error.strerror}", hint="use 127.0.0.1") from error
    family, kind, protocol, _, address = found[0]
    sock = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":  # elsewhere it would let two servers share the port
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setblocking(False)
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise unusable(host, port, error) from error
    return sock


def unusable(host: str, port: int, error: OSError) -> ConfigurationError:
    if error.errno == errno.EADDRINUSE:
        return PortInUse(
            f"port {port} of {host} is in use",
            hint="stop what listens there, or choose another: --port 8001, or --port 0 for any free one",
        )
    if error.errno == errno.EACCES:
        return ConfigurationError(f"port {port} is for privileged processes", hint="choose one above 1023")
    return ConfigurationError(f"cannot listen on {host} port {port}: {error.strerror}", hint="use host 127.0.0.1")


def url_of(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
