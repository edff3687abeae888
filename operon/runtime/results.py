"""Who waits for another workflow: for its end, or for an event of it. Here or elsewhere, nobody waits on a poll.

A waiter is a bell. For a workflow that lives in this process its end, or the commit of its event, rings; for one of
another executor, that one is asked, over its channel, to tell us whenever something becomes of it. The bell says only
"look again", so a lost one costs a tick of the safety poll, which asks for all that is awaited in one query.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec

from operon.catalog import Catalog
from operon.database import notifications, workflows
from operon.database.connection import Connection, is_conflict
from operon.database.notifications import EventRow
from operon.database.notifier import channel
from operon.database.pool import Pool
from operon.errors import ExecutorStopped, NonExistentWorkflowError, ResultTimeout, WorkflowCancelledError
from operon.failures import decode_error, encode_error
from operon.given import as_seconds
from operon.runtime.outcome import Ended
from operon.runtime.patience import PATIENCE_SECONDS
from operon.runtime.waits import Bell
from operon.status import Status, WorkflowStatus

if TYPE_CHECKING:
    from operon.runtime.workflow_actor import WorkflowActor

FINISHED_FOR_GOOD = (Status.SUCCESS.code, Status.ERROR.code)


class Results:
    """Answers for any workflow in the database: results, statuses, events."""

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
        self._bells: dict[UUID, set[Bell]] = {}
        self._asked: dict[UUID, int] = {}  # the owner that was asked to tell
        self._closed = False

    # ------------------------------------------------------------------ waiting

    def watch(self, workflow_uuid: UUID, bell: Bell) -> None:
        """From now on the bell rings when something becomes of the workflow. To be taken back by `unwatch`."""
        self._bells.setdefault(workflow_uuid, set()).add(bell)

    def unwatch(self, workflow_uuid: UUID, bell: Bell) -> None:
        """The bell does not wait any more."""
        bells = self._bells.get(workflow_uuid)
        if bells is not None:
            bells.discard(bell)
            if not bells:
                del self._bells[workflow_uuid]
                self._asked.pop(workflow_uuid, None)

    @property
    def awaited(self) -> int:
        """How many workflows are waited for here."""
        return len(self._bells)

    def ring(self, workflow_uuid: UUID) -> None:
        """Something may have become of a workflow: who waits for it looks again."""
        for bell in self._bells.get(workflow_uuid, ()):
            bell.ring()

    def ring_all(self) -> None:
        """Anything may have happened."""
        for workflow_uuid in self._bells:
            self.ring(workflow_uuid)

    def event_set(self, workflow_uuid: UUID, key: str, value: bytes) -> None:
        """A workflow of this process has set an event, durably."""
        for bell in self._bells.get(workflow_uuid, ()):
            if bell.key == key:
                bell.ring(value)

    async def poll(self, connection: Connection) -> None:
        """The safety poll: one query for all ends that are awaited here, one for all events; none when nothing is."""
        elsewhere = [uuid for uuid in self._bells if self._live(uuid) is None]
        if elsewhere:
            for workflow_uuid, row in (await workflows.outcomes(connection, elsewhere)).items():
                if row.status != 0:
                    self.ring(workflow_uuid)
        keys = {(uuid, bell.key) for uuid in elsewhere for bell in self._bells.get(uuid, ()) if bell.key is not None}
        if keys:
            for workflow_uuid, key in await notifications.events(connection, list(keys)):
                for bell in self._bells.get(workflow_uuid, ()):
                    if bell.key == key:
                        bell.ring()

    def close(self) -> None:
        """Nobody will ring any more: who waits is told so."""
        self._closed = True
        self.ring_all()

    def _require_open(self) -> None:
        if self._closed:
            raise ExecutorStopped("this executor stopped", hint="the workflow continues elsewhere; ask there, or again")

    # ------------------------------------------------------------------ results

    async def result(self, workflow_uuid: UUID, timeout: float | None) -> Any:
        """Waits for a workflow; gives its result or raises its error, ResultTimeout, NonExistentWorkflowError."""
        ended = await self.ended(workflow_uuid, timeout)
        return ended.value(workflow_uuid, self.catalog)

    async def ended(self, workflow_uuid: UUID, timeout: float | None) -> Ended:
        """Waits until a workflow is finished; how it ended. A timeout of 0 looks once."""
        timeout = as_seconds(timeout)
        bell = Bell()
        self.watch(workflow_uuid, bell)
        try:
            async with asyncio.timeout(timeout or None):
                while True:
                    ended = await self.end_of(workflow_uuid)
                    if ended is not None:
                        return ended
                    if timeout == 0:
                        raise TimeoutError
                    await bell.rung()
        except TimeoutError:
            raise result_timeout(workflow_uuid, timeout) from None
        finally:
            self.unwatch(workflow_uuid, bell)

    async def end_of(self, workflow_uuid: UUID, patience: float | None = PATIENCE_SECONDS) -> Ended | None:
        """How a workflow has ended, if it has. Whoever watches it is rung when to ask again."""
        self._require_open()
        actor = self._live(workflow_uuid)
        if actor is not None and not actor.over:
            return None
        if actor is not None and actor.ended is not None and actor.ended.status is not Status.CANCELLED:
            return actor.ended
        row = await self._look_ups.ask(lambda connection: workflows.attach(connection, workflow_uuid), patience)
        if row is None:
            raise nonexistent(workflow_uuid)
        if row.status != 0:
            return Ended(row.name, Status.from_code(row.status), row.output, row.error)
        await self._ask_owner(workflow_uuid, row.owner)
        return None

    async def _ask_owner(self, workflow_uuid: UUID, owner: int | None) -> None:
        """Asks the executor that owns a workflow to tell us about it, once."""
        if workflow_uuid not in self._bells or self._asked.get(workflow_uuid) == owner:
            return
        if owner is not None and owner != self._incarnation():
            self._asked[workflow_uuid] = owner
            bell = f"tell:{workflow_uuid}:{self._incarnation()}"
            await self._look_ups.ask(lambda c: workflows.ring(c, channel(owner), bell), PATIENCE_SECONDS)

    # ------------------------------------------------------------------ events

    async def event(self, workflow_uuid: UUID, key: str, timeout: float | None, owner: str | None) -> bytes | None:
        """Waits until a workflow has set an event; None when it has not in time, or has finished without it."""
        bell = Bell(key)
        self.watch(workflow_uuid, bell)
        try:
            async with asyncio.timeout(timeout or None):
                while True:
                    row = await self.event_of(workflow_uuid, key, owner)
                    if row.value is not None or row.status in FINISHED_FOR_GOOD or timeout == 0:
                        return row.value
                    await bell.rung()
                    if bell.value is not None:
                        return bell.value
        except TimeoutError:
            return None
        finally:
            self.unwatch(workflow_uuid, bell)

    async def event_of(
        self, workflow_uuid: UUID, key: str, owner: str | None, patience: float | None = PATIENCE_SECONDS
    ) -> EventRow:
        """An event, if it is set. Whoever watches the workflow is rung when to ask again.

        owner: the user whose workflow it has to be, or NO_USER; None for anyone's. Raises NonExistentWorkflowError.
        """
        self._require_open()
        row = await self._look_ups.ask(lambda c: notifications.event(c, workflow_uuid, key, owner), patience)
        if row is None:
            raise nonexistent(workflow_uuid)
        if row.value is None and row.status == 0:
            await self._ask_owner(workflow_uuid, row.owner)
        return row

    # ------------------------------------------------------------------ cancelling and resuming

    async def cancel(self, workflow_uuid: UUID, by: str | None = None) -> bool:
        """Cancels a workflow and what it has started; False when it was finished already. by: who, as it is told."""
        whose = "" if by is None else f" by {by}"
        reason = encode_error(WorkflowCancelledError(f"workflow {workflow_uuid} was cancelled{whose}"))
        return await self._control(workflow_uuid, lambda c: workflows.cancel(c, workflow_uuid, reason))

    async def resume(self, workflow_uuid: UUID) -> bool:
        """Lets a cancelled or dead workflow go on; False when it is neither."""
        return await self._control(workflow_uuid, lambda c: workflows.resume(c, workflow_uuid))

    async def _control(self, workflow_uuid: UUID, act: Callable[[Connection], Awaitable[list[UUID]]]) -> bool:
        self._require_open()
        while True:
            try:
                changed = await self._look_ups.ask(act, PATIENCE_SECONDS)
                break
            except Exception as error:
                if not is_conflict(error):  # with a flush of the workflow's executor: one of the two goes first
                    raise
        for uuid in changed:
            self.ring(uuid)
        if not changed and await self.status(workflow_uuid) is None:
            raise nonexistent(workflow_uuid)
        return workflow_uuid in changed

    # ------------------------------------------------------------------ statuses

    async def status(self, workflow_uuid: UUID) -> WorkflowStatus | None:
        """What the database knows of a workflow now; None for an unknown UUID."""
        actor = self._live(workflow_uuid)
        if actor is not None and actor.ended is not None:
            await actor.settled()  # its end was told already; the status must not say otherwise
        row = await self._look_ups.ask(lambda connection: workflows.status(connection, workflow_uuid), PATIENCE_SECONDS)
        if row is None:
            return None
        waits = None if actor is None or row.status != 0 else actor.waits
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
            waiting_for=(waits.what or None) if waits is not None else row.wait_what,
            error=None if row.error is None else str(decode_error(row.error)),
        )


class Owned:
    """The same answers for the workflows of one user; those of others are unknown, in the same words."""

    __slots__ = ("_results", "_user")

    def __init__(self, results: Results, user: str | None) -> None:
        self._results = results
        self._user = user

    async def require(self, workflow_uuid: UUID) -> None:
        """NonExistentWorkflowError for an unknown UUID, and for that of another user."""
        if await self.status(workflow_uuid) is None:
            raise nonexistent(workflow_uuid)

    async def result(self, workflow_uuid: UUID, timeout: float | None) -> Any:
        await self.require(workflow_uuid)
        return await self._results.result(workflow_uuid, timeout)

    async def cancel(self, workflow_uuid: UUID, by: str | None = None) -> bool:
        await self.require(workflow_uuid)
        return await self._results.cancel(workflow_uuid, by or f"user {self._user!r}")

    async def resume(self, workflow_uuid: UUID) -> bool:
        await self.require(workflow_uuid)
        return await self._results.resume(workflow_uuid)

    async def status(self, workflow_uuid: UUID) -> WorkflowStatus | None:
        status = await self._results.status(workflow_uuid)
        return status if status is not None and status.authenticated_user == self._user else None


def nonexistent(workflow_uuid: UUID) -> NonExistentWorkflowError:
    return NonExistentWorkflowError(
        f"there is no workflow {workflow_uuid}", hint="was it started with this UUID, in this database?"
    )


def result_timeout(workflow_uuid: UUID, timeout: float | None) -> ResultTimeout:
    return ResultTimeout(f"workflow {workflow_uuid} did not finish in {timeout} s", hint="it goes on; ask again")
