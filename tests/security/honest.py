"""An honest client in a process of its own: asks for a page, again and again, at least a hundred times, and
until there is something on standard input.

Then it prints how long each answer took, in seconds, as JSON; an answer that was not "hello" is null. Every other
request is on a new connection. In a process of its own, so that it is the server that is measured and not the besieger.
"""

from __future__ import annotations

import http.client
import json
import select
import sys
import time


def main() -> None:
    port, pause_seconds = int(sys.argv[1]), 0.02
    took: list[float | None] = []
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    while not select.select([sys.stdin], [], [], pause_seconds)[0] or len(took) < 100:
        began = time.perf_counter()
        try:
            connection.request("GET", "/hello")
            is_right = connection.getresponse().read() == b"hello"
        except (OSError, http.client.HTTPException):
            is_right = False
        took.append(time.perf_counter() - began if is_right else None)
        if len(took) % 2 or not is_right:
            connection.close()
    json.dump(took, sys.stdout)


main()
