"""Reader reads the values of one annotated type out of a request; msgspec does the work.

The rule: what was given is never guessed at. JSON is read strictly first, texts are converted only where the type
leaves no doubt, and only a scalar may come as a text in JSON.

An object with the key `$operon` is refused. That is how the codec marks what it stored in its tagged form, and whoever
sends one is trying to have a request read as stored data.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import inspect as types

from operon.errors import CatalogError
from operon.http.misfits import misfits

DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
SHORT_BOOLEANS = {"t": "true", "f": "false"}

OBJECTS = (types.StructType, types.DataclassType, types.TypedDictType, types.DictType)
ARRAYS = (types.ListType, types.SetType, types.FrozenSetType, types.VarTupleType, types.TupleType)
NUMBERS = (types.BoolType, types.IntType, types.FloatType, types.DecimalType, types.EnumType, types.LiteralType)
# msgspec's lax mode reads numbers as seconds since 1970, which nobody means by `?day=5`.
TIMES = (types.DateTimeType, types.DateType, types.TimeType, types.TimeDeltaType)


class Enveloped(msgspec.Struct):
    """An object of the client's, looked at for the one key that belongs to the codec, however it is escaped."""

    mark: msgspec.Raw | msgspec.UnsetType = msgspec.field(default=msgspec.UNSET, name="$operon")


read_envelope = msgspec.json.Decoder(Enveloped).decode


class Reader:
    """Reads one annotated type from JSON, from texts, or from what a route's converter made."""

    __slots__ = ("_boolean", "_decode", "_lax", "_many", "annotation", "has_objects", "is_datetime", "is_object")

    def __init__(self, annotation: Any, where: str) -> None:
        try:
            info = types.type_info(annotation)
            self._decode = msgspec.json.Decoder(annotation).decode
        except TypeError as error:
            raise CatalogError(
                f"{where} has a type that a request cannot give: {error}",
                hint="annotate it with a Struct, a dataclass, a TypedDict, or a type of the standard library",
            ) from None
        members = [
            member
            for member in (info.types if isinstance(info, types.UnionType) else (info,))
            if not isinstance(member, types.NoneType)
        ]
        items = [item for member in members for item in items_of(member)]
        self.annotation = annotation
        self._boolean = any(isinstance(item, types.BoolType) for item in items)
        self.is_datetime = any(isinstance(item, types.DateTimeType) for item in items)
        self._lax = any(isinstance(item, NUMBERS) for item in items) and not any(isinstance(i, TIMES) for i in items)
        self._many = any(isinstance(member, ARRAYS) for member in members)
        self.has_objects = any(isinstance(member, OBJECTS) for member in members)
        self.is_object = bool(members) and all(isinstance(member, OBJECTS) for member in members)

    def from_json(self, text: msgspec.Raw | bytes) -> Any:
        """The value of a JSON text. ValueError or RecursionError: it does not fit. Misfits: its parts do not."""
        if bytes(text).lstrip()[:1] == b"{" and read_envelope(text).mark is not msgspec.UNSET:
            raise ValueError("the key $operon is not for requests")
        try:
            return self._decode(text)
        except msgspec.ValidationError as error:
            value = msgspec.json.decode(text)
            if isinstance(value, str | int) and not self.has_objects and not self._many:
                return self._lenient(value)
            raise misfits(text, self.annotation, error) from None

    def from_texts(self, texts: Sequence[str]) -> Any:
        """The value of what was given under one name; ValueError when it does not fit."""
        if self._many:
            return self._lenient(list(texts))
        if len(texts) > 1:
            raise ValueError(f"given {len(texts)} times, expected one value")
        return self._lenient(texts[0])

    def from_variable(self, value: Any) -> Any:
        """The value of a route's variable, which its converter may have made an int or a UUID."""
        if isinstance(value, str):
            return self.from_texts([value])
        try:
            return msgspec.convert(value, self.annotation)
        except (ValueError, TypeError):
            return self.from_texts([str(value)])

    def _lenient(self, value: str | int | list[str]) -> Any:
        try:
            # Strictly first: an `int | str` given as a text is that text.
            return msgspec.convert(value, self.annotation)
        except msgspec.ValidationError:
            if self.is_datetime and isinstance(value, str) and DATE.fullmatch(value):
                return msgspec.convert(f"{value}T00:00:00Z", self.annotation)
            if not self._lax:
                raise
        if self._boolean and not isinstance(value, int):
            value = [spelled_out(each) for each in value] if isinstance(value, list) else spelled_out(value)
        converted = msgspec.convert(value, self.annotation, strict=False)
        if isinstance(converted, float) and not math.isfinite(converted):
            raise ValueError("expected a finite number")
        return converted


def items_of(info: types.Type) -> Sequence[types.Type]:
    """What the items of an array are; of everything else, itself."""
    match info:
        case types.TupleType(item_types=each):
            return each
        case types.ListType() | types.SetType() | types.FrozenSetType() | types.VarTupleType():
            return (info.item_type,)
        case _:
            return (info,)


def spelled_out(text: str) -> str:
    return SHORT_BOOLEANS.get(text.lower(), text)
