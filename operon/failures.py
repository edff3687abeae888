"""Errors as JSON, and back as the class they were where this application has it.

The rule: storing an error never fails, whatever the error is made of, and reading one never runs code of its
author's. Classes are looked up among the modules that are already imported, never imported, and must be exceptions.
Objects are rebuilt without `__init__`: its parameters are seldom what `args` holds.

What is stored is masked (see `masking`): an error that quotes a password is raised again without it.

An argument that is no data is kept as text, so that the message still reads; an attribute that is no data is left out,
because code that asks for it is better served by an AttributeError than by a string in disguise.
"""

from __future__ import annotations

import builtins
import contextlib
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator
from types import GetSetDescriptorType, MemberDescriptorType
from typing import Any

import msgspec

from operon.errors import DecodingError, RemoteError
from operon.masking import masked, masked_data, masked_value
from operon.shapes import Shape
from operon.tagged import lift, lower

TEXT_CHARACTERS_MAX = 16_000
VALUE_BYTES_MAX = 64 * 1024
ERROR_BYTES_MAX = 1024 * 1024
COUNT_MAX = 64
NESTING_MAX = 3

_ANYTHING = Shape(Any, "an error")
_write = msgspec.json.Encoder().encode
_is: Callable[[Any, Any], bool] = isinstance  # without narrowing, which would make list[Unknown] of an Any
_HEAP_TYPE = 1 << 9


class ErrorRecord(msgspec.Struct, frozen=True):
    """An error as it is stored: what a dashboard shows, and what the error is rebuilt from."""

    type: str
    module: str
    message: str
    args: tuple[Any, ...] = ()
    attributes: dict[str, Any] = {}
    traceback: str = ""
    errors: tuple[ErrorRecord, ...] = ()

    @property
    def type_name(self) -> str:
        """The class, with its module unless it is Python's own."""
        return self.type if self.module == "builtins" else f"{self.module}.{self.type}"


_read = msgspec.json.Decoder(ErrorRecord).decode


def encode_error(error: BaseException) -> bytes:
    """The stored text of an error: at most 1 MiB, without NUL or surrogates outside its values. Never raises."""
    for describe in (_full, _without_values, _bare):
        try:
            data = _write(_dump(describe(error)))
        except Exception:  # noqa: S112 - an error may be made of anything; the next try asks less of it
            continue
        if len(data) <= ERROR_BYTES_MAX:
            return data
    return _write({"type": "Exception", "module": "builtins", "message": "an error that cannot be described"})


def decode_record(data: bytes) -> ErrorRecord:
    """The record of a stored error. Raises DecodingError for anything else."""
    try:
        return _load(_read(data))
    except Exception as error:
        raise DecodingError(f"a stored error cannot be read: {type(error).__name__}: {error}") from error


def decode_error(data: bytes) -> Exception:
    """The stored error, ready to be raised: of its own class where that is found, else RemoteError.

    `operon_record` is its ErrorRecord, with the traceback of where it happened. Raises DecodingError.
    """
    return rebuild(decode_record(data))


def rebuild(record: ErrorRecord) -> Exception:
    """The error of a record, as `decode_error` gives it."""
    found = find_class(record.module, record.type)
    error: Exception | None = None
    if found is not None:
        with contextlib.suppress(Exception):
            error = _rebuild(found, record)
            str(error)  # an error that cannot be printed is no use to anyone
            _attach(error, record)
            return error
    remote = RemoteError(f"{record.type_name}: {record.message}", type_name=record.type_name)
    _attach(remote, record)
    return remote


def find_class(module: str, name: str) -> type[Exception] | None:
    """The exception class of this module and qualified name, if it is here already. Imports nothing."""
    # __dict__ and not getattr: a module's __getattr__ may import, a class's may run anything.
    found: Any = builtins if module == "builtins" else sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, "__dict__", {}).get(part)
    return found if isinstance(found, type) and issubclass(found, Exception) else None


def _full(error: Any, nesting: int = NESTING_MAX) -> ErrorRecord:
    record = error.__dict__.get("operon_record") if _is(error, RemoteError) else None
    if isinstance(record, ErrorRecord):  # passed on: the next process may know the class
        return record
    is_group = _is(error, BaseExceptionGroup)
    nested: tuple[BaseException, ...] = error.exceptions if is_group else _nested(error.__dict__.get("errors"))
    given = error.args[:1] if is_group else error.args
    return ErrorRecord(
        type=_clean(type(error).__qualname__),
        module=_clean(type(error).__module__),
        message=_text(error),
        args=tuple(value if _is_carried(value) else _text(value) for value in given[:COUNT_MAX]),
        attributes={name: value for name, value in _attributes(error) if _is_carried(value)},
        traceback=_traceback(error),
        errors=tuple(_full(one, nesting - 1) for one in nested[:COUNT_MAX]) if nesting else (),
    )


def _without_values(error: BaseException) -> ErrorRecord:
    record = _full(error)
    nested = tuple(ErrorRecord(one.type, one.module, one.message[:1000]) for one in record.errors)
    return ErrorRecord(record.type, record.module, record.message, (record.message,), {}, record.traceback, nested)


def _bare(error: BaseException) -> ErrorRecord:
    message = _text(error)
    return ErrorRecord(_clean(type(error).__qualname__), _clean(type(error).__module__), message, (message,))


def _nested(errors: Any) -> tuple[BaseException, ...]:
    if not _is(errors, (list, tuple)) or not all(isinstance(one, BaseException) for one in errors):
        return ()
    return tuple(errors)


def _attributes(error: BaseException) -> Iterator[tuple[str, Any]]:
    """What the error carries beside its arguments: its `__dict__`, its slots, and what C keeps (errno, name, ...)."""
    for kind in type(error).__mro__:
        for name, member in vars(kind).items():
            if isinstance(member, MemberDescriptorType | GetSetDescriptorType) and not name.startswith("__"):
                with contextlib.suppress(Exception):
                    value = getattr(error, name)
                    if name not in ("args", "exceptions") and value is not None:
                        yield name, value
    for name, value in list(vars(error).items())[:COUNT_MAX]:
        if name != "operon_record":
            yield name, value


def _is_carried(value: Any) -> bool:
    try:
        return len(_write(lower(value, _ANYTHING))) <= VALUE_BYTES_MAX
    except Exception:
        return False


def _text(value: object) -> str:
    try:
        return _clean(str(value))
    except Exception:
        return f"<{_clean(type(value).__qualname__)} that cannot be printed>"


def _clean(text: str) -> str:
    """Text that any column, log and terminal takes: no secrets, no NUL, no lone surrogates, not endless."""
    # Masked before it is cut: half a URL is not recognised any more.
    plain = masked(text[: 2 * TEXT_CHARACTERS_MAX])[:TEXT_CHARACTERS_MAX].encode("utf-8", "backslashreplace")
    return plain.decode("utf-8").replace("\0", "\\x00")


def _traceback(error: BaseException) -> str:
    try:
        # The end is where it happened.
        return _clean(masked("".join(traceback.format_exception(error)))[-TEXT_CHARACTERS_MAX:])
    except Exception:
        return ""


def _dump(record: ErrorRecord) -> ErrorRecord:
    """The same record with its values in the tagged form, and without secrets in them."""
    return msgspec.structs.replace(
        record,
        args=tuple(masked_data(lower(value, _ANYTHING)) for value in record.args),
        attributes={
            _clean(name): masked_value(name, lower(value, _ANYTHING)) for name, value in record.attributes.items()
        },
        errors=tuple(_dump(one) for one in record.errors),
    )


def _load(stored: ErrorRecord) -> ErrorRecord:
    return ErrorRecord(
        type=stored.type,
        module=stored.module,
        message=stored.message,
        args=tuple(lift(value, _ANYTHING) for value in stored.args),
        attributes={name: lift(value, _ANYTHING) for name, value in stored.attributes.items()},
        traceback=stored.traceback,
        errors=tuple(_load(one) for one in stored.errors),
    )


def _rebuild(kind: Any, record: ErrorRecord) -> Exception:
    errors = [rebuild(one) for one in record.errors]
    is_group = issubclass(kind, ExceptionGroup)
    error: Exception = _make(kind, (*record.args, errors) if is_group else record.args)
    for name, value in record.attributes.items():
        member = inspect.getattr_static(kind, name, None)
        if isinstance(member, MemberDescriptorType | GetSetDescriptorType):
            with contextlib.suppress(Exception):  # a read-only one
                object.__setattr__(error, name, value)
        else:
            error.__dict__[name] = value
    if errors and not is_group:
        error.__dict__["errors"] = errors
    return error


def _make(kind: Any, args: tuple[Any, ...]) -> Exception:
    """The object with its arguments, made by Python's own class below it: no `__new__` of the application's runs."""
    base: Any = kind
    while (
        base.__flags__ & _HEAP_TYPE
    ):  # `__base__` leads along the memory layout: OSError for Both(ValueError, OSError)
        base = base.__base__
    error: Exception = base.__new__(kind, *args)
    object.__setattr__(error, "args", args)
    return error


def _attach(error: Exception, record: ErrorRecord) -> None:
    with contextlib.suppress(Exception):
        error.__dict__["operon_record"] = record
