"""Schemas says in JSON Schema what the annotations of an application allow: msgspec's own words, gathered.

The rule: one class is one component, and nothing that is annotated makes it fail, for a document that describes most of
an application is better than none. What msgspec has no words for is described as anything.

Each annotation is described alone, because msgspec refuses them all for two classes of one name in one function.
"""

from __future__ import annotations

import copy
import typing
from collections.abc import Iterator
from typing import Annotated, Any

import msgspec

from operon.http.misfits import fields_of, unwrapped
from operon.shapes import Masked

PREFIX = "#/components/schemas/"

Schema = dict[str, Any]

read_described = msgspec.json.Decoder(tuple[tuple[Schema], dict[str, Schema]]).decode


class Schemas:
    """The schemas of one document."""

    __slots__ = ("_components", "_masked", "_raw")

    def __init__(self) -> None:
        self._components: dict[str, Schema] = {}
        self._raw: dict[str, Schema] = {}  # the same, with msgspec's own names in its references
        self._masked: set[tuple[str, str]] = set()  # component, property

    def of(self, annotation: Any) -> Schema:
        """The schema of an annotation; classes are references to components."""
        schema = self._described(annotation)
        for kind in classes_in(annotation, set()):
            name = self._described(kind).get("$ref", "").removeprefix(PREFIX)
            for field in fields_of(kind) or ():
                if name and is_masked(field.annotation):
                    self._masked.add((name, field.name))
        return as_password(schema) if is_masked(annotation) else schema

    @property
    def components(self) -> dict[str, Schema]:
        """Every class that was met, by the name it is referred to."""
        components = copy.deepcopy(self._components)
        for name, field in self._masked:
            properties = components[name].get("properties", {})
            if field in properties:
                properties[field] = as_password(properties[field])
        return components

    def _described(self, annotation: Any) -> Schema:
        try:
            described = msgspec.json.schema_components(
                [annotation], schema_hook=anything, ref_template=PREFIX + "{name}"
            )
            (schema,), found = read_described(msgspec.json.encode(described))  # defaults as JSON has them
        except Exception:  # whatever a constructor or a metaclass makes of being looked at
            return {}
        names = {name: self._name(name, component) for name, component in found.items()}
        for name, component in found.items():
            self._components.setdefault(names[name], referring(component, names))
        return typing.cast("Schema", referring(schema, names))

    def _name(self, name: str, component: Schema) -> str:
        """The name itself, or with a number where another class has it."""
        numbered, number = name, 1
        while self._raw.setdefault(numbered, component) != component:
            number += 1
            numbered = f"{name}_{number}"
        return numbered

    def __repr__(self) -> str:
        return f"<Schemas of {len(self._components)} classes>"


def anything(kind: type) -> Schema:
    """For a class that is not data."""
    return {}


def referring(schema: Any, names: dict[str, str]) -> Any:
    """The schema with its references renamed."""
    if isinstance(schema, list):
        return [referring(each, names) for each in typing.cast("Iterator[Any]", schema)]
    if not isinstance(schema, dict):
        return schema
    items = typing.cast("Schema", schema)
    renamed = {key: referring(value, names) for key, value in items.items()}
    name = str(items.get("$ref", "")).removeprefix(PREFIX)
    return {**renamed, "$ref": PREFIX + names[name]} if name in names else renamed


def is_masked(annotation: Any) -> bool:
    """Whether a value of the annotation itself is masked; what a class says of its fields is not looked at."""
    if typing.get_origin(annotation) is Annotated and any(
        note is Masked or isinstance(note, Masked) for note in annotation.__metadata__
    ):
        return True
    return any(is_masked(argument) for argument in typing.get_args(unwrapped(annotation)))


def as_password(schema: Schema) -> Schema:
    """The schema of what is not to be shown, wherever it is text."""
    masked = {key: value for key, value in schema.items() if key not in ("default", "examples")}
    if masked.get("type") == "string":
        masked["format"] = "password"
    for key in ("items", "additionalProperties"):
        if isinstance(masked.get(key), dict):
            masked[key] = as_password(masked[key])
    if "anyOf" in masked:
        masked["anyOf"] = [as_password(each) for each in masked["anyOf"]]
    return masked


def classes_in(annotation: Any, seen: set[Any]) -> Iterator[Any]:
    """Every class with fields that an annotation reaches, once."""
    fields = fields_of(annotation) if isinstance(typing.get_origin(annotation) or annotation, type) else None
    if fields is not None and annotation not in seen:
        seen.add(annotation)
        yield annotation
        for field in fields:
            yield from classes_in(field.annotation, seen)
    elif fields is None:
        for argument in typing.get_args(annotation):
            yield from classes_in(argument, seen)
