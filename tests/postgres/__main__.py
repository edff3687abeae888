"""Runs tests on the PostgreSQL of the system instead of the embedded one: `python -m tests.postgres tests/guarantees`.

Without arguments, a part of the suite that touches every statement, function and lock of the runtime.
"""

from __future__ import annotations

import asyncio
import os
import sys

from operon.testing import SERVER
from tests.postgres.servers import postgres, programs

PART = ["tests/database", "tests/runtime", "tests/acceptance", "tests/guarantees/test_messages.py",
        "tests/guarantees/test_parking.py", "tests/guarantees/test_cancellation.py", "tests/guarantees/test_sleep.py",
        "tests/guarantees/test_run_to_completion.py", "tests/guarantees/test_zombies.py",
        "tests/guarantees/test_locks.py", "tests/security/test_least_privilege.py", "-m", "not long"]  # fmt: skip


async def main(arguments: list[str]) -> int:
    """The exit code of pytest."""
    async with postgres(only_socket=True, max_connections="200") as server:
        print(f"on {programs().parent}")
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "pytest", *(arguments or PART), env={**os.environ, SERVER: server.url}
        )
        return await process.wait()


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1:])))
