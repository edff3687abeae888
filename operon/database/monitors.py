"""Monitors in the database, set and taken away in a transaction of the watcher's. `operon.wake` tells of ends."""

from __future__ import annotations

from typing import Any, Protocol
from uuid import UUID

from operon.database.sql import statements

SQL = statements("monitors.sql")


class Client(Protocol):
    """The open transaction that also holds the checkpoint of the step."""

    async def fetchval(self, statement: str, /, *args: Any) -> Any: ...


async def monitor(client: Client, ref: UUID, target: UUID, watcher: UUID, owner: str | None) -> str:
    """Has the watcher told when the target ends; `monitoring`, `down` if it has ended already, or `unknown`.

    owner: the user whose workflow it has to be, or NO_USER; None for anyone's.
    """
    said: str = await client.fetchval(SQL["monitor"], ref, target, watcher, owner)
    return said


async def demonitor(client: Client, ref: UUID, watcher: UUID) -> bool:
    """Takes a monitor away; False if its message was sent already, or it is not the watcher's."""
    gone: bool = await client.fetchval(SQL["demonitor"], ref, watcher)
    return gone
