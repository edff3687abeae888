"""The catalog of one application: which operations it has, by recorded name, and where HTTP reaches them.

Nothing registers itself at import. `Operon(module, Class, ...)` names the places, and this collects what it finds
there, so two applications can live in one process. Clashes are found here, at launch, and name both places.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from types import FunctionType, ModuleType
from typing import Any, cast

from operon.authorization import roles_marked, rules_of
from operon.codec import Codec
from operon.errors import CatalogError, UnknownOperationError
from operon.operations import Communicator, Described, Initializer, Operation, Transaction, Workflow, unwrap_static
from operon.routes import Handler, Route

ANYTHING: Codec[Any] = Codec(Any, "the result of an operation that this application does not have")

Namespace = str | ModuleType | type


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A route and what it reaches."""

    route: Route
    target: Described  # an Operation or a Handler


class Catalog:
    """The operations of one application."""

    def __init__(self, *namespaces: Namespace) -> None:
        self.operations: dict[str, Operation[..., Any]] = {}
        self.handlers: list[Handler[..., Any]] = []
        self.initializers: list[Initializer] = []
        for namespace in namespaces:
            for described in described_in(namespace):
                self.add(described)
        self._refuse_equal_routes()

    def add(self, described: Described) -> None:
        """Adds an operation or a handler; the same object twice is the same operation."""
        if isinstance(described, Handler):
            _ = described.signature.parameters  # what it returns is sent, not stored: a Response, a stream
            handler = cast("Handler[..., Any]", described)
            if handler not in self.handlers:
                self.handlers.append(handler)
            return
        described.signature.check()
        if isinstance(described, Initializer):
            if described not in self.initializers:
                self.initializers.append(described)
            return
        if not isinstance(described, Operation):
            raise CatalogError(f"{described!r} is neither an operation nor a handler")
        operation = cast("Operation[..., Any]", described)
        known = self.operations.setdefault(operation.name, operation)
        if known is not operation:
            raise CatalogError(
                f"two operations are named {described.name!r}: at {known.where} and at {described.where}",
                hint="rename one, or give it a recorded name of its own: name='...'",
            )

    def require(self, operation: Operation[..., Any]) -> None:
        """Refuses an operation that was not collected: nothing could recover it."""
        if self.operations.get(operation.name) is not operation:
            raise UnknownOperationError(
                f"{operation.name} at {operation.where} is not an operation of this application",
                hint="pass its module or class to Operon(...)",
            )

    def result_codec(self, name: str) -> Codec[Any]:
        """How a result of this operation is decoded; of an operation of another application, to plain JSON."""
        operation = self.operations.get(name)
        return ANYTHING if operation is None else operation.signature.result

    @property
    def endpoints(self) -> list[Endpoint]:
        """Every route of every operation and handler."""
        targets: list[Described] = [*self.operations.values(), *self.handlers]
        return [Endpoint(route, target) for target in targets for route in target.routes]

    def _refuse_equal_routes(self) -> None:
        seen: dict[Route, str] = {}
        for endpoint in self.endpoints:
            other = seen.setdefault(endpoint.route, endpoint.target.where)
            if other != endpoint.target.where:
                raise CatalogError(
                    f"two functions serve {endpoint.route.method} {endpoint.route.path}: "
                    f"at {other} and at {endpoint.target.where}",
                    hint="give one of them another path",
                )

    def __repr__(self) -> str:
        kinds = (Workflow, Transaction, Communicator)
        counts = (f"{sum(isinstance(op, kind) for op in self.operations.values())} {kind.kind}s" for kind in kinds)
        return f"<Catalog {', '.join(counts)}, {len(self.endpoints)} endpoints>"


def described_in(namespace: Namespace) -> Iterator[Described]:
    """The decorated functions of a module, a module's name, or a class and its bases."""
    if isinstance(namespace, str):
        module = sys.modules.get(namespace)
        if module is None:
            raise CatalogError(f"no module named {namespace!r} is imported", hint="pass __name__, a module or a class")
        namespace = module
    members: dict[str, Any] = {}
    for part in reversed(namespace.__mro__) if isinstance(namespace, type) else (namespace,):
        members.update(vars(part))
    for name, member in members.items():
        if isinstance(member, Described):
            if isinstance(namespace, type):
                refuse_other_rules(namespace, member)
            yield member
        elif isinstance(fn := unwrap_static(member), FunctionType) and roles_marked(fn) is not None:
            raise CatalogError(
                f"{namespace.__name__}.{name} requires roles, and nothing would check them",
                hint="make it an operation or a route: @operon.transaction, @operon.get(...)",
            )


def refuse_other_rules(namespace: type, member: Described) -> None:
    """An operation keeps the rules of the class that defines it; who inherits it may think otherwise."""
    if member.owner is not None and rules_of(namespace) != rules_of(member.owner):
        raise CatalogError(
            f"{namespace.__qualname__} has other roles, authentication or middleware than {member.owner.__qualname__}, "
            f"which it inherits {member.name} from",
            hint=f"decorate {member.owner.__qualname__}: its functions are the same ones for every subclass",
        )
