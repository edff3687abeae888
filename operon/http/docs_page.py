"""The pages that describe an application: `/openapi.json` for programs, `/docs` for people.

`/docs` is one static page, rendered from the document and nothing else. It has no script and asks no other server for
anything, which its content security policy holds it to.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from html import escape
from typing import Any

import msgspec
from quart.wrappers import Response

from operon.http.schemas import PREFIX

DOCUMENT_PATH = "/openapi.json"
PAGE_PATH = "/docs"
METHODS = ("get", "post", "put", "patch", "delete")

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h2 { margin-top: 2.5rem; border-top: 1px solid #8884; padding-top: 1rem; }
h2 code { font-size: 1.1rem; } table { border-collapse: collapse; width: 100%; margin: .5rem 0; }
th, td { text-align: left; vertical-align: top; padding: .2rem .8rem .2rem 0; border-bottom: 1px solid #8884; }
p.text { white-space: pre-wrap; } .method { text-transform: uppercase; font-weight: bold; }
:root { color-scheme: light dark; }
"""

Answer = Callable[[], Awaitable[Response]]


def pages(document: Callable[[], dict[str, Any]]) -> dict[str, Answer]:
    """What to answer under which path. The document is made when it is first asked for."""

    @functools.cache
    def json_text() -> bytes:
        return msgspec.json.encode(document())

    @functools.cache
    def html_text() -> bytes:
        return page(document()).encode()

    async def as_json() -> Response:
        return Response(json_text(), content_type="application/json")

    async def as_html() -> Response:
        response = Response(html_text(), content_type="text/html; charset=utf-8")
        response.headers["content-security-policy"] = "default-src 'none'; style-src 'unsafe-inline'"
        response.headers["x-content-type-options"] = "nosniff"
        return response

    return {DOCUMENT_PATH: as_json, PAGE_PATH: as_html}


def page(document: Mapping[str, Any]) -> str:
    """The page of a document."""
    title = escape(document["info"]["title"])
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body>'
        f"<h1>{title} {escape(document['info']['version'])}</h1>"
        f"{text(document['info'].get('description', ''))}"
        f'<p><a href="{DOCUMENT_PATH.removeprefix("/")}">OpenAPI {escape(document["openapi"])}</a></p>'
        f"{''.join(operations(document))}{''.join(schemas(document['components']['schemas']))}</body></html>\n"
    )


def operations(document: Mapping[str, Any]) -> Iterator[str]:
    """Every operation: what it takes, and what it answers."""
    for path, item in document["paths"].items():
        for method in METHODS:
            if method not in item:
                continue
            operation = item[method]
            yield f'<h2><span class="method">{method}</span> <code>{escape(path)}</code></h2>'
            yield f"<p><b>{escape(operation.get('summary', operation['operationId']))}</b></p>"
            yield text(operation.get("description", ""))
            yield from security(operation.get("security", []))
            yield table(("takes", "in", "", ""), list(taken(operation, document)))
            yield table(("answers", "", ""), list(answered(operation, document)))


def security(alternatives: list[dict[str, list[str]]]) -> Iterator[str]:
    if alternatives:
        each = (" ".join((name, *roles)) for one in alternatives for name, roles in one.items())
        yield f"<p>Requires {' or '.join(code(words) for words in each)}.</p>"


def taken(operation: Mapping[str, Any], document: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """The rows of the parameters and the body."""
    for reference in operation.get("parameters", []):
        parameter = resolved(reference, document)
        needed = "required" if parameter.get("required") else "optional"
        about = f"{needed}. {escape(parameter.get('description', ''))}".removesuffix(" ")
        yield code(parameter["name"]), parameter["in"], kind(parameter["schema"]), about
    body = operation.get("requestBody")
    if body is not None:
        schema = body["content"]["application/json"]["schema"]
        needed = "required." if body["required"] else "optional."
        if "properties" not in schema:
            yield "", "body", kind(schema), needed
        for name, field in schema.get("properties", {}).items():
            yield code(name), "body", kind(field), "required." if name in schema["required"] else "optional."


def answered(operation: Mapping[str, Any], document: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """The rows of the answers."""
    for status, response in operation["responses"].items():
        content = {**resolved(response, document), **response}.get("content", {})
        media = "<br>".join(f"{escape(name)}: {kind(each.get('schema', {}))}" for name, each in content.items())
        yield code(status), escape(response["description"]), media


def schemas(components: Mapping[str, Any]) -> Iterator[str]:
    """Every class that is taken or answered."""
    for name, schema in sorted(components.items()):
        yield f'<h2 id="{escape(name)}"><code>{escape(name)}</code></h2>'
        yield text(schema.get("description", ""))
        required = schema.get("required", [])
        properties = schema.get("properties", {})
        yield table(
            ("has", "", ""),
            [(code(key), kind(each), "required." if key in required else "") for key, each in properties.items()],
        )
        if not properties:
            yield f"<p>{kind(schema)}</p>"


def table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A table of cells that are HTML already; nothing without rows."""
    if not rows:
        return ""
    head = "".join(f"<th>{each}</th>" for each in heads)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def kind(schema: Mapping[str, Any]) -> str:
    """A schema in a few words, as HTML."""
    default = f" = {escape(json.dumps(schema['default']))}" if "default" in schema else ""
    return words_of(schema) + default


def words_of(schema: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        name = escape(schema["$ref"].removeprefix(PREFIX))
        return f'<a href="#{name}">{name}</a>'
    if "anyOf" in schema:
        return " or ".join(kind(member) for member in schema["anyOf"])
    if "enum" in schema:
        return " or ".join(escape(json.dumps(value)) for value in schema["enum"])
    if schema.get("type") == "array" and isinstance(schema.get("items"), Mapping):
        return f"list of {kind(schema['items'])}"
    about = [f"{key} {escape(json.dumps(schema[key]))}" for key in LIMITS if key in schema]
    return " ".join([escape(schema.get("format", schema.get("type", "anything"))), *about])


LIMITS = (
    "minimum",
    "exclusiveMinimum",
    "maximum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "pattern",
    "minItems",
    "maxItems",
)


def text(paragraphs: str) -> str:
    return f'<p class="text">{escape(paragraphs)}</p>' if paragraphs else ""


def code(word: str) -> str:
    return f"<code>{escape(word)}</code>"


def resolved(reference: Mapping[str, Any], document: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a reference to a component means; anything else is itself."""
    found: Any = document
    if "$ref" not in reference:
        return reference
    for key in reference["$ref"].removeprefix("#/").split("/"):
        found = found[key]
    return found  # type: ignore[no-any-return]
