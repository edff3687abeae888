"""The clock that windows and pauses are measured on; `actors.testing.ManualClock` is the other one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextvars import Context
from typing import Protocol

__all__ = ["Clock", "LoopClock", "Timer"]


class Timer(Protocol):
    """Something that will happen, unless it is cancelled."""

    def cancel(self) -> None: ...


class Clock(Protocol):
    """Seconds that never go back, and a way to be called later."""

    def now(self) -> float: ...

    def call_later(self, delay: float, callback: Callable[[], object]) -> Timer: ...


class LoopClock:
    """The running event loop's clock: its timer heap is the only queue of pauses."""

    __slots__ = ()

    def now(self) -> float:
        return time.monotonic()  # what loop.time() is, without asking for the loop: twice per dynamic child

    def call_later(self, delay: float, callback: Callable[[], object]) -> Timer:
        # An empty context: the timer would otherwise keep the caller's (an HTTP request, say) alive until it fires.
        return asyncio.get_running_loop().call_later(delay, callback, context=Context())
