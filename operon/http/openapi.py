"""The OpenAPI 3.1 document of an application, from the same plan by which `arguments` reads a request.

The rule: it promises what is done, no more. An argument is required where a request without it is refused; an answer
is documented where the function's annotation tells it, and a plain handler without one may answer anything.

What it leaves out: that scalars of a body may also come as texts, and which paths a route's converter refuses.
"""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any

import msgspec

from operon.catalog import Catalog, Endpoint
from operon.errors import CatalogError
from operon.http.arguments import VARIABLE, Argument, plan
from operon.http.identity import KEY_HEADER, UUID_HEADER
from operon.http.problems import Problem
from operon.http.schemas import Schema, Schemas, is_masked
from operon.http.schemes import Scheme
from operon.operations import Described, Operation

PROBLEM = {"$ref": "#/components/responses/Problem"}

PARAMETERS: dict[str, Schema] = {
    "WorkflowUUID": {
        "name": UUID_HEADER,
        "in": "header",
        "description": "The identity of the workflow: the same UUID is the same workflow, and gets its result.",
        "schema": {"type": "string", "format": "uuid"},
    },
    "IdempotencyKey": {
        "name": KEY_HEADER,
        "in": "header",
        "description": "The identity of the workflow in the client's words; a UUID is taken as it stands.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 200, "pattern": "^[ -~]+$"},
    },
}

HEADERS: dict[str, Schema] = {
    "WorkflowUUID": {
        "description": "The workflow that ran. Sent again, it gets the same result.",
        "required": True,
        "schema": {"type": "string", "format": "uuid"},
    },
    "RequestID": {
        "description": "The request's `x-request-id`, or a new one. The server's log has it.",
        "required": True,
        "schema": {"type": "string"},
    },
    "RetryAfter": {
        "description": "Seconds after which to try again, with 429 and 503.",
        "schema": {"type": "integer", "minimum": 0},
    },
}


def document(
    catalog: Catalog,
    *,
    title: str,
    version: str,
    description: str | None = None,
    asks: Callable[[Described], Mapping[str, Scheme] | None] = lambda target: None,
) -> dict[str, Any]:
    """The OpenAPI document of a catalog's endpoints, as plain data.

    asks: the security schemes by which it is found out who calls a function, by name and as OpenAPI writes them; None
    where nobody asks. A function that is for known users names them, as alternatives, each with any of its roles; one
    that is open to everyone, with `()` for its roles, names none.

    Raises CatalogError for a route that cannot be served, and for two schemes of one name.
    """
    schemas = Schemas()
    problem = schemas.of(Problem)
    info = {"title": title, "version": version} | ({"description": description} if description else {})
    paths = Paths(schemas, asks)
    for endpoint in catalog.endpoints:
        paths.add(endpoint)
    components: dict[str, Any] = {
        "schemas": schemas.components,
        "responses": {"Problem": problem_response(problem)},
        "headers": HEADERS,
    }
    if any(isinstance(endpoint.target, Operation) for endpoint in catalog.endpoints):
        components["parameters"] = PARAMETERS
    if paths.schemes:
        components["securitySchemes"] = {name: dict(scheme) for name, scheme in paths.schemes.items()}
    return {"openapi": "3.1.0", "info": info, "paths": paths.items, "components": components}


class Paths:
    """The paths of a document, with what each method of them does."""

    __slots__ = ("_asks", "_identifiers", "_schemas", "_templates", "items", "schemes")

    def __init__(self, schemas: Schemas, asks: Callable[[Described], Mapping[str, Scheme] | None]) -> None:
        self.items: dict[str, dict[str, Any]] = {}
        self.schemes: dict[str, Scheme] = {}
        self._schemas = schemas
        self._asks = asks
        self._templates: dict[str, str] = {}
        self._identifiers: set[str] = set()

    def add(self, endpoint: Endpoint) -> None:
        """Adds an endpoint. Two that differ only by a converter, `<int:n>` and `<name>`, are one here: the first."""
        route = endpoint.route
        template = VARIABLE.sub(r"{\g<name>}", route.path)
        # Two templates that differ only by the names in them are forbidden: the names are the first one's.
        template = self._templates.setdefault(VARIABLE.sub("{}", route.path), template)
        variables = [match["name"] for match in VARIABLE.finditer(route.path)]
        names = dict(zip(variables, re.findall(r"{([^{}]+)}", template), strict=False))
        item = self.items.setdefault(template, {})
        if route.method.lower() not in item:
            item[route.method.lower()] = self._operation(endpoint, names)

    def _operation(self, endpoint: Endpoint, names: Mapping[str, str]) -> dict[str, Any]:
        target = endpoint.target
        arguments = plan(endpoint.route, target)
        operation: dict[str, Any] = {"operationId": self._identifier(target.name), **words(target)}
        if (tag := class_of(target)) is not None:
            operation["tags"] = [tag]
        parameters = self._parameters(arguments, names, target)
        if parameters:
            operation["parameters"] = parameters
        body = self._body([argument for argument in arguments if argument.location == "body"])
        if body is not None:
            operation["requestBody"] = body
        schemes = self._asks(target)
        for_known = bool(target.required_roles) or (target.required_roles is None and schemes is not None)
        refusals = problems(
            target,
            takes=bool(parameters) or body is not None,
            has_path=bool(names),
            has_body=body is not None,
            for_known=for_known,
        )
        operation["responses"] = dict(sorted((refusals | self._answers(target)).items()))
        if for_known and schemes:
            self._collect(schemes, target)
            # Alternatives: any scheme, with any of the roles.
            scopes = [[role] for role in target.required_roles or ()] or [[]]
            operation["security"] = [{scheme: scope} for scheme in schemes for scope in scopes]
        return operation

    def _collect(self, schemes: Mapping[str, Scheme], target: Described) -> None:
        for name, scheme in schemes.items():
            if self.schemes.setdefault(name, scheme) != scheme:
                raise CatalogError(
                    f"{target.name} at {target.where} asks for a security scheme {name!r}, another one than elsewhere",
                    hint="give one of the two another name, in @operon.security_scheme",
                )

    def _identifier(self, name: str) -> str:
        identifier, number = name, 1
        while identifier in self._identifiers:  # a function with several routes
            number += 1
            identifier = f"{name}_{number}"
        self._identifiers.add(identifier)
        return identifier

    def _parameters(
        self, arguments: Sequence[Argument], names: Mapping[str, str], target: Described
    ) -> list[dict[str, Any]]:
        found: dict[tuple[str, str], dict[str, Any]] = {}
        for argument in arguments:
            if argument.location == "body":
                continue
            in_path = argument.location == "path"
            parameter: dict[str, Any] = {
                "name": names[argument.name] if in_path else argument.name,
                "in": argument.location,
                "required": in_path or argument.required,
                "schema": self._schema(argument),
            }
            # Only headers are the same in any case.
            key = argument.name.lower() if argument.location == "header" else argument.name
            found.setdefault((argument.location, key), parameter)
        shared = [
            {"$ref": f"#/components/parameters/{key}"}
            for key, parameter in PARAMETERS.items()
            if isinstance(target, Operation) and ("header", parameter["name"].lower()) not in found
        ]
        return [*found.values(), *shared]

    def _body(self, arguments: Sequence[Argument]) -> dict[str, Any] | None:
        if not arguments:
            return None
        required = [argument.name for argument in arguments if argument.required]
        if arguments[0].whole:
            schema = self._schema(arguments[0])
        else:
            properties = {argument.name: self._schema(argument) for argument in arguments}
            schema = {"type": "object", "properties": properties, "required": required}
        return {"required": bool(required), "content": {"application/json": {"schema": schema}}}

    def _schema(self, argument: Argument) -> Schema:
        annotation = argument.reader.annotation
        schema = self._schemas.of(annotation)
        if argument.location != "body":
            schema = without_null(schema)
        if argument.reader.is_datetime and schema.get("type") == "string":
            schema = {"format": "date-time", **schema}  # what is surely taken; msgspec says nothing, as it takes more
        if argument.required or is_masked(annotation) or (argument.default is None and argument.location != "body"):
            return schema
        try:
            return {**schema, "default": msgspec.json.decode(msgspec.json.encode(argument.default))}
        except (TypeError, ValueError, RecursionError):  # a sentinel
            return schema

    def _answers(self, target: Described) -> dict[str, Any]:
        headers = {"x-request-id": {"$ref": "#/components/headers/RequestID"}}
        is_operation = isinstance(target, Operation)
        if is_operation:
            headers[UUID_HEADER] = {"$ref": "#/components/headers/WorkflowUUID"}
        answers: dict[str, Any] = {}
        content, may_be_none, may_be_anything = self._content(result_of(target), is_operation)
        if content:
            answers["200"] = {"description": "What the function returned.", "headers": headers, "content": content}
        if may_be_none:
            answers["204"] = {"description": "The function returned nothing.", "headers": headers}
        if may_be_anything:
            answers["default"] = {"description": "What the function answered.", "content": {"*/*": {}}}
        return answers

    def _content(self, result: Any, is_operation: bool) -> tuple[dict[str, Any], bool, bool]:
        """By media type what a result may be; whether it may be None; whether it may be any answer at all."""
        members = list(members_of(result))
        media = [media_of(member, is_operation=is_operation) for member in members]
        content: dict[str, Any] = {}
        if "anything" in media:
            if not is_operation:
                return {"*/*": {}}, True, True
            return {"application/json": {"schema": {}}, "text/plain": {"schema": {"type": "string"}}}, True, False
        for kind in dict.fromkeys(media):
            schemas = [self._schemas.of(member) for member, its in zip(members, media, strict=True) if its == kind]
            if kind != "nothing":
                content[kind] = {"schema": schemas[0] if len(schemas) == 1 else {"anyOf": schemas}}
        if "application/octet-stream" in content:
            content["application/octet-stream"] = {}  # as OpenAPI 3.1 says of bytes as they are
        return content, "nothing" in media, False

    def __repr__(self) -> str:
        return f"<Paths: {len(self.items)}>"


def problem_response(schema: Schema) -> dict[str, Any]:
    return {
        "description": "A problem, as RFC 9457 has it.",
        "headers": {
            "x-request-id": {"$ref": "#/components/headers/RequestID"},
            "retry-after": {"$ref": "#/components/headers/RetryAfter"},
        },
        "content": {"application/problem+json": {"schema": schema}},
    }


def problems(target: Described, *, takes: bool, has_path: bool, has_body: bool, for_known: bool) -> dict[str, Any]:
    """The refusals that an endpoint documents. Whatever else goes wrong is `default`, a problem too."""
    refusals: dict[str, str] = {}
    if takes:
        refusals["400"] = "The request does not fit; `errors` says where."
    if for_known:
        refusals["401"] = "The caller is not known."
        roles = ", ".join(target.required_roles or ())
        refusals["403"] = f"The caller has none of the roles {roles}." if roles else "The caller may not do this."
    if has_path:
        refusals["404"] = "There is nothing at this path."
    if isinstance(target, Operation):
        refusals["409"] = "The workflow of this UUID is another operation's or another user's."
    if has_body:
        refusals["413"] = "The body is too large."
        refusals["415"] = "The body is not JSON in UTF-8."
    refusals["default"] = "Anything else that went wrong, with the status that the error chose, or 500."
    return {status: {**PROBLEM, "description": words} for status, words in refusals.items()}


def words(target: Described) -> dict[str, str]:
    """The summary and the description, from the docstring."""
    summary, _, description = (inspect.getdoc(target.fn) or "").partition("\n\n")
    found = {"summary": " ".join(summary.split()), "description": description.strip()}
    return {key: text for key, text in found.items() if text}


def class_of(target: Described) -> str | None:
    """The class that the function was written in."""
    outer, _, _ = target.fn.__qualname__.rpartition(".")
    name = outer.rpartition(".")[2]
    return name if name and name != "<locals>" else None


def without_null(schema: Schema) -> Schema:
    """The schema of what is given as a text: there is no null among texts, it is left out instead."""
    if "anyOf" not in schema:
        return schema
    members = [member for member in schema["anyOf"] if member != {"type": "null"}]
    return members[0] if len(members) == 1 else {**schema, "anyOf": members}


def result_of(target: Described) -> Any:
    try:
        return target.signature.result.annotation
    except CatalogError:  # of a plain handler: a response, a stream
        return Any


def members_of(annotation: Any) -> Iterator[Any]:
    """The members of a union, each literal alone; a note on a whole union is dropped."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated and typing.get_origin(arguments[0]) in (typing.Union, types.UnionType, typing.Literal):
        yield from members_of(arguments[0])
    elif origin in (typing.Union, types.UnionType):
        for argument in arguments:
            yield from members_of(argument)
    elif origin is typing.Literal:
        yield from (typing.Literal[argument] for argument in arguments)
    elif annotation not in (typing.Never, typing.NoReturn):
        yield annotation


def media_of(annotation: Any, *, is_operation: bool) -> str:
    """What `answers` makes of a value: a media type, "nothing" for None, "anything" where it cannot be told."""
    try:
        info = msgspec.inspect.type_info(annotation)
    except Exception:  # an operation's codec knows more types than msgspec
        return "application/json" if is_operation else "anything"
    match info:
        case msgspec.inspect.NoneType() | msgspec.inspect.LiteralType(values=(None,)):
            return "nothing"
        case msgspec.inspect.StrType():
            return "text/plain"
        case msgspec.inspect.LiteralType(values=(str(),)):
            return "text/plain"
        case msgspec.inspect.BytesType() | msgspec.inspect.ByteArrayType() if not is_operation:
            return "application/octet-stream"
        case msgspec.inspect.TupleType() | msgspec.inspect.VarTupleType() if not is_operation:
            return "anything"  # it may be `(body, status)`
        case msgspec.inspect.AnyType() | msgspec.inspect.CustomType() | msgspec.inspect.UnionType():
            return "anything"
        case _:
            return "application/json"
