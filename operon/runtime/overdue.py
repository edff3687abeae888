"""Workflows whose time is over and that nobody brings back for it: they are cancelled where they are, in the database.

Whoever lives has a timer, and whoever is parked is woken for its deadline. Left are those that are not let through: of
a name that is suspended, or has no room, or whose code no running application has. A look for work finds them too; they
have a moment then in which they may still be brought back as usual.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from uuid import UUID

from operon.database import workflows
from operon.database.connection import Connection, is_conflict
from operon.failures import encode_error
from operon.runtime.outcome import timed_out
from operon.runtime.results import Results

GRACE_SECONDS = 2.0


class Overdue:
    """Cancels what nobody else does."""

    def __init__(self, results: Results) -> None:
        self._results = results
        self._seen: dict[UUID, float] = {}  # at an earlier look, and when first

    async def judge(self, connection: Connection, names: Mapping[UUID, str]) -> None:
        """Cancels those of them that earlier looks have found, a moment ago or more."""
        now = time.monotonic()
        self._seen = {uuid: self._seen.get(uuid, now) for uuid in names}
        for uuid, since in self._seen.items():
            if now - since >= GRACE_SECONDS:
                await self._cancel(connection, uuid, names[uuid])

    async def _cancel(self, connection: Connection, workflow_uuid: UUID, name: str) -> None:
        try:
            cancelled = await workflows.cancel(connection, workflow_uuid, encode_error(timed_out(name, workflow_uuid)))
        except Exception as error:
            if not is_conflict(error):  # with whoever changes it just now: at the next look it may be gone
                raise
            return
        for uuid in cancelled:
            self._results.ring(uuid)

    def __repr__(self) -> str:
        return f"<Overdue: {len(self._seen)} seen>"
