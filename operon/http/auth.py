"""Gate stands before one endpoint: the class's middleware around it, then who asks, then whether they may.

The rule: where somebody says who asks, nobody unknown passes unless the function was opened. A route that requires
roles where nobody says who asks could never answer, and is refused at launch.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from anyio import to_thread
from quart import make_response
from quart.wrappers import Request

from operon.authorization import (
    Authenticated,
    AuthenticationFunction,
    Middleware,
    MiddlewareContext,
    Query,
    authorized,
    rules_of,
    unknown,
)
from operon.caller import Caller
from operon.errors import CatalogError, ConfigurationError
from operon.operations import Described

Answer = Callable[[], Awaitable[Any]]


class Gate:
    """Who may reach one endpoint, and what happens on the way there."""

    __slots__ = ("_application", "_authenticate", "_middleware", "_query", "_target")

    def __init__(
        self,
        target: Described,
        authentication: AuthenticationFunction | None,
        application: Mapping[str, Any],
        query: Query,
    ) -> None:
        """`authentication` is the application's; the one of the target's class wins. Raises CatalogError."""
        rules = rules_of(target.owner)
        self._target = target
        self._authenticate = authentication_of(target, authentication)
        self._middleware = rules.middleware
        self._application = application
        self._query = query
        if target.required_roles and self._authenticate is None:
            raise CatalogError(
                f"{target.name} at {target.where} has a route and requires roles, and nobody says who asks",
                hint="Operon(authentication=fn), or @operon.authentication(fn) on its class",
            )

    async def caller(self, request: Request, caller: Caller) -> Caller:
        """The caller with user and roles. Raises NotAuthorizedError, and what the authentication function raises."""
        if self._authenticate is None:
            return caller
        name, required = self._target.name, self._target.required_roles
        found = await asked(self._authenticate, self._context(request))
        if found is not None:
            caller = replace(caller, user=found.user, roles=tuple(found.roles))
        elif required is None:
            raise unknown(name)
        return authorized(name, required or (), caller)

    async def answer(self, request: Request, answer: Answer) -> Any:
        """What `answer` gives, through the middleware; outermost first."""
        for layer in reversed(self._middleware):
            answer = around(layer, self._context(request), answer)
        return await answer()

    def _context(self, request: Request) -> MiddlewareContext:
        target = self._target
        return MiddlewareContext(request, target.name, target.required_roles, self._application, self._query)

    def __repr__(self) -> str:
        return f"<Gate of {self._target.name}: {self._authenticate!r}, {len(self._middleware)} middleware>"


def authentication_of(target: Described, otherwise: AuthenticationFunction | None) -> AuthenticationFunction | None:
    """Who says who calls a function: what its class has, or the application's."""
    return rules_of(target.owner).authentication or otherwise


async def asked(authenticate: AuthenticationFunction, ctx: MiddlewareContext) -> Authenticated | None:
    """What an authentication function says. One that is `def` runs in a thread: it may fetch keys, or hash."""
    call: Any = authenticate
    found: Any = call(ctx) if inspect.iscoroutinefunction(call) else await to_thread.run_sync(call, ctx)
    if inspect.isawaitable(found):  # an object, or a lambda, may be asynchronous without looking like it
        found = await found
    if found is not None and not isinstance(found, Authenticated):
        raise ConfigurationError(
            f"the authentication function {authenticate!r} gave {type(found).__name__}",
            hint="return Authenticated(user, roles), or None for somebody unknown",
        )
    return found


def around(layer: Middleware, ctx: MiddlewareContext, inner: Answer) -> Answer:
    """An answer with one middleware around it, which sees a response whatever the function returned."""

    async def call_next() -> Any:
        return await make_response(await inner())

    async def answer() -> Any:
        return await layer(ctx, call_next)

    return answer
