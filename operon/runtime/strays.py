"""Workflows that this executor owns and does not have in memory, though nothing says that they wait.

The connection of a claim may be lost before its answer is read, or before the history of what was claimed is. To
everybody else these workflows run here, and nobody would ever bring them back. So what is owned is compared with what
lives: soon after such a loss, and once a minute, as a claim may reach the server after its connection was given up.

Who just comes to life or ends may look like one. So only who is found at two looks in a row, and not close together, is
given back, for whoever has room, once all that it had recorded is in the database.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING
from uuid import UUID

from operon.database import workflows
from operon.database.connection import Connection
from operon.masking import masked_logger

if TYPE_CHECKING:
    from operon.runtime.incarnation import Incarnation

logger = masked_logger("operon.recovery")

LOOK_SECONDS = 60.0
APART_SECONDS = 0.5  # of two looks when there is reason to look: somebody may ring for work at every moment


class Strays:
    """Finds them, and gives them back."""

    def __init__(self, incarnation: Incarnation) -> None:
        self._incarnation = incarnation
        self._looked_at = time.monotonic()
        self._seen: set[UUID] = set()  # at the last look
        self._doubtful = False

    def doubt(self) -> None:
        """Something may have been claimed that nobody knows of: the next looks for work are looks for it."""
        self._doubtful = True

    async def look(self, connection: Connection) -> None:
        """Compares what is owned with what lives, when it is time to."""
        incarnation, now = self._incarnation, time.monotonic()
        apart = min(APART_SECONDS, LOOK_SECONDS) if self._doubtful or self._seen else LOOK_SECONDS
        if now - self._looked_at < apart:
            return
        running = await workflows.running(connection, incarnation.number)
        found = {uuid: name for uuid, name in running.items() if not incarnation.has(uuid)}
        lost = {uuid: found[uuid] for uuid in self._seen if uuid in found}
        self._seen = found.keys() - lost.keys()
        self._looked_at, self._doubtful = now, False
        if lost:
            logger.warning("%d workflows of this executor did not live; whoever has room runs them", len(lost))
            incarnation.endings.let_go(lost.keys(), set(lost.values()), ring=True)

    def __repr__(self) -> str:
        return f"<Strays: {len(self._seen)} seen>"
