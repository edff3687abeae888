"""The application: collects operations, runs them, and serves their routes: `app = operon.Operon(__name__)`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from socket import socket
from types import TracebackType
from typing import Any, Self
from uuid import UUID

from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import TracerProvider

from operon.authorization import AuthenticationFunction, caller_named
from operon.catalog import Catalog, Namespace
from operon.config import Configuration, Settings, check_keywords, load
from operon.contexts import ApplicationContext, InvokingContext
from operon.errors import ConfigurationError, InputError
from operon.given import as_uuid
from operon.handles import WorkflowHandle
from operon.http import server
from operon.operations import Operation
from operon.rows import Row
from operon.runtime.executor import Executor
from operon.runtime.overview import Overview
from operon.telemetry.observer import Providers
from operon.topics import EventKey, Key, Topic


class Operon:
    """An application, and an ASGI application.

    namespaces: modules, names of modules (`__name__`) and classes whose operations and routes this application has.
    config: the application's own configuration, for `ctx.config`; its keys win over those of the configuration file.
    authentication: says who asks, for each request to a route whose class has no such function of its own:
        `Authenticated(user, roles)`, None for somebody unknown, or raises NotAuthorizedError. `async def` or `def`.
    quart: a Quart application to add the routes to; one is made otherwise. Serve either of the two: the given one
        has the routes as soon as its server has started.
    tracer_provider, meter_provider: where spans and metrics go; OpenTelemetry's global ones by default.
    Any setting of `operon.config.Settings` by its name, such as `database_url`.

    `async with app:` runs it without HTTP; `operon start module:app` and any ASGI server's lifespan run it with HTTP.
    Raises ConfigurationError and its kin, with what to do, before anything runs.
    """

    def __init__(
        self,
        *namespaces: Namespace,
        config: Mapping[str, Any] | None = None,
        authentication: AuthenticationFunction | None = None,
        quart: server.Quart | None = None,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        **settings: Any,
    ) -> None:
        if not namespaces:
            raise ConfigurationError("Operon() has nothing to run", hint="Operon(__name__, Class, ...)")
        self._namespaces = namespaces
        self._keywords = settings
        self._overrides: dict[str, Any] = {}
        self._options: dict[str, Any] = {}
        self._given_application: Mapping[str, Any] = dict(config or {})
        self._authentication = authentication
        self._given_quart = quart
        self._providers = Providers(tracer_provider, meter_provider)
        self._quart: server.Quart | None = None
        self._executor: Executor | None = None
        self._configuration: Configuration | None = None
        self._by_server = False
        check_keywords(settings)  # a wrong keyword is found where it is written
        if quart is not None:
            quart.before_serving(self._move_in)

    @property
    def configuration(self) -> Configuration:
        """What was configured and where, read on first use. Raises ConfigurationError."""
        if self._configuration is None:
            self._configuration = load(
                self._keywords,
                overrides=self._overrides,
                options=self._options,
                application=self._given_application,
            )
        return self._configuration

    @property
    def settings(self) -> Settings:
        """The settings: constructor, command line, environment, file, default."""
        return self.configuration.settings

    def override(self, **settings: Any) -> None:
        """Settings that win over every other, also over the constructor's: for tests, before the start."""
        self._overrides.update(settings)
        self._configuration = None

    def command_line(self, **settings: Any) -> None:
        """Settings of the command line, before the start. None is one that was not given."""
        self._options.update(settings)
        self._configuration = None

    @property
    def executor(self) -> Executor:
        """The executor, made on first use: this is where clashes of names are found."""
        if self._executor is None:
            self._executor = Executor(
                self.settings, Catalog(*self._namespaces), self.configuration.application, self._providers
            )
        return self._executor

    @property
    def quart(self) -> server.Quart:
        """The Quart application: blueprints, static files, websockets, anything that Quart can.

        Made on first use, so that comes after the last decorated function; it stays the same when the application is
        stopped and started again.
        """
        if self._quart is None:
            door = Door(lambda: self.executor)
            self._quart = server.build(
                self.executor.catalog,
                self.settings,
                door,
                self.configuration.application,
                name="operon",
                title=title_of(self._namespaces[0]),
                query=door.query,
                authentication=self._authentication,
                quart=self._given_quart,
                on_startup=self._start_by_server,
                on_shutdown=self._stop_by_server,
                telemetry=lambda: self.executor.telemetry,
                overview=lambda: Overview(self.executor),
            )
        return self._quart

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document of the application's endpoints, as plain data. Raises CatalogError."""
        return server.describe(
            self.executor.catalog, self.settings, title_of(self._namespaces[0]), self._authentication
        )

    def context(
        self, *, user: str | None = None, roles: Sequence[str] = (), workflow_uuid: UUID | str | None = None
    ) -> ApplicationContext:
        """A context to start workflows with, from a script, a test or another web framework.

        user, roles: for whom, which is believed; operations check the roles as they do for a request.
        workflow_uuid: the identity of what it starts, which makes the start idempotent.
        """
        identity = None if workflow_uuid is None else as_uuid(workflow_uuid, InputError)
        return self.executor.context(caller_named(user, roles), identity)

    async def _start(self) -> None:
        await self.executor.start(await self._database())

    async def _stop(self) -> None:
        await self.executor.stop()
        self._executor = None

    async def _move_in(self) -> None:
        """Whoever serves the given Quart application has not asked for `quart` here, and so has no routes yet.

        Quart runs its hooks in the order of their list, also those that one of them adds: the start follows.
        """
        _ = self.quart

    async def _start_by_server(self) -> None:
        """The lifespan of an ASGI server; `async with app:` may have been quicker."""
        if not self.executor.running:
            self._by_server = True
            await self._start()

    async def _stop_by_server(self) -> None:
        if self._by_server:
            self._by_server = False
            await self._stop()

    async def _database(self) -> str:
        settings = self.settings
        if settings.database_url is not None:
            return settings.database_url
        from operon.database import embedded  # POSIX only, and only needed without a database_url

        return await embedded.start(Path(settings.data_dir), production=settings.env == "production")

    async def __aenter__(self) -> Self:
        await self._start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stop()

    async def serve(
        self, started: Callable[[str], object], stop: asyncio.Event, listening: socket | None = None
    ) -> None:
        """Serves HTTP, as a child of the executor's supervisor, until `stop` is set. The executor has to run.

        started: called with the URL once it listens. listening: a socket that listens already. Raises PortInUse.
        """
        await self.executor.serve(
            lambda ready: server.serve(self.quart, self.settings, ready, stop, listening), started
        )

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """ASGI."""
        await self.quart(scope, receive, send)

    def __repr__(self) -> str:
        return f"<Operon {self._executor!r}>"


def title_of(namespace: Namespace) -> str:
    """What the documentation calls an application: like the first thing that is in it."""
    return namespace if isinstance(namespace, str) else namespace.__name__


class Door:
    """The way into whichever executor the application has now: its Quart is older than some and outlives them all."""

    __slots__ = ("_executor",)

    def __init__(self, executor: Callable[[], Executor]) -> None:
        self._executor = executor

    def invoke(
        self, operation: Operation[..., Any], ctx: InvokingContext, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Coroutine[Any, Any, Any]:
        return self._executor().invoker.invoke(operation, ctx, args, kwargs)

    def retrieve(self, ctx: InvokingContext, workflow_uuid: UUID, *, owned: bool = False) -> WorkflowHandle[Any]:
        return self._executor().invoker.retrieve(ctx, workflow_uuid, owned=owned)

    def send(
        self,
        ctx: InvokingContext,
        destination: UUID,
        message: Any,
        topic: Topic[Any] | str | None,
        key: Key | None,
        ignore_finished: bool,
        owned: bool,
    ) -> Coroutine[Any, Any, None]:
        return self._executor().invoker.send(ctx, destination, message, topic, key, ignore_finished, owned)

    def get_event(
        self,
        ctx: InvokingContext,
        workflow_uuid: UUID,
        key: EventKey[Any] | str,
        timeout: float | None,
        owned: bool,
    ) -> Coroutine[Any, Any, Any]:
        return self._executor().invoker.get_event(ctx, workflow_uuid, key, timeout, owned)

    async def query(self, statement: str, *args: Any) -> list[Row]:
        return await self._executor().query(statement, *args)

    def __repr__(self) -> str:
        return f"<Door of {self._executor()!r}>"
