"""An honest client in a process of its own: asks for a page, again and again, at least a hundred times, and
until there is something on standard input.

Then it prints how long each answer took, in seconds, as JSON; an answer that was not "hello" is null. Every other
request is on a new connection. In a process of its own, so that it is the server that is measured and not the besieger.
The time that the server or the client was ready to run and had no processor is taken off where Linux tells it: that is
the machine's, which runs other tests as well.
"""

from __future__ import annotations

import http.client
import json
import select
import sys
import time
from pathlib import Path


def main() -> None:
    port, server, pause_seconds = int(sys.argv[1]), sys.argv[2], 0.02
    took: list[float | None] = []
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    while not select.select([sys.stdin], [], [], pause_seconds)[0] or len(took) < 100:
        began = time.perf_counter() - unserved_seconds(server)
        try:
            connection.request("GET", "/hello")
            is_right = connection.getresponse().read() == b"hello"
        except (OSError, http.client.HTTPException):
            is_right = False
        took.append(time.perf_counter() - unserved_seconds(server) - began if is_right else None)
        if len(took) % 2 or not is_right:
            connection.close()
    json.dump(took, sys.stdout)


def unserved_seconds(server: str) -> float:
    """How long the server and this process have waited for a processor so far; the server runs in its first thread."""
    try:
        return sum(int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) for pid in (server, "self")) / 1e9
    except FileNotFoundError:
        return 0.0


main()
