"""A port for a server that has to be told one, or has to come back on its own.

Not one that the system gives out by itself (from 32768 on, on Linux): between the look and the use, or while the server
is away, the next connection of anybody could be given it.
"""

from __future__ import annotations

import contextlib
import random
import socket

FIRST, LAST = 10_000, 29_999


def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    while True:
        port = random.randint(FIRST, LAST)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
