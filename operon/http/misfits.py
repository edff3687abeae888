"""Every misfit of one JSON value, where msgspec stops at the first.

Looked for only after a value was refused: the text is taken apart along its annotation, and each part is decoded alone.
What the parts do not explain (a wrong type, a broken constraint of the whole, an unknown field) is the refusal itself.
"""

from __future__ import annotations

import collections.abc as abc
import dataclasses
import itertools
import types
import typing
from collections.abc import Iterator
from typing import Annotated, Any, NamedTuple, NotRequired, Required

import msgspec

from operon.shapes import is_typed_dict

MISFITS_MAX = 100  # nobody reads further, and an answer has to end
DEPTH_MAX = 8  # of parts of parts: each level decodes what is below it again
PARTS_MAX = 5000  # that are decoded in all, some milliseconds: a long list that ends wrongly must not cost a second

ITEMS = (list, set, frozenset, abc.Sequence, abc.Collection, abc.Iterable, abc.Set, abc.MutableSequence, abc.MutableSet)
MAPPINGS = (dict, abc.Mapping, abc.MutableMapping)

read_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
read_array = msgspec.json.Decoder(list[msgspec.Raw]).decode


class Field(NamedTuple):
    """One field of an object, by the name that JSON has for it."""

    name: str
    annotation: Any
    required: bool


class Misfits(ValueError):
    """Several things are wrong with one value: `each` has a path inside it, and the error there."""

    def __init__(self, each: list[tuple[str, Exception]]) -> None:
        super().__init__(str(each[0][1]))
        self.each = each


def misfits(text: msgspec.Raw | bytes, annotation: Any, refusal: Exception) -> Misfits:
    """Everything that is wrong with a text that an annotation has refused."""
    try:
        return Misfits(
            list(
                itertools.islice(inside(text, annotation, refusal, "", DEPTH_MAX, iter(range(PARTS_MAX))), MISFITS_MAX)
            )
        )
    except (ValueError, TypeError, RecursionError):  # an annotation that can be decoded, but not in parts
        return Misfits([("", refusal)])


def inside(
    text: msgspec.Raw | bytes, annotation: Any, refusal: Exception, path: str, depth: int, budget: Iterator[int]
) -> Iterator[tuple[str, Exception]]:
    """The misfits of the parts of a refused text; the refusal where no part is to blame."""
    blamed = False
    for place, part, expected in parts(text, annotation) if depth else ():
        if next(budget, None) is None:
            break
        if part is None:
            blamed = True
            yield path + place, msgspec.ValidationError("required")
            continue
        try:
            msgspec.json.decode(part, type=expected)
        except (ValueError, RecursionError) as error:
            blamed = True
            yield from inside(part, expected, error, path + place, depth - 1, budget)
    if not blamed:
        yield path, refusal


def parts(text: msgspec.Raw | bytes, annotation: Any) -> Iterator[tuple[str, msgspec.Raw | None, Any]]:
    """The parts of an object or a list: place, text (None where a field is missing), annotation."""
    annotation = bare(annotation)
    start = bytes(text).lstrip()[:1]
    if start == b"{" and (fields := fields_of(annotation)) is not None:
        given = read_object(text)
        for field in fields:
            if field.name in given or field.required:
                yield f".{field.name}", given.get(field.name), field.annotation
    elif start == b"{" and typing.get_origin(annotation) in MAPPINGS:
        expected = typing.get_args(annotation)[1]
        yield from ((f".{name}", part, expected) for name, part in read_object(text).items())
    elif start == b"[" and (item := item_of(annotation)) is not None:
        yield from ((f"[{index}]", part, item) for index, part in enumerate(read_array(text)))


def bare(annotation: Any) -> Any:
    """The annotation without notes on it, and without the `None` that it may be instead."""
    while True:
        origin = typing.get_origin(annotation)
        if origin in (Annotated, Required, NotRequired):
            annotation = typing.get_args(annotation)[0]
        elif origin in (typing.Union, types.UnionType):
            members = [member for member in typing.get_args(annotation) if member is not types.NoneType]
            if len(members) != 1:
                return annotation
            annotation = members[0]
        else:
            return annotation


def fields_of(annotation: Any) -> list[Field] | None:
    """The fields of a class whose values JSON writes as an object; None for every other annotation."""
    kind = typing.get_origin(annotation) or annotation
    if isinstance(kind, msgspec.StructMeta):
        if kind.__struct_config__.array_like:
            return None
        return [Field(each.encode_name, each.type, each.required) for each in msgspec.structs.fields(annotation)]
    if kind is not annotation:  # a generic one, whose fields are not what they say
        return None
    if is_typed_dict(kind):
        hints = typing.get_type_hints(kind, include_extras=True)
        return [Field(name, unwrapped(hint), name in kind.__required_keys__) for name, hint in hints.items()]
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind, include_extras=True)
        return [
            Field(
                each.name,
                hints[each.name],
                each.default is dataclasses.MISSING and each.default_factory is dataclasses.MISSING,
            )
            for each in dataclasses.fields(kind)
            if each.init
        ]
    return None


def unwrapped(hint: Any) -> Any:
    """What a TypedDict says of a key, without whether it has to be there."""
    while typing.get_origin(hint) in (Required, NotRequired):
        hint = typing.get_args(hint)[0]
    return hint


def item_of(annotation: Any) -> Any:
    """What each item of a list is; None for a list whose items differ, and for what is no list."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in ITEMS:
        return arguments[0]
    return arguments[0] if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis else None
