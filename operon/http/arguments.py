"""From a request to a function's arguments, by name and annotated type.

The rule, for a parameter without a marker:
1. A variable of the route (`/shows/<show>`) is the parameter of that name.
2. GET and DELETE take the rest from the query string. A parameter of a list type takes every value of its key.
3. POST, PUT and PATCH take the rest from the JSON body, by name; the query string is not looked at.
4. If exactly one parameter is left for the body, and its type is one that JSON writes as an object (Struct,
   dataclass, TypedDict, dict), it is the whole body. Lists and scalars go by name: `{"tags": ["a"]}`.

`Path`, `Query`, `Header` and `Body` in `Annotated` say otherwise. A default makes a parameter optional; `X | None`
alone does not, it allows `null`. What the JSON types say is kept: `0`, `false`, `""` and `null` are values.

Texts (path, query, headers) are converted as far as they can be without guessing: "10.1" is a number, `true`, `t`,
`1` are booleans. A scalar in the body may be given as such a text too; inside objects and lists JSON is taken strictly.

Every plan is made once, when the route is added, so that what can never work is refused at launch.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, cast, get_args, get_origin
from urllib.parse import parse_qsl, unquote_to_bytes

import msgspec
from quart.wrappers import Request
from werkzeug.exceptions import RequestEntityTooLarge

from operon.errors import CatalogError
from operon.http.exchange import header, scope_of
from operon.http.markers import MARKERS, Body, Header, Marker, Path, Query
from operon.http.misfits import Misfits
from operon.http.reader import Reader
from operon.http.refusals import BadInput, BodyTooLarge, Complaint, Location, UnsupportedContent, misfit, required
from operon.operations import Described
from operon.routes import Route

QUERY_FIELDS_MAX = 1000
ABSENT: Any = inspect.Parameter.empty  # not given, which is not None: `null` is a value
VARIABLE = re.compile(r"<(?:[^<>]*:)?(?P<name>[^<>:]+)>")  # <show>, <uuid:order_id>, <string(length=2):code>

read_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


@dataclass(frozen=True, slots=True)
class Argument:
    """Where one argument comes from, and how it is read."""

    parameter: str
    location: Location
    name: str  # what the client calls it
    reader: Reader
    whole: bool = False  # the body itself, not a key of it
    default: Any = inspect.Parameter.empty
    keyword_only: bool = False

    @property
    def required(self) -> bool:
        return self.default is inspect.Parameter.empty


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of a request that arguments come from. `body` is None when it is empty."""

    path: Mapping[str, Any]
    query: Mapping[str, Sequence[str]]
    headers: Mapping[str, Sequence[str]]
    body: bytes | None


class Arguments:
    """The plan of one endpoint: for each parameter a place in the request."""

    __slots__ = ("_arguments", "_body_limit_bytes", "_header_names", "_reads_body", "_reads_query")

    def __init__(self, route: Route, target: Described, body_limit_bytes: int) -> None:
        """Raises CatalogError for what can never be served."""
        self._arguments = plan(route, target)
        self._body_limit_bytes = body_limit_bytes
        self._reads_body = any(argument.location == "body" for argument in self._arguments)
        self._reads_query = any(argument.location == "query" for argument in self._arguments)
        self._header_names = [argument.name for argument in self._arguments if argument.location == "header"]

    async def read(
        self, request: Request, path: Mapping[str, Any], complaints: list[Complaint]
    ) -> tuple[list[Any], dict[str, Any]]:
        """Positional and keyword arguments. What is wrong is appended to `complaints`, and then they must not be used.

        Raises BodyTooLarge and UnsupportedContent, which no correction of a field would help.
        """
        body = await self._body(request) if self._reads_body else None
        if body is not None:
            require_json(request)
        if path and not is_utf8_path(request):
            complaints.append(Complaint("path", "", "not UTF-8"))
        query = read_query(request.query_string, complaints) if self._reads_query else {}
        headers = {name: request.headers.getlist(name) for name in self._header_names}
        return take(self._arguments, Parts(path, query, headers, body), complaints)

    async def _body(self, request: Request) -> bytes | None:
        try:
            body = await request.get_data(as_text=False)
        except RequestEntityTooLarge:
            raise too_large(self._body_limit_bytes) from None
        if len(body) > self._body_limit_bytes:  # an application's own Quart may have a higher limit
            raise too_large(self._body_limit_bytes)
        return cast("bytes", body) if body.strip() else None

    def __repr__(self) -> str:
        return f"<Arguments {', '.join(f'{each.parameter} from {each.location}' for each in self._arguments)}>"


def take(arguments: Sequence[Argument], parts: Parts, complaints: list[Complaint]) -> tuple[list[Any], dict[str, Any]]:
    """The arguments that the parts of a request give."""
    fields = body_fields(arguments, parts.body, complaints)
    positional: list[Any] = []
    named: dict[str, Any] = {}
    for argument in arguments:
        if fields is None and argument.location == "body":
            continue  # the body as a whole was complained of
        name = "" if argument.whole else argument.name
        try:
            value = value_of(argument, parts, fields or {})
        except (ValueError, RecursionError) as error:
            each = error.each if isinstance(error, Misfits) else [("", error)]
            complaints.extend(misfit(argument.location, name + path, one) for path, one in each)
            continue
        if value is ABSENT:
            if argument.required:
                complaints.append(required(argument.location, name))
                continue
            value = argument.default
        if argument.keyword_only:
            named[argument.parameter] = value
        else:
            positional.append(value)
    return positional, named


def value_of(argument: Argument, parts: Parts, fields: Mapping[str, msgspec.Raw]) -> Any:
    """One argument, or ABSENT. ValueError, RecursionError: it does not fit."""
    name, reader = argument.name, argument.reader
    match argument.location:
        case "path":
            return reader.from_variable(parts.path[name])
        case "query":
            return reader.from_texts(parts.query[name]) if name in parts.query else ABSENT
        case "header":
            return reader.from_texts(parts.headers[name]) if parts.headers[name] else ABSENT
        case "body" if argument.whole:
            return ABSENT if parts.body is None else reader.from_json(parts.body)
        case "body":
            return reader.from_json(fields[name]) if name in fields else ABSENT


def body_fields(
    arguments: Sequence[Argument], body: bytes | None, complaints: list[Complaint]
) -> Mapping[str, msgspec.Raw] | None:
    """The body's keys with their texts; None for a body that no field can be taken from, which is complained of."""
    if not any(argument.location == "body" for argument in arguments) or body is None:
        return {}
    try:
        if not body.isascii():
            body.decode()  # keys that no parameter asks for are not decoded below, and must be UTF-8 all the same
        if any(argument.whole for argument in arguments):
            return {}
        return read_object(body)
    except (ValueError, RecursionError) as error:
        complaints.append(misfit("body", "", error))
        return None


def plan(route: Route, target: Described) -> list[Argument]:
    """Where each parameter of a function comes from on this route."""
    if inspect.isasyncgenfunction(target.fn) or inspect.isgeneratorfunction(target.fn):
        raise CatalogError(
            f"{target.name} at {target.where} is a generator, and a function that serves {route.path} returns",
            hint="to stream, return the generator of another function: `return lines()`",
        )
    variables = {match["name"] for match in VARIABLE.finditer(route.path)}
    default_location: Location = "query" if route.method in ("GET", "DELETE") else "body"
    arguments: list[Argument] = []
    wholes: dict[str, bool | None] = {}
    for parameter in target.signature.parameters:
        where = f"{target.name}: parameter {parameter.name!r} of {route.method} {route.path}"
        if parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
            raise CatalogError(f"{where} is variadic", hint="a request gives arguments by name: write each of them")
        annotation = Any if parameter.annotation is inspect.Parameter.empty else parameter.annotation
        marker = marker_of(annotation, where)
        location, name = place(parameter.name, marker, variables, default_location, where)
        reader = Reader(annotation, where)
        if location != "body" and reader.has_objects:
            raise CatalogError(
                f"{where} is an object, and the {location} carries texts",
                hint="take its fields one by one, or mark it Annotated[..., operon.Body()]",
            )
        if isinstance(marker, Body):
            wholes[parameter.name] = False if marker.whole is None and marker.name is not None else marker.whole
        arguments.append(
            Argument(
                parameter.name,
                location,
                name,
                reader,
                default=parameter.default,
                keyword_only=parameter.kind is inspect.Parameter.KEYWORD_ONLY,
            )
        )
    unused = variables - {argument.name for argument in arguments if argument.location == "path"}
    if unused:
        raise CatalogError(
            f"{route.method} {route.path} has <{min(unused)}>, no parameter of {target.name} at {target.where}",
            hint="name the parameter like the variable, or mark it Annotated[..., operon.Path('...')]",
        )
    return with_whole_body(arguments, wholes, f"{target.name} at {target.where}")


def with_whole_body(arguments: list[Argument], wholes: Mapping[str, bool | None], where: str) -> list[Argument]:
    """Rule 4, and `Body(whole=...)`."""
    in_body = [argument for argument in arguments if argument.location == "body"]
    asked = [argument for argument in in_body if wholes.get(argument.parameter)]
    if asked and len(in_body) > 1:
        raise CatalogError(
            f"{where}: {asked[0].parameter!r} is the whole body, and other parameters come from the body too",
            hint="take those from the query string, Annotated[..., operon.Query()], or leave whole=True out",
        )
    alone = len(in_body) == 1 and in_body[0].reader.is_object and wholes.get(in_body[0].parameter) is not False
    if not asked and not alone:
        return arguments
    return [replace(each, whole=True) if each is in_body[0] else each for each in arguments]


def marker_of(annotation: Any, where: str) -> Marker | None:
    """The marker in `Annotated`; `operon.Query` without brackets is `operon.Query()`."""
    if get_origin(annotation) is not Annotated:
        return None
    extras = get_args(annotation)[1:]
    markers = [cast("Marker", extra() if isinstance(extra, type) else extra) for extra in extras if is_marker(extra)]
    if len(markers) > 1:
        raise CatalogError(f"{where} has {len(markers)} markers", hint="an argument comes from one place")
    return markers[0] if markers else None


def is_marker(extra: Any) -> bool:
    return isinstance(extra, MARKERS) or extra in MARKERS


def place(
    parameter: str, marker: Marker | None, variables: set[str], default_location: Location, where: str
) -> tuple[Location, str]:
    """The location and the client's name of one argument."""
    match marker:
        case Path(name):
            if (name or parameter) not in variables:
                raise CatalogError(f"{where} is marked Path", hint=f"write <{name or parameter}> into the route")
            return "path", name or parameter
        case Query(name):
            return "query", name or parameter
        case Header(name):
            return "header", name or parameter.replace("_", "-")
        case Body(name):
            return "body", name or parameter
        case None:
            return ("path" if parameter in variables else default_location), parameter


def read_query(query_string: bytes, complaints: list[Complaint]) -> dict[str, list[str]]:
    """The values of each key, in order. Unlike Quart's, which replaces what is not UTF-8."""
    values: dict[str, list[str]] = {}
    try:
        pairs = parse_qsl(
            query_string.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=QUERY_FIELDS_MAX
        )
    except UnicodeDecodeError:
        complaints.append(Complaint("query", "", "not UTF-8"))
    except ValueError:
        complaints.append(Complaint("query", "", f"more than {QUERY_FIELDS_MAX} fields"))
    else:
        for key, value in pairs:
            values.setdefault(key, []).append(value)
    return values


def is_utf8_path(request: Request) -> bool:
    """Whether the path was UTF-8: servers put U+FFFD where it was not, and two paths would be one."""
    if "\ufffd" not in request.path:
        return True
    try:
        unquote_to_bytes(scope_of(request).get("raw_path") or b"").decode()
    except UnicodeDecodeError:
        return False
    return True


def require_json(request: Request) -> None:
    """Refuses a body that does not call itself JSON.

    A missing content type is refused too: a page of another site can send one without asking first (no preflight),
    and `application/json` it cannot.
    """
    if header(request, b"content-encoding") is None and header(request, b"content-type") == "application/json":
        return
    mimetype = request.mimetype
    if mimetype != "application/json" and not (mimetype.startswith("application/") and mimetype.endswith("+json")):
        raise UnsupportedContent(
            f"the body is {mimetype or 'of no declared type'}", hint="send JSON, with 'content-type: application/json'"
        )
    charset = request.mimetype_params.get("charset", "utf-8").lower()
    if charset not in ("utf-8", "utf8", "us-ascii"):
        raise UnsupportedContent(f"the body is in {charset}", hint="send UTF-8")
    encoding = request.headers.get("content-encoding", "identity").lower()
    if encoding != "identity":
        raise UnsupportedContent(f"the body is encoded with {encoding}", hint="send it as it is")


def too_large(limit_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"the body is larger than {limit_bytes} bytes")


def refuse(complaints: Sequence[Complaint]) -> None:
    """Raises BadInput if there is anything to complain of."""
    if complaints:
        raise BadInput(complaints)
