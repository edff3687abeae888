"""What an annotation allows, as a function that says where a value does not fit it.

msgspec decodes most annotations itself, and fast. A shape is for the rest: it decides at launch whether a type can be
stored at all, it names the classes an annotation reaches (the only classes that stored data may ever bring to life),
and it checks the values that msgspec cannot check, such as unions it cannot tell apart.

Checklist: a new leaf type needs a line in LEAVES here, a case in `difference`, and a tag in tagged.py.
"""

from __future__ import annotations

import collections.abc as abc
import dataclasses
import datetime as dt
import enum
import functools
import inspect
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from decimal import Decimal
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, NotRequired, Required, TypeVar
from uuid import UUID

import msgspec

from operon.errors import CatalogError


class Masked:
    """Marks an argument that never reaches a log, a span or the dashboard: `Annotated[str, operon.Masked]`."""


class Misfit(NamedTuple):
    """Where a value leaves its annotation (`.items[3].price`), and how. Never the value itself: it may be a secret."""

    path: str
    reason: str


Check = Callable[[object], Misfit | None]

# `isinstance` without narrowing: the type checkers would make tuple[Unknown] of an Any.
_is: Callable[[Any, Any], bool] = isinstance

LEAVES: tuple[type, ...] = (
    bool, int, float, str, bytes, bytearray, dt.datetime, dt.date, dt.time, dt.timedelta, Decimal, UUID,
    msgspec.UnsetType,
)  # fmt: skip

# An abstract annotation takes every container of ours that has its methods; an iterator is not data.
ITERABLES: dict[Any, tuple[type, ...]] = {
    list: (list,),
    set: (set,),
    frozenset: (frozenset,),
    abc.Sequence: (list, tuple),
    abc.MutableSequence: (list,),
    abc.Collection: (list, tuple, set, frozenset, dict),
    abc.Iterable: (list, tuple, set, frozenset, dict),
    abc.Set: (set, frozenset),
    abc.MutableSet: (set,),
}
MAPPINGS: tuple[Any, ...] = (dict, abc.Mapping, abc.MutableMapping)
SCALARS: tuple[type, ...] = (NoneType, bool, int, float, str)


class Shape:
    """One annotation, read once."""

    def __init__(self, annotation: Any, where: str) -> None:
        """Raises CatalogError for a type that cannot be stored; `where` names the operation and the argument."""
        self.where = where
        self.classes: dict[type, None] = {}
        self.scalars: frozenset[type] = frozenset(_scalars(annotation))
        self.masked = False
        self._known: dict[object, Check] = {}
        try:
            self.misfit: Check = self._check(annotation, {})
        except (TypeError, RecursionError) as error:  # `[int]`, or a generic that grows without end
            raise _unstorable(annotation, where) from error

    def allows(self, kind: Any) -> bool:
        """Whether the annotation reaches this class, or a class it inherits from."""
        return any(issubclass(kind, known) for known in self.classes)

    def find(self, name: str) -> Any:
        """The class of this qualified name, among those the annotation reaches and their subclasses."""
        for known in self.classes:
            if known.__qualname__ == name:
                return known
        # Last first: a slotted dataclass leaves its unslotted twin behind, and the twin is the older one.
        for known in reversed([below for kind in self.classes for below in _subclasses(kind)]):
            if known.__qualname__ == name:
                return known
        raise LookupError(f"the annotation reaches no class named {name}")

    def _check(self, annotation: Any, variables: Mapping[Any, Any]) -> Check:
        """The check for one node of the annotation; classes are remembered, so that recursive ones end."""
        origin = typing.get_origin(annotation)
        arguments = typing.get_args(annotation)
        if annotation in (Any, object, inspect.Parameter.empty):
            return _anything
        if isinstance(annotation, TypeVar):
            bound = variables.get(annotation, annotation.__bound__)
            return _anything if bound is None or bound is annotation else self._check(bound, variables)
        if isinstance(annotation, typing.NewType):
            return self._check(annotation.__supertype__, variables)
        if hasattr(annotation, "__metadata__"):
            return self._annotated(annotation, variables)
        if origin in (Required, NotRequired, typing.Final):
            return self._check(arguments[0], variables)
        if origin is None and hasattr(annotation, "__value__"):  # `type Name = ...` of Python 3.12
            return self._check(annotation.__value__, variables)
        if origin is Literal:
            return self._literal(arguments)
        if origin in (typing.Union, UnionType):
            return _any_of([self._check(argument, variables) for argument in arguments], _name(annotation))
        return self._concrete(origin or annotation, arguments, annotation, variables)

    def _concrete(self, kind: Any, arguments: tuple[Any, ...], annotation: Any, variables: Mapping[Any, Any]) -> Check:
        if kind is None or kind is NoneType:
            return _instance((NoneType,), "None")
        if kind in (typing.Never, typing.NoReturn):  # a workflow that serves for ever
            return _instance((), "nothing")
        if kind is typing.LiteralString:
            return _leaf(str)
        if kind in LEAVES:
            return _leaf(kind)
        if kind is tuple:
            return self._tuple(annotation, arguments, variables)
        if kind in ITERABLES:
            return _each(ITERABLES[kind], self._check(arguments[0] if arguments else Any, variables), _name(annotation))
        if kind in MAPPINGS:
            key, value = arguments or (Any, Any)
            return _pairs(self._check(key, variables), self._check(value, variables), _name(annotation))
        if isinstance(kind, type) and issubclass(kind, enum.Enum):
            self.classes[kind] = None
            return _instance((kind,), _name(kind))
        if isinstance(kind, type) and (is_typed_dict(kind) or field_names(kind) is not None):
            return self._record(kind, arguments, variables)
        raise _unstorable(annotation, self.where)

    def _annotated(self, annotation: Any, variables: Mapping[Any, Any]) -> Check:
        markers = annotation.__metadata__
        self.masked = self.masked or any(marker is Masked or isinstance(marker, Masked) for marker in markers)
        inner = self._check(annotation.__origin__, variables)
        if not any(isinstance(marker, msgspec.Meta) for marker in markers):
            return inner

        def constrained(value: object) -> Misfit | None:
            try:
                msgspec.convert(value, annotation)
            except msgspec.ValidationError as error:
                return inner(value) or Misfit("", f"breaks a constraint: {error}")
            return inner(value)

        return constrained

    def _literal(self, members: tuple[Any, ...]) -> Check:
        self.classes.update((type(member), None) for member in members if isinstance(member, enum.Enum))
        exact: set[tuple[Any, Any]] = {(type(member), member) for member in members}

        def check(value: object) -> Misfit | None:
            if isinstance(value, abc.Hashable) and (type(value), value) in exact:
                return None
            return Misfit("", f"is not one of the {len(exact)} literals allowed")

        return check

    def _tuple(self, annotation: Any, arguments: tuple[Any, ...], variables: Mapping[Any, Any]) -> Check:
        if annotation is tuple or annotation is typing.Tuple:  # noqa: UP006 - the bare alias, met in old code
            return _each((tuple,), _anything, "tuple")
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return _each((tuple,), self._check(arguments[0], variables), _name(annotation))
        checks = [self._check(argument, variables) for argument in arguments]

        def check(value: object) -> Misfit | None:
            if not isinstance(value, tuple):
                return _expected(_name(annotation), value)
            items = typing.cast("tuple[object, ...]", value)
            if len(items) != len(checks):
                return Misfit("", f"has {len(items)} items where {_name(annotation)} has {len(checks)}")
            return _first((f"[{i}]", checks[i](item)) for i, item in enumerate(items))

        return check

    def _record(self, kind: Any, arguments: tuple[Any, ...], variables: Mapping[Any, Any]) -> Check:
        key = (kind, arguments, tuple(variables.items()))
        if key in self._known:
            return self._known[key]
        fields: dict[str, Check] = {}
        is_dict = is_typed_dict(kind)
        # Known before its fields are read: a recursive class meets itself there.
        check = self._known[key] = (
            _typed_dict(kind, fields, _name(kind)) if is_dict else _fields(kind, fields, _name(kind))
        )
        try:
            hints = typing.get_type_hints(kind, include_extras=True)
        except NameError as error:
            raise CatalogError(
                f"{self.where}: an annotation of {_name(kind)} names {error.name!r}, which cannot be found.",
                hint="import it at run time, not only under TYPE_CHECKING, and define it at module level.",
            ) from error
        parameters: tuple[Any, ...] = getattr(kind, "__parameters__", ())
        known = {name: variables.get(value, value) for name, value in zip(parameters, arguments, strict=False)}
        if not is_dict:
            self.classes[kind] = None
        for name in hints if is_dict else field_names(kind) or ():
            fields[name] = self._check(hints.get(name, Any), known)
        return check


def is_typed_dict(kind: Any) -> bool:
    """Also for typing_extensions, whose TypedDict is another one on older Pythons."""
    return typing.is_typeddict(kind) or (type(kind).__name__ == "_TypedDictMeta" and hasattr(kind, "__total__"))


@functools.lru_cache(maxsize=1024)
def field_names(kind: Any) -> tuple[str, ...] | None:
    """The fields of a dataclass, Struct, named tuple or attrs class; None for every other class."""
    if dataclasses.is_dataclass(kind):
        return tuple(field.name for field in dataclasses.fields(kind))
    # A named tuple is known by its `_fields`, as everywhere in Python.
    named: Any = getattr(kind, "__struct_fields__" if _is(kind, msgspec.StructMeta) else "_fields", None)
    if named is not None and (_is(kind, msgspec.StructMeta) or tuple in kind.__mro__):
        return tuple(named)
    attributes: Any = getattr(kind, "__attrs_attrs__", None)
    return None if attributes is None else tuple(attribute.name for attribute in attributes)


def _subclasses(kind: type) -> Iterator[type]:
    below: type
    for below in type.__subclasses__(kind):
        yield below
        yield from _subclasses(below)


def _scalars(annotation: Any) -> Iterator[type]:
    """The exact types that need no check beyond `type(value)`: what the fast path is decided by."""
    if annotation in (Any, object, inspect.Parameter.empty):
        yield from SCALARS
    elif annotation is None:
        yield NoneType
    elif annotation in SCALARS:
        yield annotation
    elif isinstance(annotation, typing.NewType):
        yield from _scalars(annotation.__supertype__)
    elif hasattr(annotation, "__metadata__"):
        if not any(isinstance(marker, msgspec.Meta) for marker in annotation.__metadata__):
            yield from _scalars(annotation.__origin__)
    elif typing.get_origin(annotation) in (typing.Union, UnionType):
        for argument in typing.get_args(annotation):
            yield from _scalars(argument)


def _anything(value: object) -> Misfit | None:
    return None


def _instance(kinds: tuple[type, ...], expected: str) -> Check:
    return lambda value: None if isinstance(value, kinds) else _expected(expected, value)


def _leaf(kind: type) -> Check:
    if kind is float:  # an int is a float to every type checker
        return _instance((float, int), "float")
    if kind is dt.date:  # a datetime is a date to Python, but not to anyone who compares the two
        return lambda value: None if type(value) is dt.date else _expected("date", value)
    return _instance((kind,), kind.__name__)


def _each(kinds: tuple[type, ...], item: Check, expected: str) -> Check:
    def check(value: object) -> Misfit | None:
        if not isinstance(value, kinds):
            return _expected(expected, value)
        return _first((f"[{i}]", item(one)) for i, one in enumerate(typing.cast("Iterable[object]", value)))

    return check


def _pairs(key: Check, item: Check, expected: str) -> Check:
    def check(value: object) -> Misfit | None:
        if not isinstance(value, dict):
            return _expected(expected, value)
        pairs = typing.cast("dict[object, object]", value)
        wrong_key = _first(("", key(name)) for name in pairs)
        if wrong_key is not None:
            return Misfit("", f"has a key that {wrong_key.reason}")
        return _first((key_path(name), item(one)) for name, one in pairs.items())

    return check


def _any_of(checks: list[Check], expected: str) -> Check:
    def check(value: object) -> Misfit | None:
        found = [branch(value) for branch in checks]
        if None in found:
            return None
        # The branch that got furthest into the value is the one its author meant.
        deepest = max((misfit for misfit in found if misfit is not None), key=lambda misfit: len(misfit.path))
        return deepest if deepest.path else _expected(expected, value)

    return check


def _fields(kind: type, fields: Mapping[str, Check], expected: str) -> Check:
    def check(value: object) -> Misfit | None:
        if not isinstance(value, kind):
            return _expected(expected, value)
        return _first((f".{name}", check(getattr(value, name))) for name, check in fields.items())

    return check


def _typed_dict(kind: Any, fields: Mapping[str, Check], expected: str) -> Check:
    def check(value: object) -> Misfit | None:
        if not isinstance(value, dict):
            return _expected(expected, value)
        pairs = typing.cast("dict[str, object]", value)
        for missing in kind.__required_keys__ - pairs.keys():
            return Misfit("", f"lacks {missing!r} of {expected}")
        if pairs.keys() - fields.keys():
            return Misfit("", f"has a key that {expected} does not have")
        return _first((key_path(name), fields[name](one)) for name, one in pairs.items())

    return check


def _first(found: Iterable[tuple[str, Misfit | None]]) -> Misfit | None:
    for path, misfit in found:
        if misfit is not None:
            return Misfit(path + misfit.path, misfit.reason)
    return None


def key_path(key: object) -> str:
    """How a path names one key of a dict: readable, short, and printable whatever the key is."""
    if isinstance(key, str) or (isinstance(key, int) and key.bit_length() <= 64):
        return f"[{ascii(key)[:60]}]"
    return f"[{type(key).__qualname__}]"


def _expected(expected: str, value: object) -> Misfit:
    return Misfit("", f"is {type(value).__qualname__} where {expected} is expected")


def _unstorable(annotation: Any, where: str) -> CatalogError:
    return CatalogError(
        f"{where}: {_name(annotation)} is not a type that can be stored.",
        hint="use plain types, containers, dataclasses, msgspec.Struct, TypedDict, NamedTuple or enums, "
        "and turn other objects into one of these at the edge.",
    )


def _name(annotation: Any) -> str:
    return (
        annotation.__qualname__ if isinstance(annotation, type) and not typing.get_args(annotation) else str(annotation)
    )
