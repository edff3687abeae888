"""One incarnation of an executor: everything that lives and dies with one registration in the database.

Declared dead is final. Then the whole of this is dropped, actors and appended records with it, and the executor makes
another with a number of its own. What outlives an incarnation (connection pools, waiting clients, HTTP) is the
executor's.

    executor-N        one_for_one; when it gives up, the incarnation ends as if it had been declared dead
    |- committer      the only code that writes outside user transactions; never restarted: its failure is the end
    |- workflows      the live actors, a supervisor for each name; a next life begins from its row
    |- notifier       the listening connection
    |- activator      claims what nobody runs, brings back what is parked
    |- parker         takes out of memory what only waits
    `- recovery       finds executors that are gone
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import UUID

import anyio

from actors import ChildSpec, Crashed, Exit, Supervisor, SupervisorNotRunning, SupervisorState
from operon.catalog import Catalog
from operon.config import Settings
from operon.database import executors, workflows
from operon.database.batch import Batch
from operon.database.lease import Lease
from operon.database.mail import Delivery
from operon.database.notifier import EVERYBODY, Notifier, channel
from operon.database.pool import Pool
from operon.database.routes import Routes
from operon.database.uuid7 import uuid7
from operon.database.writer import Writer
from operon.errors import ExecutorFull, ExecutorStopped, Fenced
from operon.masking import masked_logger
from operon.runtime.activator import Activator
from operon.runtime.clock import Clock
from operon.runtime.committer import Committer
from operon.runtime.crowds import WORKFLOWS, Crowds
from operon.runtime.endings import Endings
from operon.runtime.events import Kind, Record
from operon.runtime.interrupt import interrupt
from operon.runtime.mailbox import MailReader
from operon.runtime.parking import Parker
from operon.runtime.patience import Patience
from operon.runtime.recovery import Recovery, grace_seconds
from operon.runtime.results import Results
from operon.runtime.spawn import Spawner
from operon.runtime.suspensions import Suspensions
from operon.runtime.timers import Timers
from operon.runtime.transactions import TransactionRunner
from operon.runtime.workflow_actor import WorkflowActor
from operon.status import Status
from operon.telemetry.metrics import Gauges
from operon.telemetry.observer import SILENT, Telemetry

logger = masked_logger("operon.executor")

THREADS = 64  # synchronous communicators at a time
PINGS_APART = 2.5  # heartbeats, 5 s by default: who wants fewer heartbeats wants fewer pings


class Incarnation:
    """The parts of an executor under one number, and the actors that live in it."""

    def __init__(
        self,
        number: int,
        routes: Routes,
        settings: Settings,
        catalog: Catalog,
        application: Mapping[str, Any],
        transactions: Pool,
        look_ups: Pool,
        results: Results,
        now: float,
        on_fenced: Callable[[Incarnation], None],
        record: Record,
        telemetry: Telemetry = SILENT,
    ) -> None:
        self.number = number
        self.catalog = catalog
        self.application = application
        self.look_ups = look_ups
        self.results = results
        self.telemetry = telemetry
        self.live: dict[UUID, WorkflowActor] = {}
        self.draining = False
        self.effects = 0  # communicators that are being called
        self.quiet = asyncio.Event()
        self.on_checkpoint: Callable[[], bool] | None = None  # for tests: True crashes the workflow after this step
        self.new_uuid: Callable[[], UUID] = uuid7
        self.jitter: Callable[[], float] = random.random
        self.threads = anyio.CapacityLimiter(THREADS)
        self._settings = settings
        self._on_fenced = on_fenced
        self._record = record
        self._fenced = False
        self.endings = Endings(self, settings.crash_budget, settings.max_deliveries)
        own, listening = routes.own, routes.listening
        self.lease = Lease(
            own.url,
            number,
            settings.lease_seconds,
            settings.heartbeat_seconds,
            self.fence,
            interrupt,
            grace_seconds=grace_seconds(settings.poll_seconds),
            pooled=own.pooled,
        )
        writers = [Writer(own.url, settings.version, settings.mailbox_limit, pooled=own.pooled) for _ in range(2)]
        self._writers = writers[0], writers[1]
        self.patience = Patience()
        self.committer = Committer(
            self._writers,
            self.lease,
            self.fence,
            self._committed,
            self._revoked,
            lambda: self.activator.ring(),
            self.patience.away,
            telemetry,
        )
        self.transactions = TransactionRunner(transactions, self.quiet)
        self.spawner = Spawner(self, catalog, results)
        self.notifier = Notifier(
            None if listening is None else listening.url,
            self.lease,
            self._heard,
            self._caught_up,
            on_doubt=lambda: self.activator.ring(),
            look_ups=look_ups,
            ping_seconds=PINGS_APART * settings.heartbeat_seconds,
            pooled=listening is not None and listening.pooled,
        )
        self.recovery = Recovery(self, settings.poll_seconds)
        self.suspensions = Suspensions(self, settings.suspend_after)
        self.activator = Activator(self, settings.poll_seconds, settings.max_live)
        self.parker = Parker(self, settings.park_after_seconds, settings.max_live)
        self.mail_reader = MailReader(look_ups)
        self.clock = Clock()
        self.clock.sample(now)
        self.timers = Timers(self.clock)
        self.listeners: dict[UUID, set[int]] = {}  # executors that want to be told of a workflow
        self.crowds = Crowds(self, catalog.operations.values())

    def tree(self) -> Supervisor:
        """The supervisor of the parts, not yet started."""
        return Supervisor(
            f"executor-{self.number}",
            children=[
                ChildSpec.task("committer", self.committer.run),
                ChildSpec.nested(self.crowds),
                ChildSpec.task("notifier", self.notifier.run, start_timeout=None),
                ChildSpec.task("activator", self.activator.run),
                ChildSpec.task("parker", self.parker.run),
                ChildSpec.task("recovery", self.recovery.run),
            ],
        )

    def record(self, kind: Kind, text: str, *below: str, workflow_uuid: UUID | None = None, **data: Any) -> None:
        """Tells operators of an event of this executor, or of what is `below` it in the tree."""
        path = ("operon", f"executor-{self.number}", *below)
        self._record(kind, text, path=path, executor=self.number, workflow_uuid=workflow_uuid, data=data or None)

    def record_of(self, workflow_uuid: UUID, name: str, kind: Kind, text: str) -> None:
        """Tells operators of an event of a workflow."""
        self.record(kind, text, WORKFLOWS, name, str(workflow_uuid), workflow_uuid=workflow_uuid)

    # ------------------------------------------------------------------ actors

    def admit(self) -> None:
        """Refuses a start while this incarnation ends: Fenced if another follows, ExecutorStopped if none does."""
        self.admit_message()
        if self.crowds.state is SupervisorState.NEW:
            raise Fenced(f"executor {self.number} has only just been registered")  # as if to the one before it
        if len(self.live) >= self._settings.max_live:
            raise ExecutorFull(
                f"{len(self.live)} workflows are live here, as many as max_live allows",
                hint="start more executors on the same database, or raise max_live",
            )

    def admit_message(self) -> None:
        """Refuses a message as `admit` refuses a start, but not for lack of room."""
        if self._fenced and not self.draining:
            raise Fenced(f"executor {self.number} was declared dead")
        if self.draining:
            raise ExecutorStopped(
                "this executor is shutting down", hint="try again: another executor, or this one in a moment, takes it"
            )

    def deadline_in(self, timeout: float | None) -> float | None:
        """When a workflow that starts now with this timeout is cancelled, in the database's clock."""
        return None if timeout is None else self.clock.now() + timeout

    def spawn(self, actor: WorkflowActor) -> None:
        """Brings a workflow to life; if the supervisor of its name is down, whoever has room does."""
        uuid, name = actor.workflow_uuid, actor.operation.name
        self.live[uuid] = actor
        try:
            run = actor.told if self.telemetry.on else actor.run
            self.crowds.by_name[name].spawn(str(uuid), run, on_exit=actor.exited)
        except SupervisorNotRunning:
            del self.live[uuid]
            actor.end(None)
            self.endings.let_go((uuid,), (name,), ring=True)
            return
        self.results.ring(uuid)
        if self.endings.pausing:
            self.endings.lives_again(actor)

    def is_between(self, workflow_uuid: UUID) -> bool:
        """Whether it is being recorded what becomes of a workflow that does not live: no next life before."""
        return workflow_uuid in self.endings.unsettled or workflow_uuid in self.spawner.held

    def has(self, workflow_uuid: UUID) -> bool:
        """Whether a workflow lives here, or something becomes of it here."""
        return workflow_uuid in self.live or self.is_between(workflow_uuid)

    def exited(self, actor: WorkflowActor, exit: Exit) -> None:
        """The last life of an actor is over: it finished, was stopped, or crashed."""
        if self.live.get(actor.workflow_uuid) is actor:
            del self.live[actor.workflow_uuid]
        if isinstance(exit, Crashed):
            self.suspensions.fell(actor)
            if not self.ends:
                self.endings.crashed(actor, exit.error)
        if actor.ended is None:
            actor.end(None)
        elif self.listeners:
            self.tell(None, actor.workflow_uuid, forget=True)  # who has asked while its end was becoming durable
        if actor.rung:  # it was just leaving memory when somebody rang
            self.activator.wake(actor.workflow_uuid)
        if self.suspensions.canaries or (actor.ended is not None and actor.ended.status is Status.CANCELLED):
            self.activator.ring()  # a canary may have passed; what was cancelled may have been resumed meanwhile
        self.activator.freed()
        if self.crowds.wanted:
            self.crowds.freed(actor.operation.name)

    # ------------------------------------------------------------------ time and rest, for tests

    async def look_at_the_clock(self) -> None:
        """The database's clock was moved: what is due by now is called back, and what is parked is looked for."""
        self.clock.sample(await self.look_ups.ask(executors.clock))
        self.timers.look()
        self.activator.ring()

    @property
    def resting(self) -> bool:
        """Whether every workflow that lives here waits durably, and all of it is recorded."""
        return (
            not self._fenced
            and self.committer.idle
            and not self.activator.busy
            and not self.endings.busy
            and not self.transactions.busy
            and all(actor.resting for actor in self.live.values())
        )

    # ------------------------------------------------------------------ bells

    def tell(self, batch: Batch | None, workflow_uuid: UUID, *, forget: bool = False) -> None:
        """Something becomes of a workflow with this batch: the executors that asked are told to look."""
        if self.listeners:
            for listener in self.listeners.get(workflow_uuid, ()):
                self.committer.ring(batch, bell_of(listener, workflow_uuid))
            if forget:
                self.listeners.pop(workflow_uuid, None)

    def _committed(self, batch: Batch) -> None:
        """A batch is durable that has something for somebody else: hands it over in memory."""
        for waiter in batch.woken:
            self.activator.wake(waiter)
        if batch.parked:
            self.spawner.recorded(batch)
        for park in batch.parked:
            if not (batch.failed and park.workflow_uuid in batch.failed):
                self.parker.answered(park)
        mail = batch.mail
        if mail is None:
            return
        for letter in mail.letters:
            if letter.delivery is Delivery.ASIDE:
                self._look(letter.destination)
            elif letter.delivery is Delivery.OURS_ALONE or letter.delivery is Delivery.OURS:
                actor = self.live.get(letter.destination)
                if letter.delivery is Delivery.OURS or letter.sequence is None:
                    self.activator.wake(letter.destination)
                elif actor is None:
                    self.activator.wake(letter.destination, letter)
                else:
                    actor.push(letter.topic, letter.sequence, letter.body, letter.traceparent)
        for (workflow_uuid, key), (_, value) in mail.events.items():
            if not (batch.failed and workflow_uuid in batch.failed):
                self.results.event_set(workflow_uuid, key, value)
        for park in mail.parks.values():
            self.parker.answered(park)

    def _heard(self, bell: str) -> None:
        """What other executors ring for.

        `work`: there may be some to claim. `wake:UUID,...`: look at these, which are ours; `wake:*`: at all;
        `look:UUID,...`: at those that live.
        `done:UUID`: something became of a workflow elsewhere. `tell:UUID:N`: tell executor N when it does of this one.
        `revoked`: workflows of ours were cancelled.
        """
        word, _, rest = bell.partition(":")
        if word == "work":
            self.activator.ring()
        elif word == "wake":
            if rest == "*":
                self.activator.ring()
            else:
                for uuid in rest.split(","):
                    self.activator.wake(UUID(uuid))
        elif word == "look":
            for uuid in rest.split(","):
                self._look(UUID(uuid))
        elif word == "done":
            self.results.ring(UUID(rest))
        elif word == "revoked":
            self.committer.look()
        elif word == "tell":
            uuid, _, listener = rest.partition(":")
            self._listen(UUID(uuid), int(listener))

    def _revoked(self, workflow_uuids: Sequence[UUID]) -> None:
        """Somebody has cancelled workflows of ours: nothing of them is recorded any more."""
        for workflow_uuid in workflow_uuids:
            actor = self.live.get(workflow_uuid)
            if actor is not None and not actor.over:
                actor.revoked()
            self.results.ring(workflow_uuid)
            self.tell(None, workflow_uuid, forget=True)

    def _look(self, workflow_uuid: UUID) -> None:
        """A message has come for a parked workflow that waits for other things: if it is just coming back, it looks."""
        actor = self.live.get(workflow_uuid)
        if actor is not None:
            actor.ring()

    def _listen(self, workflow_uuid: UUID, listener: int) -> None:
        self.listeners.setdefault(workflow_uuid, set()).add(listener)
        # Something may have become of it since the asker looked, and been recorded when nobody listened: so the asker
        # looks once more, when all that was recorded until now is durable.
        self.committer.ring(None, bell_of(listener, workflow_uuid))

    def _caught_up(self) -> None:
        """Listening again: what rang meanwhile is not known, so everything is looked at."""
        self.activator.ring()

    def gauges(self) -> Gauges:
        """How much is alive, for metrics; read in another thread."""
        return Gauges(len(self.live), self.parker.away, self.notifier.gauges().ping_seconds)

    # ------------------------------------------------------------------ the end

    @property
    def ends(self) -> bool:
        """Whether it was declared dead or drains: others see to what is left."""
        return self._fenced or self.draining

    def fence(self) -> None:
        """Somebody declared this incarnation dead: nothing of it counts any more."""
        if not self._fenced:
            self._fenced = True
            logger.warning("executor %d was declared dead; its workflows go on elsewhere", self.number)
            self.record(Kind.FENCED, f"executor {self.number} was declared dead; its workflows go on elsewhere")
            self._on_fenced(self)

    async def drain(self) -> None:
        """Lets what is being called or committed end, and begins nothing new."""
        self.draining = True
        self.record(Kind.DRAINING, f"executor {self.number} drains: {self.effects} calls are under way")
        deadline = asyncio.get_running_loop().time() + self._settings.shutdown_seconds
        while (self.effects or self.transactions.busy) and asyncio.get_running_loop().time() < deadline:
            self.quiet.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.quiet.wait(), deadline - asyncio.get_running_loop().time())

    def effect_ended(self) -> None:
        """A communicator is not being called any more, or pauses before it is called again."""
        self.effects -= 1
        if self.draining:
            self.quiet.set()

    async def evict(self) -> None:
        """Stops every actor; what they have recorded is all there is to them."""
        self.committer.seal()
        await self.crowds.stop_all()

    async def leave(self) -> None:
        """Makes durable what was recorded, then releases everything that is unfinished to the others, at once."""
        try:
            async with asyncio.timeout(self._settings.lease_seconds):
                await self.committer.drained()
                self._fenced = True  # by ourselves: leaving is no news
                async with self.look_ups.connection() as connection:
                    released = await executors.leave(connection, self.number)
                    if released:
                        await workflows.ring(connection, EVERYBODY, "work")
                    text = f"executor {self.number} left; {released} workflows are ready for others"
                    self.record(Kind.LEFT, text, released=released)
        except Exception as error:
            logger.warning("executor %d left without saying so: %s", self.number, error)

    async def close(self) -> None:
        """Gives back threads and connections, and tells who still waits here to look elsewhere."""
        self._fenced = True
        self.timers.close()
        self.mail_reader.close()
        await self.transactions.close()
        await self.lease.close()
        for writer in self._writers:
            await writer.close()
        for actor in list(self.live.values()):
            actor.end(None)
        self.live.clear()

    def __repr__(self) -> str:
        return f"<Incarnation {self.number}: {len(self.live)} live, {self.lease!r}>"


def bell_of(listener: int, workflow_uuid: UUID) -> str:
    """The notification that tells another executor to look at a workflow."""
    return f"{channel(listener)} done:{workflow_uuid}"
