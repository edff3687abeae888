"""The OpenAPI document says of each endpoint what it takes and what it answers."""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, TypedDict, TypeVar
from uuid import UUID

import msgspec
import pytest
from openapi_spec_validator import validate
from quart import Response

from operon import Authenticated, Masked, MiddlewareContext, Operon, authentication, required_roles, security_scheme
from operon.catalog import Catalog
from operon.contexts import CommunicatorContext, HandlerContext, TransactionContext, WorkflowContext
from operon.errors import CatalogError
from operon.http.markers import Body, Header, Path, Query
from operon.http.openapi import document
from operon.http.schemes import Scheme
from operon.operations import Described, communicator, transaction, workflow
from operon.routes import delete, get, post, put

T = TypeVar("T")


class Color(enum.Enum):
    RED = "red"


class Payment(msgspec.Struct, rename="camel"):
    """How it is paid."""

    card_number: Annotated[str, Masked] = "4242"
    cents: Annotated[int, msgspec.Meta(ge=1)] = 1


class Box(msgspec.Struct, Generic[T]):
    content: T


class Tree(msgspec.Struct):
    children: list[Tree] = []


class Extent(TypedDict, total=False):
    width: int


@dataclass
class Order:
    payments: list[Payment]
    by: dict[str, Box[int]]


def documented(*functions: Described, **options: Any) -> dict[str, Any]:
    """The document of an application of these functions, which is a valid one."""
    catalog = Catalog()
    for function in functions:
        catalog.add(function)
    described = document(catalog, title="shop", version="7", **options)
    validate(described)
    assert msgspec.json.decode(msgspec.json.encode(described)) == described
    return described


def asking(schemes: Mapping[str, Scheme]) -> Callable[[Described], Mapping[str, Scheme]]:
    """The same schemes for every function."""

    def asks(target: Described) -> Mapping[str, Scheme]:
        return schemes

    return asks


def operation_of(function: Described, **options: Any) -> dict[str, Any]:
    """What the document says of the only route of the only function."""
    (item,) = documented(function, **options)["paths"].values()
    (operation,) = item.values()
    return operation  # type: ignore[no-any-return]


def taking(annotation: Any, *default: Any, method: Any = get, path: str = "/") -> dict[str, Any]:
    """What is said of a function with one parameter, `value`."""

    async def function(ctx: HandlerContext, value: Any) -> None: ...

    function.__annotations__["value"] = annotation
    function.__defaults__ = default
    return operation_of(method(path)(function))


def answering(annotation: Any, *, plain: bool = False) -> dict[str, Any]:
    """The answers of a function that returns the annotation, by status."""

    async def function(ctx: Any) -> Any: ...

    function.__annotations__["return"] = annotation
    described: Any = get("/")(function if plain else communicator(function))
    responses: dict[str, Any] = operation_of(described)["responses"]
    return {status: list(each["content"]) if "content" in each else None for status, each in responses.items()}


def test_an_argument_is_documented_where_it_comes_from() -> None:
    @put("/shows/<id>/<int:row>")
    async def book(
        ctx: HandlerContext,
        show: Annotated[str, Path("id")],
        row: int,
        page: Annotated[int, Query("p")] = 3,
        *,
        tenant_id: Annotated[str | None, Header()] = None,
        card: str,
        seats: list[int] = [],  # noqa: B006
    ) -> None: ...

    operation = operation_of(book)

    assert operation["parameters"] == [
        {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}},
        {"name": "row", "in": "path", "required": True, "schema": {"type": "integer"}},
        {"name": "p", "in": "query", "required": False, "schema": {"type": "integer", "default": 3}},
        {"name": "tenant-id", "in": "header", "required": False, "schema": {"type": "string"}},
    ]
    assert operation["requestBody"] == {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["card"],
                    "properties": {
                        "card": {"type": "string"},
                        "seats": {"type": "array", "items": {"type": "integer"}, "default": []},
                    },
                }
            }
        },
    }


@pytest.mark.parametrize(
    ("annotation", "schema"),
    [
        (str, {"type": "string"}),
        (bool, {"type": "boolean"}),
        (int | None, {"type": "integer"}),
        (dt.datetime, {"type": "string", "format": "date-time"}),
        (dt.date | None, {"type": "string", "format": "date"}),
        (UUID, {"type": "string", "format": "uuid"}),
        (Decimal, {"type": "string", "format": "decimal"}),
        (Literal["a", "b"], {"enum": ["a", "b"]}),
        (list[int], {"type": "array", "items": {"type": "integer"}}),
        (int | str, {"anyOf": [{"type": "integer"}, {"type": "string"}]}),
        (Annotated[str, msgspec.Meta(max_length=9)], {"type": "string", "maxLength": 9}),
        (Any, {}),
    ],
)
def test_the_schema_of_a_query_parameter_is_its_annotation_s(annotation: Any, schema: dict[str, Any]) -> None:
    (parameter,) = taking(annotation)["parameters"]

    assert parameter == {"name": "value", "in": "query", "required": True, "schema": schema}


def test_null_is_documented_where_it_can_be_given() -> None:
    body = taking(str | None, None, method=post)["requestBody"]

    assert body == {
        "required": False,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": [],
                    "properties": {"value": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None}},
                }
            }
        },
    }


def test_an_object_that_is_the_whole_body_is_a_component() -> None:
    @post("/")
    async def pay(ctx: HandlerContext, order: Order) -> None: ...

    described = documented(pay)

    schema = described["paths"]["/"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert schema == {"$ref": "#/components/schemas/Order"}
    assert {"Order", "Payment", "Box_int_", "Problem"} <= described["components"]["schemas"].keys()
    assert described["components"]["schemas"]["Payment"]["description"] == "How it is paid."


def test_any_object_and_any_list_can_be_a_body() -> None:
    for annotation in (Extent, Tree, Box[str], dict[str, Any], Annotated[list[int], Body(whole=True)], Payment | None):
        assert taking(annotation, method=post)["requestBody"]["required"] is True


def test_an_operation_takes_the_headers_that_name_a_workflow_and_a_handler_does_not() -> None:
    @post("/workflow")
    @workflow
    async def by_workflow(ctx: WorkflowContext) -> None: ...

    @post("/transaction")
    @transaction
    async def by_transaction(ctx: TransactionContext) -> None: ...

    @post("/communicator")
    @communicator
    async def by_communicator(ctx: CommunicatorContext) -> None: ...

    @post("/handler")
    async def by_handler(ctx: HandlerContext) -> None: ...

    described = documented(by_workflow, by_transaction, by_communicator, by_handler)

    named = [{"$ref": f"#/components/parameters/{name}"} for name in ("WorkflowUUID", "IdempotencyKey")]
    for path in ("/workflow", "/transaction", "/communicator"):
        operation = described["paths"][path]["post"]
        assert operation["parameters"] == named
        assert "operon-workflowuuid" in operation["responses"]["204"]["headers"]
    assert "parameters" not in described["paths"]["/handler"]["post"]
    assert "operon-workflowuuid" not in described["paths"]["/handler"]["post"]["responses"]["204"]["headers"]
    names = [each["name"] for each in described["components"]["parameters"].values()]
    assert names == ["operon-workflowuuid", "Idempotency-Key"]


def test_a_header_that_a_function_takes_itself_is_documented_once() -> None:
    @post("/")
    @workflow
    async def order(ctx: WorkflowContext, key: Annotated[str, Header("idempotency-key")]) -> None: ...

    parameters = operation_of(order)["parameters"]

    assert [each.get("name") for each in parameters] == ["idempotency-key", None]


@pytest.mark.parametrize(
    ("annotation", "answers"),
    [
        (None, {"204": None}),
        (str, {"200": ["text/plain"]}),
        (str | None, {"200": ["text/plain"], "204": None}),
        (Literal["a", "b"], {"200": ["text/plain"]}),
        (Literal["a", 1, None], {"200": ["text/plain", "application/json"], "204": None}),
        (int | str, {"200": ["application/json", "text/plain"]}),
        (Color, {"200": ["application/json"]}),
        (bytes, {"200": ["application/json"]}),
        (tuple[str, int], {"200": ["application/json"]}),
        (Payment | None, {"200": ["application/json"], "204": None}),
        (dict[tuple[int, int], int], {"200": ["application/json"]}),
        (Any, {"200": ["application/json", "text/plain"], "204": None}),
    ],
)
def test_the_answer_of_an_operation_is_its_annotation_s(annotation: Any, answers: dict[str, Any]) -> None:
    documented = answering(annotation)

    assert {status: each for status, each in documented.items() if status < "3"} == answers


@pytest.mark.parametrize("annotation", [Any, Response, AsyncIterator[str], tuple[str, int], Payment | Response])
def test_a_handler_that_may_answer_anything_is_documented_so(annotation: Any) -> None:
    assert answering(annotation, plain=True) == {"200": ["*/*"], "204": None, "default": ["*/*"]}


def test_a_handler_that_returns_a_value_is_documented_like_an_operation() -> None:
    assert answering(Payment, plain=True)["200"] == ["application/json"]
    assert answering(bytes, plain=True)["200"] == ["application/octet-stream"]
    assert answering(None, plain=True)["204"] is None


def test_every_refusal_is_a_problem() -> None:
    @post("/")
    @workflow
    async def order(ctx: WorkflowContext, cents: int) -> int:
        return cents

    described = documented(order)

    responses = described["paths"]["/"]["post"]["responses"]
    assert list(responses) == ["200", "400", "409", "413", "415", "default"]
    assert {each["$ref"] for status, each in responses.items() if status != "200"} == {"#/components/responses/Problem"}
    content = described["components"]["responses"]["Problem"]["content"]
    assert content == {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    problem = described["components"]["schemas"]["Problem"]
    assert problem["required"] == ["status", "title", "code", "instance", "request_id"]
    assert described["components"]["schemas"]["Complaint"]["required"] == ["in", "name", "detail"]


def test_words_come_from_the_docstring_and_tags_from_the_class() -> None:
    class Ticket:
        @get("/a")
        @staticmethod
        async def reserve(ctx: HandlerContext) -> None:
            """Reserves
            a seat.

            For ten minutes.

            Then it is free.
            """

    @get("/b")
    async def plain(ctx: HandlerContext) -> None: ...

    reserve = operation_of(Ticket.reserve)

    assert (reserve["summary"], reserve["description"]) == ("Reserves a seat.", "For ten minutes.\n\nThen it is free.")
    assert reserve["tags"] == ["Ticket"]
    assert not {"summary", "description", "tags"} & operation_of(plain).keys()


def test_what_is_masked_is_a_password_and_its_default_is_not_shown() -> None:
    @post("/")
    async def pay(
        ctx: HandlerContext,
        payment: Payment,
        card: Annotated[str | None, Masked],
        cards: list[Annotated[str, Masked]],
        pin: Annotated[str, Masked, Query] = "0000",
    ) -> None: ...

    described = documented(pay)

    operation = described["paths"]["/"]["post"]
    fields = operation["requestBody"]["content"]["application/json"]["schema"]["properties"]
    password = {"type": "string", "format": "password"}
    assert fields["card"] == {"anyOf": [password, {"type": "null"}]}
    assert fields["cards"] == {"type": "array", "items": password}
    assert operation["parameters"][0]["schema"] == password
    assert described["components"]["schemas"]["Payment"]["properties"]["cardNumber"] == password


def test_a_required_role_asks_for_any_scheme_with_any_of_the_roles() -> None:
    @get("/")
    async def audit(ctx: HandlerContext) -> None: ...

    audit.required_roles = ("admin", "auditor")
    token = {"type": "http", "scheme": "bearer"}
    key = {"type": "apiKey", "in": "header", "name": "x-key"}

    described = documented(audit, asks=asking({"token": token, "key": key}))
    without = documented(audit)

    operation = described["paths"]["/"]["get"]
    assert operation["security"] == [
        {"token": ["admin"]},
        {"token": ["auditor"]},
        {"key": ["admin"]},
        {"key": ["auditor"]},
    ]
    assert {"401", "403"} <= operation["responses"].keys()
    assert described["components"]["securitySchemes"] == {"token": token, "key": key}
    assert "security" not in without["paths"]["/"]["get"]


def test_where_somebody_asks_who_it_is_a_function_without_roles_is_for_any_known_user() -> None:
    @get("/known")
    async def known(ctx: HandlerContext) -> None: ...

    @get("/open")
    async def opened(ctx: HandlerContext) -> None: ...

    opened.required_roles = ()
    token = {"type": "http", "scheme": "bearer"}

    paths = documented(known, opened, asks=asking({"token": token}))["paths"]

    assert paths["/known"]["get"]["security"] == [{"token": []}]
    assert {"401", "403"} <= paths["/known"]["get"]["responses"].keys()
    assert "security" not in paths["/open"]["get"]
    assert "401" not in paths["/open"]["get"]["responses"]


def test_where_nobody_asks_who_it_is_nothing_is_asked_for() -> None:
    @get("/")
    async def public(ctx: HandlerContext) -> None: ...

    operation = operation_of(public)

    assert "security" not in operation
    assert not {"401", "403"} & operation["responses"].keys()


def test_a_function_that_says_nothing_of_its_scheme_documents_the_refusals_alone() -> None:
    @get("/")
    async def known(ctx: HandlerContext) -> None: ...

    described = documented(known, asks=asking({}))

    assert "securitySchemes" not in described["components"]
    assert "security" not in described["paths"]["/"]["get"]
    assert {"401", "403"} <= described["paths"]["/"]["get"]["responses"].keys()


async def test_each_route_names_the_schemes_of_the_function_that_asks_for_it() -> None:
    @security_scheme(session={"type": "apiKey", "in": "cookie", "name": "session"})
    @security_scheme(token={"type": "http", "scheme": "bearer", "bearerFormat": "JWT"})
    def who(ctx: MiddlewareContext) -> Authenticated | None:
        return None

    async def partner(ctx: MiddlewareContext) -> Authenticated | None:
        return None

    @authentication(security_scheme(key={"type": "apiKey", "in": "header", "name": "x-key"})(partner))
    class Partners:
        @get("/partners")
        @staticmethod
        async def list(ctx: HandlerContext) -> None: ...

    @get("/orders")
    async def orders(ctx: HandlerContext) -> None: ...

    @required_roles()
    @get("/health")
    async def health(ctx: HandlerContext) -> None: ...

    app = Operon(Partners, authentication=who)
    for function in (orders, health):
        app.executor.catalog.add(function)

    described = await (await app.quart.test_client().get("/openapi.json")).get_json()

    validate(described)
    assert described == app.openapi()
    assert described["info"]["title"] == "Partners"
    assert described["paths"]["/partners"]["get"]["security"] == [{"key": []}]
    assert described["paths"]["/orders"]["get"]["security"] == [{"token": []}, {"session": []}]
    assert "security" not in described["paths"]["/health"]["get"]
    assert described["components"]["securitySchemes"].keys() == {"key", "token", "session"}


def test_two_schemes_of_one_name_are_refused() -> None:
    @get("/a")
    async def a(ctx: HandlerContext) -> None: ...

    @get("/b")
    async def b(ctx: HandlerContext) -> None: ...

    def asks(target: Described) -> Mapping[str, Scheme]:
        return {"token": {"type": "http", "scheme": "bearer"} if target is a else {"type": "mutualTLS"}}

    with pytest.raises(CatalogError, match="another one than elsewhere"):
        documented(a, b, asks=asks)


@pytest.mark.parametrize(
    ("scheme", "said"),
    [
        ({"type": "bearer"}, "Invalid value 'bearer'"),
        ({"type": "http"}, "missing required field `scheme`"),
        ({"type": "apiKey", "name": "x-key", "in": "body"}, "Invalid enum value 'body'"),
        ({"type": "openIdConnect"}, "missing required field `openIdConnectUrl`"),
        ("bearer", "Expected `object`"),
    ],
)
def test_a_scheme_that_is_none_is_refused_where_it_is_written(scheme: Any, said: str) -> None:
    with pytest.raises(CatalogError, match=said):
        security_scheme(token=scheme)


def test_a_scheme_belongs_to_a_function() -> None:
    with pytest.raises(CatalogError, match="decorates authentication functions"):
        security_scheme(token={"type": "http", "scheme": "bearer"})(HandlerContext)


def test_paths_that_differ_only_by_names_and_converters_are_one() -> None:
    @get("/orders/<order_id>")
    async def show(ctx: HandlerContext, order_id: str) -> None: ...

    @delete("/orders/<uuid:which>")
    async def cancel(ctx: HandlerContext, which: UUID) -> None: ...

    @get("/orders/<int:number>")
    async def by_number(ctx: HandlerContext, number: int) -> None: ...

    paths = documented(show, cancel, by_number)["paths"]

    assert list(paths) == ["/orders/{order_id}"]
    assert paths["/orders/{order_id}"]["get"]["operationId"].endswith("show")
    assert [each["name"] for each in paths["/orders/{order_id}"]["delete"]["parameters"]] == ["order_id"]


def test_a_function_with_two_routes_is_two_operations() -> None:
    @get("/first")
    @get("/second/<cents>")
    async def twice(ctx: HandlerContext, cents: int = 7) -> int:
        return cents

    paths = documented(twice)["paths"]

    assert paths["/first"]["get"]["parameters"][0]["in"] == "query"
    assert paths["/second/{cents}"]["get"]["parameters"][0]["required"] is True
    assert paths["/first"]["get"]["operationId"] != paths["/second/{cents}"]["get"]["operationId"]


def test_two_classes_of_one_name_are_two_components() -> None:
    one = msgspec.defstruct("Seat", [("number", int)])
    other: Any = msgspec.defstruct("Seat", [("number", str)])

    @post("/")
    async def swap(ctx: HandlerContext, a: Any, b: Any, c: Any) -> None: ...

    swap.fn.__annotations__.update(a=one, b=list[other], c=one)

    described = documented(swap)

    fields = described["paths"]["/"]["post"]["requestBody"]["content"]["application/json"]["schema"]["properties"]
    assert fields["a"] == fields["c"] == {"$ref": "#/components/schemas/Seat"}
    assert fields["b"]["items"] == {"$ref": "#/components/schemas/Seat_2"}
    seats = [described["components"]["schemas"][name]["properties"]["number"] for name in ("Seat", "Seat_2")]
    assert seats == [{"type": "integer"}, {"type": "string"}]


def test_a_default_that_is_no_data_is_left_out() -> None:
    body = taking(int, object(), method=post)["requestBody"]

    fields = body["content"]["application/json"]["schema"]["properties"]
    assert (body["required"], fields) == (False, {"value": {"type": "integer"}})


def test_an_application_without_routes_has_a_document_too() -> None:
    described = documented(description="nothing here")

    assert (described["openapi"], described["paths"]) == ("3.1.0", {})
    assert described["info"] == {"title": "shop", "version": "7", "description": "nothing here"}
