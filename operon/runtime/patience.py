"""Callers from outside of any workflow: they wait for a database that is away, but not for as long as a workflow does.

A start or a message is in the committer's hands when its caller is told that the database is away, and is recorded when
that comes back. So the error says what is not known, and by what it can be asked for.
"""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar
from uuid import UUID

from operon.errors import DatabaseUnavailable

PATIENCE_SECONDS = 30.0

T = TypeVar("T")


class Patience:
    """Everyone from outside who waits until something is durable in one incarnation."""

    def __init__(self) -> None:
        self._waiting: dict[asyncio.Future[Any], UUID] = {}

    async def of(self, waiter: asyncio.Future[T], workflow_uuid: UUID) -> T:
        """The answer to somebody who waits for news of this workflow; DatabaseUnavailable after a long outage."""
        self._waiting[waiter] = workflow_uuid
        try:
            return await waiter
        finally:
            del self._waiting[waiter]

    def away(self, seconds: float) -> None:
        """Nothing could be made durable for so long."""
        if seconds < PATIENCE_SECONDS:
            return
        for waiter, workflow_uuid in self._waiting.items():
            if not waiter.done():
                waiter.set_exception(
                    DatabaseUnavailable(
                        f"nothing could be recorded for {seconds:.0f} s: what was asked of workflow {workflow_uuid}"
                        " may happen when the database is back",
                        hint="look at that workflow then, or try again with the same workflow UUID or idempotency key",
                    )
                )

    def __repr__(self) -> str:
        return f"<Patience of {len(self._waiting)}>"
