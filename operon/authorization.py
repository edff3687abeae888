"""Who may call what: the vocabulary of authentication and roles, and the one function that decides.

An authentication function says who asks, once for each request. From then on the caller travels with the work: every
operation that is called checks the caller's roles, in whatever life of the workflow, and nobody asks again. So the
decision is a plain function of the operation and the caller. It takes no step number and is not recorded: a replay
decides alike, as long as the code asks for the same roles.

Class decorators describe, like all the others: what they say is kept with the class and holds for the operations
defined in it and in its subclasses, never for those that it inherits.
"""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn, Protocol, TypeVar

from opentelemetry import trace

from operon.caller import NOBODY, Caller
from operon.errors import CatalogError, InvocationError, NotAuthorizedError
from operon.masking import masked_logger
from operon.rows import Row
from operon.telemetry.logs import FieldLogger

C = TypeVar("C", bound=type)
F = TypeVar("F")

ROLES_MAX = 1000  # they are stored with each workflow
NAME_CHARS_MAX = 255  # of a user or a role: what OpenID Connect allows for `sub`
UNFIT = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")  # breaks lines, logs, or the database's UTF-8
RULES = "__operon_rules__"
ROLES = "__operon_required_roles__"

logger = masked_logger("operon.application")


@dataclass(frozen=True, slots=True)
class Authenticated:
    """Who asks. `roles` may be any sequence of texts, of 1,000 at most.

    Users and roles are 1 to 255 characters without control characters; InvocationError for anything else.
    """

    user: str
    roles: Sequence[str] = ()

    def __post_init__(self) -> None:
        given: Any = self.roles  # whatever a database or a token held; a text would be a role for each letter
        if isinstance(given, str | bytes) or not hasattr(given, "__iter__"):
            raise InvocationError(f"roles are {given!r}", hint="a tuple of texts: roles=('admin',)")
        object.__setattr__(self, "roles", tuple(given))
        if len(self.roles) > ROLES_MAX:
            raise InvocationError(
                f"{self.user!r} has {len(self.roles)} roles",
                hint=f"at most {ROLES_MAX}: give those that operations ask for",
            )
        for kind, name in (("user", self.user), *(("role", role) for role in self.roles)):
            if not is_name(name):
                raise InvocationError(
                    f"a {kind} cannot be {name!r}",
                    hint=f"a text of 1 to {NAME_CHARS_MAX} characters, without control characters",
                )


def is_name(given: object) -> bool:
    """Whether this can be stored and compared as a user or a role."""
    return isinstance(given, str) and 0 < len(given) <= NAME_CHARS_MAX and UNFIT.search(given) is None


def caller_named(user: str | None, roles: Sequence[str]) -> Caller:
    """The caller that a script or a test speaks for; with neither user nor roles, nobody."""
    if user is None and not roles:
        return NOBODY
    named = Authenticated("nobody" if user is None else user, roles)
    return Caller(user, tuple(named.roles))


# ---------------------------------------------------------------------- the decision


def judge(operation_name: str, required: Sequence[str], caller: Caller) -> Caller | NotAuthorizedError:
    """The caller with the role that lets them through, or why nothing does.

    required: any of these is enough, and the first of them that the caller has is assumed. None at all opens.
    """
    if not required:
        return caller
    role = next((role for role in required if role in caller.roles), None)
    if role is not None:
        return caller if caller.assumed_role == role else replace(caller, assumed_role=role)
    if caller.user is None:
        return unknown(operation_name)
    return NotAuthorizedError(
        f"{operation_name} requires one of these roles: {', '.join(required)}",
        hint="the user is known, and has none of them",
    )


def authorized(operation_name: str, required: Sequence[str], caller: Caller) -> Caller:
    """Like `judge`, and raises the refusal."""
    verdict = judge(operation_name, required, caller)
    if isinstance(verdict, NotAuthorizedError):
        raise verdict
    return verdict


def unknown(operation_name: str) -> NotAuthorizedError:
    """The refusal of someone who did not say who they are."""
    return NotAuthorizedError(f"{operation_name} requires an authenticated user", status=401)


async def refuse(error: NotAuthorizedError) -> NoReturn:
    """A refusal as the coroutine of a call: raised where it is awaited, so that `gather` can have it."""
    raise error


# ---------------------------------------------------------------------- what functions are handed


class Query(Protocol):
    """Reads the database."""

    def __call__(self, statement: str, /, *args: Any) -> Coroutine[Any, Any, list[Row]]: ...


class MiddlewareContext:
    """What an authentication function and a middleware know of a request."""

    __slots__ = ("_query", "config", "operation_name", "request", "required_roles")

    def __init__(
        self,
        request: Any,
        operation_name: str,
        required_roles: tuple[str, ...] | None,
        config: Mapping[str, Any],
        query: Query,
    ) -> None:
        self.request = request
        """The Quart request."""
        self.operation_name = operation_name
        """What the request reaches."""
        self.required_roles = required_roles
        """Any of these is required. `()`: open to everyone. None: nothing was declared, any user may."""
        self.config = config
        """The application's own configuration."""
        self._query = query

    async def query(self, statement: str, *args: Any) -> list[Row]:
        """The rows of one SQL statement, in a read-only transaction of its own that sees the last commit.

        Raises InvocationError for a statement that writes, DatabaseUnavailable while the database is away.
        """
        return await self._query(statement, *args)

    @property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:
        """A standard logger whose records carry the operation."""
        return FieldLogger(logger, None, self.operation_name, None, None)

    @property
    def span(self) -> trace.Span:
        """The current OpenTelemetry span; a no-op one when no SDK is configured."""
        return trace.get_current_span()

    def __repr__(self) -> str:
        return f"<MiddlewareContext of {self.operation_name}>"


# `def` runs in a worker thread, as for communicators.
AuthenticationFunction = Callable[[MiddlewareContext], Awaitable[Authenticated | None] | Authenticated | None]
# The answer is a Quart response, and what comes back may be anything that Quart makes one of.
CallNext = Callable[[], Awaitable[Any]]
Middleware = Callable[[MiddlewareContext, CallNext], Awaitable[Any]]


# ---------------------------------------------------------------------- what decorators say


@dataclass(frozen=True, slots=True)
class Rules:
    """What class decorators say of the functions defined in a class."""

    authentication: AuthenticationFunction | None = None
    default_roles: tuple[str, ...] | None = None
    middleware: tuple[Middleware, ...] = ()


NO_RULES = Rules()


def rules_of(owner: type | None) -> Rules:
    """What holds for the functions defined in a class: its own decorators, and those of its bases."""
    rules = NO_RULES
    for part in reversed(owner.__mro__) if owner is not None else ():
        own = own_rules(part)
        rules = Rules(
            own.authentication or rules.authentication,
            rules.default_roles if own.default_roles is None else own.default_roles,
            rules.middleware + own.middleware,
        )
    return rules


def own_rules(owner: type) -> Rules:
    rules: Rules = vars(owner).get(RULES, NO_RULES)
    return rules


def authentication(fn: AuthenticationFunction, /) -> Callable[[C], C]:
    """Has a function say who asks, for every route of a class: `Operon(authentication=fn)` for a whole application.

    It runs once for each request, before arguments are read, and gives `Authenticated(user, roles)`, or None for
    somebody unknown; or it raises NotAuthorizedError. Then a route that declares no roles is for known users only;
    `required_roles()` opens it.
    """
    require_function("authentication", fn)

    def decorate(owner: C) -> C:
        own = require_class("authentication", owner)
        if own.authentication is not None:
            raise CatalogError(
                f"{owner.__qualname__} has two authentication functions", hint="write one that asks both"
            )
        return with_rules(owner, replace(own, authentication=fn))

    return decorate


def default_required_roles(*roles: str) -> Callable[[C], C]:
    """The roles, any of them, that the functions of a class require when they declare none of their own."""
    require_roles("default_required_roles", roles)

    def decorate(owner: C) -> C:
        return with_rules(owner, replace(require_class("default_required_roles", owner), default_roles=roles))

    return decorate


def middleware(*functions: Middleware) -> Callable[[C], C]:
    """Puts functions around the routes of a class, and of no other: `async def timed(ctx, call_next)`.

    `await call_next()` gives the answer, a Quart response, or raises what the function raised; what the middleware
    returns is sent instead. They run from the outermost to the innermost as written, a base class's first, each once,
    before authentication. What is for the whole application goes to `app.quart.before_request` and its siblings.
    """
    for fn in functions:
        require_function("middleware", fn)
        if not any(inspect.iscoroutinefunction(call) for call in (fn, type(fn).__call__)):
            raise CatalogError(f"the middleware {fn!r} is not `async def`", hint="async def timed(ctx, call_next): ...")

    def decorate(owner: C) -> C:
        own = require_class("middleware", owner)
        return with_rules(owner, replace(own, middleware=functions + own.middleware))

    return decorate


def required_roles(*roles: str) -> Callable[[F], F]:
    """The roles, any of them, that a caller of this function must have; none at all opens it to everyone.

    It goes above or below the decorator that makes the operation or the route. Checked at every call, from HTTP,
    from a workflow and from a script; NotAuthorizedError where it fails.
    """
    require_roles("required_roles", roles)

    def decorate(target: F) -> F:
        marked: Any = getattr(target, "__func__", target)  # the function under a @staticmethod
        if isinstance(marked, type) or not callable(marked):
            raise CatalogError(
                f"@operon.required_roles decorates functions, not {marked!r}",
                hint="for all functions of a class: @operon.default_required_roles(...)",
            )
        if roles_marked(marked) is not None:
            raise CatalogError(
                f"{marked!r} has two @operon.required_roles", hint="name every role in one: any is enough"
            )
        setattr(marked, ROLES, roles)
        return target

    return decorate


def roles_marked(function: object) -> tuple[str, ...] | None:
    """The roles that were declared for a function itself."""
    roles: tuple[str, ...] | None = getattr(function, ROLES, None)
    return roles


def with_rules(owner: C, rules: Rules) -> C:
    setattr(owner, RULES, rules)
    return owner


def require_class(decorator: str, owner: object) -> Rules:
    """The rules of a class that is being decorated."""
    if isinstance(owner, type):
        return own_rules(owner)
    raise CatalogError(
        f"@operon.{decorator} decorates classes, not {owner!r}",
        hint="for a whole application: Operon(authentication=fn), and app.quart.before_request",
    )


def require_function(decorator: str, fn: object) -> None:
    if isinstance(fn, type) or not callable(fn):
        raise CatalogError(f"@operon.{decorator} was given {fn!r}", hint=f"@operon.{decorator}(function)")


def require_roles(decorator: str, roles: tuple[object, ...]) -> None:
    for role in roles:
        if not is_name(role):
            raise CatalogError(
                f"@operon.{decorator} was given {role!r}",
                hint=f"roles as texts: @operon.{decorator}('admin', 'auditor')",
            )
