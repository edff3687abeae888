"""A function's parameters, and its arguments as one JSON object by parameter name.

By name, so that a person can read a row, and so that a parameter with a default can be added while old workflows
are still running: what the row does not have is the default. Defaults are stored like any argument, so that a
changed default does not change a workflow that has begun.

Annotations are resolved at first use, because a module may name a class above its definition; `check` does it at
launch for every operation, so that a broken one is found before anything runs. The context's annotation is never
looked at: it may be imported for the type checker only.
"""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from operon.codec import INPUT_BYTES_MAX, Codec
from operon.errors import CatalogError, DecodingError, InputError
from operon.telemetry.hidden import leaves

_EMPTY: Any = inspect.Parameter.empty
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_read_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_write = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of an operation, its context aside."""

    name: str
    annotation: Any
    default: Any
    kind: Any
    codec: Codec[Any]
    key: bytes = field(repr=False)

    @property
    def required(self) -> bool:
        """Whether a call must give it."""
        return self.otherwise is _EMPTY

    @property
    def otherwise(self) -> Any:
        """What the function gets when a call does not give it."""
        match self.kind:
            case inspect.Parameter.VAR_POSITIONAL:
                return ()
            case inspect.Parameter.VAR_KEYWORD:
                return {}
            case _:
                return self.default


class Signature:
    """What an operation takes and gives."""

    def __init__(self, function: Callable[..., Any], skip_first: bool, operation_name: str) -> None:
        """`skip_first` leaves the context out. Raises CatalogError if there is none to leave out."""
        self.operation_name = operation_name
        self._function = inspect.unwrap(function)
        written = inspect.signature(function)
        own = list(written.parameters.values())
        if skip_first and not (own and own[0].kind in _POSITIONAL):
            raise CatalogError(
                f"{operation_name} takes no context.",
                hint="the first parameter of an operation is its context: `async def name(ctx, ...)`.",
            )
        self._python = written.replace(parameters=own[1:] if skip_first else own)
        self._names = tuple(self._python.parameters)
        self._only_positional = all(one.kind in _POSITIONAL for one in self._python.parameters.values())

    def __repr__(self) -> str:
        return f"<Signature {self.operation_name}{self._python}>"

    @functools.cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        """The parameters, in order. Raises CatalogError for an annotation that cannot be resolved or stored."""
        return tuple(self._parameter(one) for one in self._python.parameters.values())

    @functools.cached_property
    def result(self) -> Codec[Any]:
        """The codec of what the function returns. Raises CatalogError as `parameters` does."""
        annotation = self._resolve("return", self._python.return_annotation, "its result")
        return Codec(annotation, f"{self.operation_name}: result")

    @functools.cached_property
    def masks(self) -> bool:
        """Whether any of the parameters is masked."""
        return any(parameter.codec.masked for parameter in self.parameters)

    def secrets(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[str]:
        """What is in the masked arguments of a call, as it would be printed."""
        try:
            bound = self.bind(args, kwargs)
        except TypeError:  # the call will say so itself
            return []
        return [text for one in self.parameters if one.codec.masked for text in leaves(bound[one.name])]

    def check(self) -> None:
        """Finds at launch what would otherwise be found by the first call. Raises CatalogError."""
        _ = self.parameters, self.result

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments by parameter name, defaults filled in. Raises TypeError as the call itself would."""
        if not kwargs and self._only_positional and len(args) == len(self._names):
            return dict(zip(self._names, args, strict=True))
        try:
            bound = self._python.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self.operation_name}() {error}") from None
        bound.apply_defaults()
        return dict(bound.arguments)

    def encode(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes:
        """The stored text of a call's arguments. Raises TypeError or InputError."""
        return self._settle(args, kwargs)[0]

    def settle(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[bytes, tuple[Any, ...], dict[str, Any]]:
        """The stored text, and the arguments as replay will give them. Raises TypeError or InputError."""
        data, values = self._settle(args, kwargs)
        return (data, *self._call(values))

    def decode(self, data: bytes) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of a stored text, to call the function with after its context. Raises DecodingError."""
        stored = self._stored(data)
        values: list[Any] = []
        for parameter in self.parameters:
            raw = stored.pop(parameter.name, None)
            if raw is not None:
                values.append(parameter.codec.decode(bytes(raw)))
            elif parameter.required:
                raise DecodingError(
                    f"{parameter.codec.where} was not stored.",
                    hint="a parameter that is added while workflows are running needs a default.",
                )
            else:
                values.append(parameter.otherwise)
        if stored:
            raise DecodingError(
                f"{self.operation_name}: argument {next(iter(stored))!r} was stored, but is not a parameter.",
                hint="a parameter can be removed when no workflow that was started with it is left.",
            )
        return self._call(values)

    def masked(self, data: bytes) -> bytes:
        """The stored text with every masked argument cut out, for logs, spans and the dashboard."""
        hidden = {parameter.name for parameter in self.parameters if parameter.codec.masked}
        if not hidden:
            return data
        stored = self._stored(data)
        return _write({name: "***" if name in hidden else raw for name, raw in stored.items()})

    def _settle(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[bytes, list[Any]]:
        # The common call, every argument by position, needs no binding: zip is a tenth of what inspect takes.
        if kwargs or not self._only_positional or len(args) != len(self._names):
            args = tuple(self.bind(args, kwargs).values())
        parts: list[bytes] = []
        values: list[Any] = []
        for parameter, value in zip(self.parameters, args, strict=True):
            try:
                text, value = parameter.codec.settle(value)
                parts.append(parameter.key + text)
            except InputError:
                # A default like a sentinel need not be data: it is not stored, and comes from the function again.
                if value is not parameter.default:
                    raise
            values.append(value)
        data = b"{" + b",".join(parts) + b"}"
        if len(data) > INPUT_BYTES_MAX:
            raise InputError(
                f"{self.operation_name}: the arguments are {len(data):,} bytes as JSON, "
                f"and {INPUT_BYTES_MAX:,} are allowed.",
                hint="store what is large in a table, and pass its key.",
            )
        return data, values

    def _call(self, values: list[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if self._only_positional:
            return tuple(values), {}
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        for parameter, value in zip(self.parameters, values, strict=True):
            match parameter.kind:
                case inspect.Parameter.VAR_POSITIONAL:
                    args.extend(value)
                case inspect.Parameter.VAR_KEYWORD:
                    kwargs.update(value)
                case inspect.Parameter.KEYWORD_ONLY:
                    kwargs[parameter.name] = value
                case _:
                    args.append(value)
        return tuple(args), kwargs

    def _stored(self, data: bytes) -> dict[str, msgspec.Raw]:
        try:
            return _read_object(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise DecodingError(f"{self.operation_name}: the stored arguments cannot be read: {error}") from error

    def _parameter(self, one: inspect.Parameter) -> Parameter:
        annotation = self._resolve(one.name, one.annotation, f"argument {one.name!r}")
        stored: Any = annotation
        if one.kind is inspect.Parameter.VAR_POSITIONAL:
            stored = types.GenericAlias(tuple, (annotation, ...))
        elif one.kind is inspect.Parameter.VAR_KEYWORD:
            unpacked = typing.get_origin(annotation) is typing.Unpack
            stored = typing.get_args(annotation)[0] if unpacked else types.GenericAlias(dict, (str, annotation))
        codec: Codec[Any] = Codec(
            stored, f"{self.operation_name}: argument {one.name!r}", error=InputError, bytes_max=INPUT_BYTES_MAX
        )
        return Parameter(one.name, annotation, one.default, one.kind, codec, _write(one.name) + b":")

    def _resolve(self, name: str, annotation: Any, what: str) -> Any:
        if annotation is _EMPTY:
            return Any
        try:
            # One at a time: typing resolves all or nothing, and one of them is the context's.
            holder: Any = types.SimpleNamespace(__annotations__={name: annotation})
            scope = getattr(self._function, "__globals__", {})
            return typing.get_type_hints(holder, scope, _closure(self._function), include_extras=True)[name]
        except Exception as error:
            raise CatalogError(
                f"{self.operation_name}: the annotation of {what}, {annotation!r}, cannot be resolved: {error}.",
                hint="import the name at run time, not only under TYPE_CHECKING, and define classes at module level.",
            ) from error


def _closure(function: Any) -> dict[str, Any]:
    """The local names a nested function keeps: the classes of a test, for instance."""
    names: dict[str, Any] = {}
    code = getattr(function, "__code__", None)
    for name, cell in zip(code.co_freevars if code else (), getattr(function, "__closure__", None) or (), strict=False):
        try:
            names[name] = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    return names
