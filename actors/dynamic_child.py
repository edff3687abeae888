"""One child of a dynamic supervisor: what `spawn` returns."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

from actors.clock import Timer
from actors.exits import Exit, message_of
from actors.lifetime import Lifetime
from actors.restart import Restart
from actors.snapshot import ChildSnapshot
from actors.state import ChildState

__all__ = ["DynamicChild", "OnExit"]


class DynamicChild(Lifetime):
    """One child of a dynamic supervisor. Outlives its restarts; ends once.

    Its attributes are for reading: only the supervisor writes them.
    """

    __slots__ = (
        "crashes", "last_exit", "on_exit", "restart", "restarts", "run", "started_at", "state", "task", "timer",
    )  # fmt: skip

    def __init__(
        self, name: str, run: Callable[[], Coroutine[Any, Any, None]], restart: Restart, on_exit: OnExit | None
    ) -> None:
        # Not super().__init__: this is the hot path, and the call is 3 % of a child's whole life.
        self.name = name
        self.exit = None
        self._watchers = None
        self.run = run
        self.on_exit = on_exit
        self.task: asyncio.Task[None] | None = None
        self.timer: Timer | None = None
        self.restart = restart
        self.state = ChildState.RUNNING
        self.started_at = 0.0  # of the present life; while RESTARTING, when the next one is due
        self.crashes = 0  # in a row, without progress or a long healthy run in between
        self.restarts = 0
        self.last_exit: Exit | None = None

    def progressed(self) -> None:
        """Say that this life has achieved something: the crashes before it no longer count."""
        self.crashes = 0

    def describe(self, now: float) -> ChildSnapshot:
        """Describe it as plain data."""
        return ChildSnapshot(
            name=self.name,
            state=self.state.value,
            restart=self.restart.value,
            restarts=self.restarts,
            last_exit=None if self.last_exit is None else str(self.last_exit),
            last_error=message_of(self.last_exit),
            uptime_seconds=None if self.state is ChildState.RESTARTING else now - self.started_at,
            restart_in_seconds=max(0.0, self.started_at - now) if self.state is ChildState.RESTARTING else None,
        )

    def __repr__(self) -> str:
        return f"<DynamicChild {self.name} {self.state}: {self.restarts} restarts>"


# Called with the child and the exit of one of its lives.
OnExit: TypeAlias = Callable[[DynamicChild, Exit], object]
