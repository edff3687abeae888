"""Routes describe where HTTP reaches a function; `http/` serves them.

A route decorator goes above the operation's, so that it sees what it routes to. Over a plain function it makes a
`Handler`. The other order is refused where it is written.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Concatenate, Generic, Literal, ParamSpec, TypeVar, overload

from operon.authorization import authorized
from operon.contexts import HandlerContext
from operon.errors import CatalogError
from operon.operations import Described, Operation, unwrap_static

P = ParamSpec("P")
R = TypeVar("R")
O = TypeVar("O", bound=Operation[..., Any])  # noqa: E741

Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]


@dataclass(frozen=True, slots=True)
class Route:
    """A method and a path in Quart's syntax: `/shows/<show>`, `/orders/<uuid:order_id>`."""

    method: Method
    path: str


class Handler(Described, Generic[P, R]):
    """A plain function that serves HTTP: it gets a `HandlerContext`, and calls operations with it."""

    kind = "handler"

    def __init__(self, fn: Callable[Concatenate[HandlerContext, P], Awaitable[R]]) -> None:
        super().__init__(fn, None)

    async def __call__(self, ctx: HandlerContext, *args: P.args, **kwargs: P.kwargs) -> R:
        if self.required_roles:  # another handler may call it as well
            authorized(self.name, self.required_roles, ctx.caller)
        result: R = await self.fn(ctx, *args, **kwargs)
        return result


class Routed:
    """What `operon.get(path)` and its siblings return: a decorator."""

    __slots__ = ("_route",)

    def __init__(self, method: Method, path: str) -> None:
        if not path.startswith("/"):
            raise CatalogError(f"the path {path!r} does not begin with a slash", hint=f"write {'/' + path!r}")
        self._route = Route(method, path)

    # An operation is callable as well; the first overload that fits wins, so the overlap decides nothing.
    @overload
    def __call__(self, target: O, /) -> O: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, target: Handler[P, R], /) -> Handler[P, R]: ...
    @overload
    def __call__(self, target: Callable[Concatenate[HandlerContext, P], Awaitable[R]], /) -> Handler[P, R]: ...
    def __call__(self, target: Any, /) -> Any:
        described = target if isinstance(target, Described) else Handler(unwrap_static(target))
        described.routes = (*described.routes, self._route)
        return described


def get(path: str) -> Routed:
    """Serves GET requests of a path."""
    return Routed("GET", path)


def post(path: str) -> Routed:
    """Serves POST requests of a path."""
    return Routed("POST", path)


def put(path: str) -> Routed:
    """Serves PUT requests of a path."""
    return Routed("PUT", path)


def patch(path: str) -> Routed:
    """Serves PATCH requests of a path."""
    return Routed("PATCH", path)


def delete(path: str) -> Routed:
    """Serves DELETE requests of a path."""
    return Routed("DELETE", path)
