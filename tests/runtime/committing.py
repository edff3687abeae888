"""A committer on a database of its own, with nothing else of an executor."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import UUID, uuid4

import asyncpg

from operon.database import executors
from operon.database.batch import Batch
from operon.database.lease import GRACE_SECONDS, Lease
from operon.database.writer import Writer
from operon.runtime.committer import Committer
from operon.testing import TestRuntime
from tests.database import one_step

COMMUNICATOR = 1
POISON = "a name with a \0, which no text column takes"


@dataclass
class Bench:
    """The committer, and a look at its database."""

    url: str
    connection: asyncpg.Connection
    number: int
    committer: Committer
    fenced: asyncio.Event
    running: asyncio.Task[None] | None = None

    def run(self) -> None:
        self.running = asyncio.create_task(self.committer.run(lambda: None))

    def start(self, name: str = "greet") -> tuple[UUID, Batch]:
        uuid = uuid4()
        return uuid, self.committer.start(uuid, name, b"{}")

    def checkpoint(self, uuid: UUID, step: int, name: str = "salute") -> Batch:
        return self.committer.checkpoint(uuid, step, COMMUNICATOR, name, b'"x"', 0.0)

    async def workflows(self) -> dict[UUID, int]:
        """The status of every workflow in the database."""
        return {
            row[0]: row[1] for row in await self.connection.fetch("select workflow_uuid, status from operon.workflows")
        }

    async def steps(self, uuid: UUID) -> list[int]:
        rows = await self.connection.fetch(
            "select step from operon.checkpoints where workflow_uuid = $1 order by step", uuid
        )
        return [row[0] for row in rows]


@asynccontextmanager
async def committing() -> AsyncGenerator[Bench]:
    async with TestRuntime(one_step, check_replay=False) as runtime:  # its steps are made up
        connection = await asyncpg.connect(runtime.database_url)
        number, _ = await executors.register(connection, "0", 60.0, GRACE_SECONDS)
        lease = Lease(runtime.database_url, number, 60.0, 20.0, lambda: None)
        fenced = asyncio.Event()
        writers = Writer(runtime.database_url, "0", 10_000), Writer(runtime.database_url, "0", 10_000)
        made = Bench(
            runtime.database_url, connection, number, Committer(writers, lease, fenced.set, lambda _batch: None), fenced
        )
        yield made
        if made.running is not None:
            made.running.cancel()
            await asyncio.gather(made.running, return_exceptions=True)
        for writer in writers:
            await writer.close()
        await connection.close()


async def fate(batch: Batch, uuid: UUID) -> BaseException | None:
    """What became of the records of a workflow: None if they are durable."""
    try:
        async with asyncio.timeout(60):
            await batch.durable(uuid)
    except Exception as error:
        return error
    return None
