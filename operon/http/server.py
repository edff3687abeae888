"""The application's endpoints on a Quart app, and `serve`, which listens for it.

The journey of a request: Quart's routing -> `auth`, which says who asks -> `identity` and `arguments`, whose complaints
are raised together -> a `HandlerContext` -> the function -> `answers`, or `problems` where it raised.

The rule: a client that goes away takes nothing with it but its own answer. Quart cancels the request then; so the call
of a single operation runs in a task of its own. A workflow does so anyway, and only the waiting for it is cancelled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, cast

from quart import Quart, Response, has_request_context
from quart.globals import request_ctx
from quart.typing import TestClientProtocol as HttpClient
from quart.wrappers import Request
from werkzeug.exceptions import HTTPException

from operon.authorization import AuthenticationFunction, Query
from operon.caller import Caller
from operon.catalog import Catalog, Endpoint
from operon.config import Settings
from operon.contexts import HandlerContext
from operon.errors import CatalogError
from operon.http import answers, exchange, problems
from operon.http.arguments import Arguments
from operon.http.auth import Gate, authentication_of
from operon.http.docs_page import pages
from operon.http.health import health
from operon.http.identity import KEY_HEADER, UUID_HEADER, fresh, identify
from operon.http.listener import listen, serve, url_of
from operon.http.openapi import document
from operon.http.refusals import BadInput, Complaint
from operon.http.schemes import Scheme, schemes_of
from operon.http.supervisor import supervision
from operon.http.tracing import ServerSpans, served_of
from operon.invokers import Invoker, StartOptions
from operon.masking import masked_logger
from operon.operations import Described, Operation, Workflow
from operon.routes import Handler
from operon.runtime.overview import Overview
from operon.telemetry.hidden import hide
from operon.telemetry.observer import SILENT, Telemetry

__all__ = ["HttpClient", "Quart", "build", "listen", "serve", "url_of"]

Hook = Callable[[], Awaitable[None]]

UUID_NAME, KEY_NAME = UUID_HEADER.lower().encode(), KEY_HEADER.lower().encode()


def build(
    catalog: Catalog,
    settings: Settings,
    invoker: Invoker,
    application: Mapping[str, Any],
    *,
    name: str,
    title: str | None = None,
    query: Query,
    authentication: AuthenticationFunction | None = None,
    quart: Quart | None = None,
    on_startup: Hook | None = None,
    on_shutdown: Hook | None = None,
    telemetry: Callable[[], Telemetry] = lambda: SILENT,
    overview: Callable[[], Overview] | None = None,
) -> Quart:
    """Adds the endpoints of a catalog to a Quart app, a new one unless one is given.

    A new app answers every error as a problem document, also an unknown URL. A given one keeps its own error pages
    and limits for its own routes.

    name: what Quart calls a new app. title: what the documentation calls the application; its name by default.
    authentication: says who asks, for every endpoint whose class has no function of its own for that. Routes of the
    given app that are not endpoints are its own business.
    query: what authentication functions read the database with.
    on_startup, on_shutdown: run in the ASGI lifespan, before and after serving; also under `serve`, so what they
    start must not be started twice.
    telemetry: what tells of requests; asked for with each of them.
    overview: what tells of the executor's health and supervision.
    Raises CatalogError for a route that cannot be served.
    """
    app = quart if quart is not None else own_quart(name, settings)
    surface = Surface(app, whole_app=quart is None)
    for endpoint in catalog.endpoints:
        gate = Gate(endpoint.target, authentication, application, query)
        surface.add(View(endpoint, settings, invoker, application, gate))
    if settings.docs:
        for path, page in pages(lambda: describe(catalog, settings, title or name, authentication)).items():
            surface.add_page(path, page)
    if overview is not None:
        for path, page in {**health(overview), **supervision(overview, settings)}.items():
            surface.add_page(path, page, ours=False)
    app.asgi_app = ServerSpans(app.asgi_app, telemetry)  # type: ignore[method-assign] # as Quart's own manual does
    if on_startup is not None:
        app.before_serving(on_startup)
    if on_shutdown is not None:
        app.after_serving(on_shutdown)
    return app


def describe(
    catalog: Catalog, settings: Settings, title: str, authentication: AuthenticationFunction | None
) -> dict[str, Any]:
    """The OpenAPI document of these endpoints. Raises CatalogError for a route that cannot be served."""

    def asks(target: Described) -> Mapping[str, Scheme] | None:
        function = authentication_of(target, authentication)
        return None if function is None else schemes_of(function)

    return document(catalog, title=title, version=settings.version, asks=asks)


def own_quart(name: str, settings: Settings) -> Quart:
    quart = Quart(name)
    quart.config["MAX_CONTENT_LENGTH"] = settings.body_limit_bytes
    # Quart's session cookie is out of reach of scripts by default; no other site sends it along either, and in
    # production, where a proxy speaks TLS, it is never sent in the clear.
    quart.config["SESSION_COOKIE_HTTPONLY"] = True
    quart.config["SESSION_COOKIE_SAMESITE"] = "Lax"
    quart.config["SESSION_COOKIE_SECURE"] = settings.env == "production"
    return quart


class View:
    """What one endpoint does with a request."""

    def __init__(
        self, endpoint: Endpoint, settings: Settings, invoker: Invoker, application: Mapping[str, Any], gate: Gate
    ) -> None:
        self.route = endpoint.route
        self.target: Any = endpoint.target  # Any, because an operation is a descriptor to a checker
        self._invoker = invoker
        self._application = application
        self._gate = gate
        self._arguments = Arguments(self.route, self.target, settings.body_limit_bytes)
        self._secret_path = self.target.signature.masks and "<" in self.route.path
        self._calls: set[asyncio.Task[Any]] = set()

    async def answer(self, request: Request, variables: Mapping[str, Any]) -> Any:
        """What Quart makes a response of."""
        served = served_of(request)
        if served is None:
            return await self._gate.answer(request, lambda: self._answer(request, variables))
        served.routed(self.route.path, secret=self._secret_path)
        try:
            return await self._gate.answer(request, lambda: self._answer(request, variables))
        except Exception as error:
            if problems.status_of(error) >= 500:  # others are the client's, and may quote what it sent
                served.failed(error)
            raise

    async def _answer(self, request: Request, variables: Mapping[str, Any]) -> Any:
        target = self.target
        anybody = Caller(request=exchange.parts(request), traceparent=exchange.traceparent(request))
        caller = await self._gate.caller(request, anybody)
        complaints: list[Complaint] = []
        uuids, keys = exchange.values(request, UUID_NAME), exchange.values(request, KEY_NAME)
        identity = identify(uuids, keys, complaints)
        args, kwargs = await self._arguments.read(request, variables, complaints)
        if complaints:
            raise BadInput(complaints)
        if target.signature.masks:
            hide(target.signature.secrets(args, kwargs))
        workflow_uuid = identity.workflow_uuid
        if isinstance(target, Operation):
            workflow_uuid = identity.of_operation(target.name, caller.user)
            if workflow_uuid is None and not isinstance(target, Workflow):
                workflow_uuid = fresh()  # there is no handle that would tell it
        ctx = HandlerContext(
            self._invoker,
            caller,
            self._application,
            http_request=request,
            idempotency_key=identity.key,
            options=StartOptions(workflow_uuid=workflow_uuid),
            operation_name=target.name,
        )
        if isinstance(target, Handler):
            return answers.of_handler(await target(ctx, *args, **kwargs))
        if workflow_uuid is not None:
            exchange.remember_workflow(request, workflow_uuid)
        call = cast("Coroutine[Any, Any, Any]", target(ctx, *args, **kwargs))
        if isinstance(target, Workflow):
            handle = await call  # cancelled with the request, the start is on its way all the same
            exchange.remember_workflow(request, handle.workflow_uuid)
            value = await handle.get_result()  # cancelled with the request; the workflow does not notice
        else:
            value = await self._finish(call)
        return answers.of_value(value, target.signature.result.encode)

    async def _finish(self, call: Coroutine[Any, Any, Any]) -> Any:
        """Awaits a call that goes on when the client is gone."""
        task = asyncio.create_task(call)
        self._calls.add(task)  # the loop holds tasks weakly
        task.add_done_callback(self._calls.discard)
        return await asyncio.shield(task)

    def __repr__(self) -> str:
        return f"<View {self.route.method} {self.route.path} of {self.target.name}: {len(self._calls)} calls>"


class Surface:
    """Where the endpoints touch a Quart app: its routes, its error handlers, its answers' headers."""

    __slots__ = ("_names", "_otherwise", "_quart", "_whole_app")

    def __init__(self, quart: Quart, *, whole_app: bool) -> None:
        self._quart = quart
        self._whole_app = whole_app
        self._names: set[str] = set()
        # Quart takes the handler of the nearest class, so an application's own handlers of its own errors win. One
        # that it has for all of them goes on to serve its own routes.
        self._otherwise = quart.error_handler_spec[None][None].get(Exception)
        quart.register_error_handler(Exception, self._error)
        quart.after_request(self._stamp)
        masked_logger(quart.name)  # Quart's logger, by name: `quart.logger` would configure logging

    def add(self, view: View) -> None:
        """Adds one route."""

        async def answer(**variables: Any) -> Any:
            return await view.answer(request_ctx.request, variables)

        route, target = view.route, view.target
        name = self._name(target.name)
        try:
            self._quart.add_url_rule(route.path, name, answer, methods=[route.method])
        except (ValueError, LookupError, TypeError) as error:
            raise CatalogError(
                f"{target.name} at {target.where}: the path {route.path!r} is malformed: {error}",
                hint="write variables as <name> or <converter:name>; converters: string, int, float, path, uuid, any",
            ) from error
        self._names.add(name)

    def add_page(self, path: str, page: Callable[[], Awaitable[Response]], *, ours: bool = True) -> None:
        """Adds a page, unless the application has one there. One that is not `ours` fails as an unknown path would."""
        if not any(rule.rule == path for rule in self._quart.url_map.iter_rules()):
            name = self._name(f"operon:{path}")
            self._quart.add_url_rule(path, name, page, methods=["GET"])
            if ours:
                self._names.add(name)

    def _name(self, target_name: str) -> str:
        """The name for `url_for`. Dots would be blueprints to Quart; a second route of a function gets a number."""
        name = target_name.replace(".", ":")
        while name in self._quart.view_functions:
            base, _, number = name.partition("#")
            name = f"{base}#{int(number or 1) + 1}"
        return name

    def _covers(self) -> bool:
        if not has_request_context():  # a websocket
            return False
        return self._whole_app or self._has(request_ctx.request)

    def _has(self, request: Request) -> bool:
        return request.url_rule is not None and request.url_rule.endpoint in self._names

    async def _error(self, error: Exception) -> Any:
        is_answer = isinstance(error, HTTPException) and (error.response is not None or (error.code or 500) < 400)
        if self._covers() and not is_answer:
            return problems.answer(error, request_ctx.request)
        if self._otherwise is not None:
            return await self._quart.ensure_async(self._otherwise)(error)
        if isinstance(error, HTTPException):
            return error
        raise error

    async def _stamp(self, response: Response) -> Response:
        request = request_ctx.request
        if self._whole_app or self._has(request):
            exchange.stamp(request, response)
        return response

    def __repr__(self) -> str:
        return f"<Surface {self._quart.name}: {len(self._names)} routes>"
