"""The executor: this process' part in running workflows.

It owns what outlives an incarnation (the database's address, connection pools, clients that wait for results) and
makes incarnations: one at start, another whenever the last one was declared dead.

    operon            one_for_one
    |- executor-N     the incarnation; replaced, not restarted, when it is fenced
    `- http           Quart on Hypercorn, when it is served from here
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from uuid import UUID

from actors import ChildSpec, ChildStartFailed, Crashed, Intensity, NoSuchChild, Restart, Supervisor
from operon.caller import Caller
from operon.catalog import Catalog
from operon.config import Settings
from operon.contexts import ApplicationContext, InitializerContext
from operon.database import executors
from operon.database.checkpoints import prepare_checkpoint
from operon.database.connection import LOOK_UP, Connection, connect_at_start
from operon.database.migrate import LOCK, migrate
from operon.database.pool import Pool
from operon.database.routes import Routes, find_routes
from operon.errors import DatabaseUnavailable, ExecutorStopped
from operon.invokers import StartOptions
from operon.masking import masked_logger
from operon.rows import Row
from operon.runtime.crowds import Crowds
from operon.runtime.entry import EntryInvoker
from operon.runtime.events import EventLog, Kind
from operon.runtime.incarnation import Incarnation
from operon.runtime.patience import PATIENCE_SECONDS
from operon.runtime.pulse import Pulse
from operon.runtime.query import query
from operon.runtime.recovery import grace_seconds
from operon.runtime.results import Results
from operon.runtime.spawn import Spawner
from operon.runtime.workflow_actor import WorkflowActor
from operon.telemetry.metrics import Gauges
from operon.telemetry.observer import GLOBAL_PROVIDERS, SILENT, Providers, telemetry

logger = masked_logger("operon.executor")
masked_logger("actors")  # which knows nothing of secrets, and logs the errors of ours

LOOK_UPS = 4  # connections for the runtime's own questions
REGISTER_SECONDS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
REGISTER_PATIENCE_SECONDS = 10.0  # at the start; later it is tried for as long as it takes


class Executor:
    """Runs the workflows of one application in this process."""

    def __init__(
        self,
        settings: Settings,
        catalog: Catalog,
        application: Mapping[str, Any],
        providers: Providers = GLOBAL_PROVIDERS,
    ) -> None:
        self.settings = settings
        self.catalog = catalog
        self.application = application
        self.invoker = EntryInvoker(self._spawner, self._replaced)
        self.new_uuid: Callable[[], UUID] | None = None  # for tests that want the same UUIDs again
        self.telemetry = SILENT
        self._providers = providers
        self._routes: Routes | None = None
        self._transactions: Pool | None = None
        self._look_ups: Pool | None = None
        self._results: Results | None = None
        self._incarnation: Incarnation | None = None
        self.left_behind: list[Crowds] = []  # of earlier incarnations, with workflows that did not stop
        self._replacing: asyncio.Task[None] | None = None
        self._crashing: asyncio.Task[None] | None = None
        self._events: EventLog | None = None
        self._pulse: Pulse | None = None
        self._tree_task: asyncio.Task[None] | None = None

    @functools.cached_property
    def tree(self) -> Supervisor:
        """The root of the supervision tree. Made on first use, because a supervisor belongs to an event loop, and an
        application is made at import, where there is none."""
        return Supervisor("operon", intensity=Intensity(restarts=5, period=60.0))

    # ------------------------------------------------------------------ start and stop

    async def start(self, url: str) -> None:
        """Migrates, runs the initializers, registers, and begins to look for work. Raises DatabaseUnusable."""
        self.telemetry = telemetry(self._providers)
        self.telemetry.observe(self._gauges)
        try:
            await self._start(url)
        except BaseException:
            await self.stop()
            raise

    async def _start(self, url: str) -> None:
        routes = await find_routes(url, self.settings.direct_url, listens=self.settings.notify == "on")
        connection = await connect_at_start(routes.own.url, pooled=routes.own.pooled)
        try:
            await migrate(connection)
            await self._initialize(connection)
        except Exception as error:
            if connection.is_closed():
                raise DatabaseUnavailable(
                    "the database went away at the start", hint="start again when it is up"
                ) from error
            raise
        finally:
            await connection.close()
        self._routes = routes
        many = routes.many
        self._transactions = Pool(many.url, self.settings.pool_size, prepare_checkpoint, pooled=many.pooled)
        self._look_ups = Pool(many.url, LOOK_UPS, session=LOOK_UP, pooled=many.pooled)
        self._results = Results(self.catalog, self._look_ups, self._actor, lambda: self.incarnation.number)
        started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tree_task = asyncio.create_task(self.tree.run(lambda: started.set_result(None)))
        await started
        self._events = events = EventLog(self._look_ups, self.telemetry.happened, self._name_of)
        self._pulse = Pulse(self, events, self.settings.heartbeat_seconds)
        self.tree.observe(events.observed)
        await self.tree.start(ChildSpec.task("events", events.run))
        await self.tree.start(ChildSpec.task("pulse", self._pulse.run))
        self._replacing = asyncio.get_running_loop().create_task(self._incarnate())  # whoever comes now waits for it
        await self._replacing

    async def stop(self) -> None:
        """Ends what is in flight, makes it durable, releases the rest to other executors."""
        self.telemetry.forget(self._gauges)
        if self._replacing is not None:
            self._replacing.cancel()
        incarnation = self._incarnation
        if incarnation is not None:
            await incarnation.drain()
            await incarnation.evict()
            await incarnation.leave()
        await self._end_tree()
        if self._events is not None:
            await self._events.flush()
        if incarnation is not None:
            await incarnation.close()
        self._incarnation = None
        if self._results is not None:
            self._results.close()
        for pool in (self._transactions, self._look_ups):
            if pool is not None:
                await pool.close()

    async def _end_tree(self) -> None:
        if self._tree_task is not None:
            self._tree_task.cancel()
            await asyncio.gather(self._tree_task, return_exceptions=True)

    async def _initialize(self, connection: Connection) -> None:
        """Initializers run before any workflow does, each in one process at a time."""
        for initializer in self.catalog.initializers:
            async with connection.transaction():
                await connection.execute("select pg_advisory_xact_lock($1)", LOCK)
                await initializer.fn(InitializerContext(self.application, connection))

    # ------------------------------------------------------------------ incarnations

    @property
    def results(self) -> Results:
        """Where results of any workflow are waited for."""
        if self._results is None:
            raise not_running()
        return self._results

    @property
    def running(self) -> bool:
        """Whether it was started and not stopped."""
        return self._incarnation is not None

    @property
    def incarnation(self) -> Incarnation:
        """The living incarnation. ExecutorStopped when there is none."""
        if self._incarnation is None:
            raise not_running()
        return self._incarnation

    @property
    def events(self) -> EventLog:
        """Where events are told of. ExecutorStopped when it does not run."""
        if self._events is None:
            raise not_running()
        return self._events

    @property
    def pulse(self) -> Pulse:
        """What looks at this executor. ExecutorStopped when it does not run."""
        if self._pulse is None:
            raise not_running()
        return self._pulse

    @property
    def look_ups(self) -> Pool:
        """The connections for the runtime's own questions. ExecutorStopped when it does not run."""
        if self._look_ups is None:
            raise not_running()
        return self._look_ups

    async def _incarnate(self) -> None:
        """Registers, and starts the parts."""
        if self._routes is None or self._transactions is None or self._look_ups is None or self._results is None:
            raise not_running()
        version, lease_seconds = self.settings.version, self.settings.lease_seconds
        grace = grace_seconds(self.settings.poll_seconds)
        number, now = await self._look_ups.ask(  # one that was registered and does not know it is declared dead
            lambda connection: executors.register(connection, version, lease_seconds, grace), REGISTER_PATIENCE_SECONDS
        )
        incarnation = Incarnation(
            number,
            self._routes,
            self.settings,
            self.catalog,
            self.application,
            self._transactions,
            self._look_ups,
            self._results,
            now,
            self._fenced,
            self.events.record,
            self.telemetry,
        )
        if self.new_uuid is not None:
            incarnation.new_uuid = self.new_uuid
        self._incarnation = incarnation
        incarnation.record(Kind.STARTED, f"executor {number} started: process {os.getpid()} of {socket.gethostname()}")
        incarnation.lease.start()
        ref = await self.tree.start(ChildSpec.nested(incarnation.tree(), restart=Restart.TEMPORARY))
        ref.watch(lambda exit: incarnation.fence() if isinstance(exit, Crashed) else None)
        self._results.ring_all()

    def _fenced(self, incarnation: Incarnation) -> None:
        if incarnation is self._incarnation:
            self._replacing = asyncio.get_running_loop().create_task(self._replace(incarnation))

    async def _replace(self, incarnation: Incarnation) -> None:
        """Drops a fenced incarnation, actors and all, and makes another."""
        with contextlib.suppress(NoSuchChild):  # it may have given up by itself
            await self.tree.stop(f"executor-{incarnation.number}")
        await incarnation.close()
        self.left_behind = [each for each in (*self.left_behind, incarnation.crowds) if any(each.stuck)]
        if self._look_ups is not None:  # also when nobody else said so: what it left is ready for anybody
            await self._look_ups.ask(lambda connection: executors.leave(connection, incarnation.number))
        failures = 0
        while True:
            try:
                return await self._incarnate()
            except Exception as error:
                logger.warning("no new incarnation yet: %s", error)
                await asyncio.sleep(REGISTER_SECONDS[min(failures, len(REGISTER_SECONDS) - 1)])
                failures += 1

    async def serve(
        self, serve: Callable[[Callable[[str], None]], Awaitable[None]], started: Callable[[str], object]
    ) -> None:
        """Runs an HTTP server as a child of the tree until it returns. Raises what it could not start with."""

        async def run(ready: Callable[[], None]) -> None:
            def listening(url: str) -> None:
                ready()
                started(url)

            await serve(listening)

        try:
            http = await self.tree.start(ChildSpec.task("http", run, restart=Restart.TRANSIENT, stop_timeout=None))
        except ChildStartFailed as error:
            raise error.__cause__ or error from None
        exit = await http.wait()
        if isinstance(exit, Crashed):
            raise exit.error

    # ------------------------------------------------------------------ crashes, for tests

    async def crash(self) -> None:
        """Drops this incarnation as `kill -9` would, and waits for the next one."""
        incarnation = self.incarnation
        async with incarnation.look_ups.connection() as connection:
            await executors.kill(connection, incarnation.number)
        incarnation.fence()
        if self._replacing is not None:
            await self._replacing

    @property
    def resting(self) -> bool:
        """Whether every workflow that lives here waits durably, and no crash is under way."""
        crashes = (self._crashing, self._replacing)
        return all(task is None or task.done() for task in crashes) and self.incarnation.resting

    def crash_after(self, checkpoint: int) -> Callable[[], bool]:
        """Crashes once, when that many steps have been recorded; gives whether it has happened."""
        left = checkpoint

        def recorded() -> bool:
            nonlocal left
            left -= 1
            if left == 0:
                self._crashing = asyncio.get_running_loop().create_task(self._crash_durably())
            return left == 0

        self.incarnation.on_checkpoint = recorded
        return lambda: left <= 0

    # ------------------------------------------------------------------ what the outside asks for

    def context(self, caller: Caller, workflow_uuid: UUID | None) -> ApplicationContext:
        """A context to start workflows with."""
        options = StartOptions(workflow_uuid)
        return ApplicationContext(self.invoker, workflow_uuid, caller, self.application, options)

    async def query(self, statement: str, *args: Any) -> list[Row]:
        """The rows of one statement that only reads."""
        if self._look_ups is None:
            raise not_running()
        return await query(self._look_ups, statement, args)

    async def _crash_durably(self) -> None:
        await self.incarnation.committer.drained()
        await self.crash()

    def _spawner(self) -> Spawner:
        return self.incarnation.spawner

    async def _replaced(self) -> None:
        """Waits for the incarnation that follows a fenced one; DatabaseUnavailable when it is long in coming."""
        if self._replacing is None:
            return
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await asyncio.shield(self._replacing)
        except TimeoutError:
            raise DatabaseUnavailable(
                f"this executor was declared dead, and for {PATIENCE_SECONDS:g} s could not register anew",
                hint="try again when the database is back, with the same workflow UUID or idempotency key",
            ) from None

    def _name_of(self, workflow_uuid: UUID) -> str | None:
        actor = None if self._incarnation is None else self._incarnation.live.get(workflow_uuid)
        return None if actor is None else actor.operation.name

    def _gauges(self) -> Gauges:
        return self._incarnation.gauges() if self._incarnation is not None else Gauges()

    def _actor(self, workflow_uuid: UUID) -> WorkflowActor | None:
        return self.incarnation.live.get(workflow_uuid)

    def __repr__(self) -> str:
        return f"<Executor of {self.catalog!r}: {self._incarnation!r}>"


def not_running() -> ExecutorStopped:
    return ExecutorStopped(
        "the executor does not run",
        hint="`operon start`, the lifespan of an ASGI server, or `async with app:` runs it",
    )
