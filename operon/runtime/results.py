"""Waiting for results, whoever runs the workflow: in this process by a future, elsewhere by a notification.

Who waits for a workflow of another executor asks that executor, over its channel, to ring when it is done. The bell
says only "look again", so a lost one costs a tick of the safety poll, which asks for all that is awaited in one query.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec

from operon.catalog import Catalog
from operon.database import workflows
from operon.database.notifier import channel
from operon.database.pool import Pool
from operon.errors import ExecutorStopped, NonExistentWorkflowError, ResultTimeout
from operon.failures import decode_error
from operon.runtime.outcome import Ended
from operon.status import Status, WorkflowStatus

if TYPE_CHECKING:
    from operon.runtime.workflow_actor import WorkflowActor

PATIENCE_SECONDS = 30.0  # how long a caller waits for a database that is away


class Results:
    """Answers handles: results and statuses of any workflow in the database."""

    def __init__(
        self,
        catalog: Catalog,
        look_ups: Pool,
        live: Callable[[UUID], WorkflowActor | None],
        incarnation: Callable[[], int],
    ) -> None:
        self.catalog = catalog
        self._look_ups = look_ups
        self._live = live
        self._incarnation = incarnation
        self._awaited: dict[UUID, set[asyncio.Future[None]]] = {}
        self._asked: dict[UUID, int] = {}  # the owner that was asked to ring
        self._closed = False

    async def result(self, workflow_uuid: UUID, timeout: float | None) -> Any:
        """Waits for a workflow; gives its result or raises its error, ResultTimeout, NonExistentWorkflowError."""
        ended = await self.ended(workflow_uuid, timeout)
        return ended.value(workflow_uuid, self.catalog)

    async def ended(self, workflow_uuid: UUID, timeout: float | None) -> Ended:
        """Waits until a workflow is finished; how it ended."""
        try:
            async with asyncio.timeout(timeout):
                while not self._closed:
                    actor = self._live(workflow_uuid)
                    ended = await actor.wait() if actor is not None else await self._elsewhere(workflow_uuid)
                    if ended is not None:
                        return ended
                raise ExecutorStopped(
                    "this executor stopped", hint="the workflow continues elsewhere; ask there, or again"
                )
        except TimeoutError:
            raise ResultTimeout(
                f"workflow {workflow_uuid} did not finish in {timeout} s", hint="it goes on; ask again"
            ) from None

    async def _elsewhere(self, workflow_uuid: UUID) -> Ended | None:
        """Waits for a bell or the safety poll; then looks. None: look again."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiters = self._awaited.setdefault(workflow_uuid, set())
        waiters.add(future)
        try:
            row = await self._look(workflow_uuid)
            if row.status != 0:
                return Ended(row.name, Status.from_code(row.status), row.output, row.error)
            if row.owner is not None and self._asked.get(workflow_uuid) != row.owner:
                self._asked[workflow_uuid] = row.owner
                await self._ask(row.owner, workflow_uuid)
            await future
            return None
        finally:
            waiters.discard(future)
            if not waiters:
                self._awaited.pop(workflow_uuid, None)
                self._asked.pop(workflow_uuid, None)

    async def _look(self, workflow_uuid: UUID) -> workflows.Outcome:
        row = await self._look_ups.ask(lambda connection: workflows.attach(connection, workflow_uuid), PATIENCE_SECONDS)
        if row is None:
            raise unknown(workflow_uuid)
        return row

    async def user_of(self, workflow_uuid: UUID) -> str | None:
        """Who started a workflow. NonExistentWorkflowError for an unknown UUID."""
        actor = self._live(workflow_uuid)
        return actor.caller.user if actor is not None else (await self._look(workflow_uuid)).authenticated_user

    async def _ask(self, owner: int, workflow_uuid: UUID) -> None:
        bell = f"tell:{workflow_uuid}:{self._incarnation()}"
        await self._look_ups.ask(lambda connection: workflows.ring(connection, channel(owner), bell), PATIENCE_SECONDS)

    @property
    def awaited(self) -> int:
        """How many workflows of other executors are waited for here."""
        return len(self._awaited)

    def ring(self, workflow_uuid: UUID) -> None:
        """Something may have become of a workflow: its waiters look again."""
        for future in self._awaited.get(workflow_uuid, ()):
            if not future.done():
                future.set_result(None)

    def ring_all(self) -> None:
        """Notifications may have been missed: every waiter looks again."""
        for workflow_uuid in list(self._awaited):
            self.ring(workflow_uuid)

    async def poll(self) -> None:
        """The safety poll: one query for all that is awaited here, none when nothing is."""
        if not self._awaited:
            return
        async with self._look_ups.connection() as connection:
            found = await workflows.outcomes(connection, self._awaited)
        for workflow_uuid, row in found.items():
            if row.status != 0 or row.owner == self._incarnation():
                self.ring(workflow_uuid)

    def close(self) -> None:
        """Nobody will ring any more: who waits is told so."""
        self._closed = True
        self.ring_all()

    async def status(self, workflow_uuid: UUID) -> WorkflowStatus | None:
        """What the database knows of a workflow now; None for an unknown UUID."""
        actor = self._live(workflow_uuid)
        if actor is not None and actor.ended is not None:
            await actor.settled()  # its end was told already; the status must not say otherwise
        row = await self._look_ups.ask(lambda connection: workflows.status(connection, workflow_uuid), PATIENCE_SECONDS)
        if row is None:
            return None
        return WorkflowStatus(
            workflow_uuid=row.workflow_uuid,
            status=Status.from_code(row.status),
            workflow_name=row.name,
            authenticated_user=row.authenticated_user,
            assumed_role=row.assumed_role,
            authenticated_roles=tuple(row.authenticated_roles or ()),
            request=None if row.request is None else msgspec.json.decode(row.request),
            created_at=row.created_at,
            updated_at=row.updated_at,
            attempts=row.epoch,
            executor=None if row.owner is None else f"{row.host}:{row.pid}#{row.owner}",
            waiting_for=row.wait_what,
            error=None if row.error is None else str(decode_error(row.error)),
        )


class Owned:
    """The same answers for the workflows of one user; those of others are unknown, in the same words."""

    __slots__ = ("_results", "_user")

    def __init__(self, results: Results, user: str | None) -> None:
        self._results = results
        self._user = user

    async def result(self, workflow_uuid: UUID, timeout: float | None) -> Any:
        return (await self.ended(workflow_uuid, timeout)).value(workflow_uuid, self._results.catalog)

    async def ended(self, workflow_uuid: UUID, timeout: float | None) -> Ended:
        if await self._results.user_of(workflow_uuid) != self._user:
            raise unknown(workflow_uuid)
        return await self._results.ended(workflow_uuid, timeout)

    async def status(self, workflow_uuid: UUID) -> WorkflowStatus | None:
        status = await self._results.status(workflow_uuid)
        return status if status is not None and status.authenticated_user == self._user else None


def unknown(workflow_uuid: UUID) -> NonExistentWorkflowError:
    return NonExistentWorkflowError(
        f"there is no workflow {workflow_uuid}", hint="was it started with this UUID, in this database?"
    )
