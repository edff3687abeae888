"""Which way each connection of an executor goes: straight to the server, or through a pooler.

    database_url    transactions and look-ups: many, each for a moment, so a pooler may share the server's sessions out
    direct_url      what each process has one of, all the time: the listener, the committer's writer, the lease with its
                    session lock. Without a pooler only the listener goes there, and without a direct_url none

The rule: nobody has to say that there is a pooler. One look at the start finds out, because a pooler announces a server
process of its own invention; and as it may change its mode, every pooler counts as one in transaction mode. What cannot
work through it is refused then, with words: a listener that would hear nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from operon.database import checkup
from operon.dsn import masked
from operon.errors import DatabaseUnusable


@dataclass(frozen=True, slots=True)
class Route:
    """Where a connection is opened, and whether a pooler is in between."""

    url: str
    pooled: bool = False

    def __repr__(self) -> str:
        return f"<Route {masked(self.url)}{', pooled' if self.pooled else ''}>"


@dataclass(frozen=True, slots=True)
class Routes:
    """The ways of one executor."""

    many: Route  # transactions and look-ups
    own: Route  # the writer, the lease, migrations and initializers
    listening: Route | None  # None: nobody listens


async def find_routes(url: str, direct_url: str | None, *, listens: bool) -> Routes:
    """Looks where the URLs lead. Raises DatabaseUnusable where there is no server, or where nobody would hear."""
    many = await looked_at(url)
    if not many.pooled:
        return Routes(many, many, Route(direct_url or url) if listens else None)
    own = await looked_at(direct_url) if direct_url is not None else many
    if listens and own.pooled and not await checkup.hears(own.url, url):
        raise DatabaseUnusable(
            f"{masked(own.url)} leads through a pooler in transaction mode, where no notification is heard",
            hint="set direct_url to the server itself, beside database_url; or notify=off, to poll instead",
        )
    return Routes(many, own, own if listens else None)


async def looked_at(url: str) -> Route:
    return Route(url, await checkup.is_pooled(url))
