"""Gates: where a test holds an operation until it has seen, or done, what it came for. Never a sleep.

    gates["a"]                 made on first use
    await gates["a"].pass_()   in the operation: says that it is there, and waits
    await gates["a"].reached.wait()
    gates["a"].open()
"""

from __future__ import annotations

import asyncio
from collections import defaultdict


class Gate:
    """Counts who came, and lets them through once it is open."""

    def __init__(self) -> None:
        self.arrivals = 0
        self.reached = asyncio.Event()
        self._opened = asyncio.Event()

    async def pass_(self) -> None:
        """Waits here until the gate is open."""
        self.arrivals += 1
        self.reached.set()
        await self._opened.wait()

    def open(self) -> None:
        """Lets everybody through, now and later."""
        self._opened.set()


gates: defaultdict[str, Gate] = defaultdict(Gate)
