"""Children that do what a test tells them, and a log of what they did, in order."""

from __future__ import annotations

import asyncio
from typing import Never

from actors import Backoff, ChildSpec, Restart, Started
from actors.child import Task

AT_ONCE = Backoff(first=0.0, longest=0.0)
STEADY = Backoff(first=1.0, longest=60.0, jitter=False)


class Stage:
    """Makes tasks that log `+name` and `-name` when they start and end, and live until they are told how to end."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.bad_starts: dict[str, int] = {}
        self._lives: dict[str, asyncio.Future[None]] = {}

    def task(self, name: str) -> Task:
        async def run(started: Started) -> None:
            if self.bad_starts.get(name, 0) > 0:
                self.bad_starts[name] -= 1
                self.log.append(f"!{name}")
                raise OSError(f"{name} cannot start")
            self._lives[name] = asyncio.get_running_loop().create_future()
            self.log.append(f"+{name}")
            started()
            try:
                await self._lives[name]
            finally:
                self.log.append(f"-{name}")

        return run

    def child(
        self, name: str, restart: Restart = Restart.PERMANENT, *, backoff: Backoff = STEADY, stop_timeout: float = 5.0
    ) -> ChildSpec[Never]:
        return ChildSpec.task(name, self.task(name), restart=restart, backoff=backoff, stop_timeout=stop_timeout)

    def crash(self, name: str, error: BaseException | None = None) -> None:
        self._lives[name].set_exception(error or ValueError(f"{name} was told to"))

    def finish(self, name: str) -> None:
        self._lives[name].set_result(None)

    def take_log(self) -> list[str]:
        taken, self.log = self.log, []
        return taken
