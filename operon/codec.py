"""Values as JSON text, and back to the annotated type. Never pickle.

The rule: a value either comes back equal or is refused. `settle` proves it for each value by reading back what it
wrote; what the caller goes on with is what was read, so the first run and every replay see the same by construction.
Only exact scalars skip the proof, because nothing can happen to them.

Three ways, from cheap to careful:
1. None, bool, int, float, str that the annotation allows as they are: written.
2. Everything else: written plain by msgspec, read back by the annotation, compared.
3. What did not compare equal: the tagged form (tagged.py), read back, checked against the annotation, compared.

A stored document says which of the last two it is, so either can be read for ever, and other languages may write
plain JSON.
"""

from __future__ import annotations

import inspect
from typing import Any, Generic, TypeVar, cast

import msgspec

from operon.errors import DecodingError, EncodingError, OutputError
from operon.shapes import Masked, Misfit, Shape
from operon.tagged import ENVELOPE, TOO_DEEP, Refusal, difference, lift, lower

__all__ = ["INPUT_BYTES_MAX", "OUTPUT_BYTES_MAX", "Codec", "Masked"]

# Inputs are refused before anything ran, so the limit can be strict; an output exists only because an effect happened.
INPUT_BYTES_MAX = 4 * 1024 * 1024
OUTPUT_BYTES_MAX = 20 * 1024 * 1024

T = TypeVar("T")

_write = msgspec.json.Encoder().encode
_read = msgspec.json.Decoder().decode
_BOUNDED = frozenset({int, float})
_INT_MAX = 2**63 - 1


class Codec(Generic[T]):
    """Writes and reads the values of one annotation."""

    __slots__ = ("_decode_plain", "_msgspec_checks", "_scalars", "_shape", "annotation", "bytes_max", "error", "where")

    def __init__(
        self,
        annotation: Any,
        where: str,
        *,
        error: type[EncodingError] = OutputError,
        bytes_max: int = OUTPUT_BYTES_MAX,
    ) -> None:
        """`where` names the operation and the place in messages, such as "tickets.charge: argument 'card'".

        Raises CatalogError when no value of the annotation could be stored.
        """
        self.annotation = Any if annotation is inspect.Parameter.empty else annotation
        self.where = where
        self.error = error
        self.bytes_max = bytes_max
        self._shape = Shape(self.annotation, where)
        self._scalars = self._shape.scalars
        try:
            self._decode_plain = msgspec.json.Decoder(self.annotation).decode
            self._msgspec_checks = True
        except Exception:  # a union it cannot tell apart, an enum of tuples: the shape checks instead
            self._decode_plain = _read
            self._msgspec_checks = False

    def __repr__(self) -> str:
        return f"<Codec {self.where}: {self.annotation}>"

    @property
    def masked(self) -> bool:
        """Whether `Masked` is anywhere in the annotation."""
        return self._shape.masked

    def encode(self, value: T) -> bytes:
        """The stored text. Raises `error` as `settle` does."""
        return self.settle(value)[0]

    def settle(self, value: T) -> tuple[bytes, T]:
        """The stored text, and the value as replay will give it. Raises `error`, naming the field."""
        kind = type(value)
        # NaN, the infinities and integers beyond 64 bits all fail the comparison, and take the careful way.
        if kind in self._scalars and (kind not in _BOUNDED or -_INT_MAX <= cast("float", value) <= _INT_MAX):
            try:
                data = _write(value)
            except UnicodeEncodeError:
                return self._settle_tagged(value)
            if len(data) <= self.bytes_max:
                return data, value
        return self._settle_plain(value) or self._settle_tagged(value)

    def decode(self, data: bytes) -> T:
        """The value of a stored text, tagged or plain. Raises DecodingError."""
        try:
            if data.startswith(ENVELOPE):
                value, checked = lift(_read(data)["value"], self._shape), False
            else:
                value, checked = self._decode_plain(data), self._msgspec_checks
            misfit = None if checked else self._shape.misfit(value)
        except Exception as error:
            # Stored data is not ours to trust: whatever it makes msgspec, a constructor or a look-up say is the answer.
            raise DecodingError(f"{self.where} cannot be read: {self._words(error)}") from self._cause(error)
        if misfit is not None:
            raise DecodingError(f"{self.where}{misfit.path} cannot be read: it {misfit.reason}")
        return cast("T", value)

    def _settle_plain(self, value: T) -> tuple[bytes, T] | None:
        """The plain way, or None where it would bend the value or cannot hold it. Raises `error` for the size."""
        try:
            data = _write(value)
            self._check_size(data)
            if data.startswith(ENVELOPE):
                return None
            back = self._decode_plain(data)
            if difference(value, back) is not None:
                return None
            if not self._msgspec_checks and self._shape.misfit(value) is not None:
                return None
        except EncodingError:
            raise
        except Exception:
            # Anything at all: a constructor of the user's, a depth, a type. The tagged form finds the words for it.
            return None
        return data, cast("T", back)

    def _settle_tagged(self, value: T) -> tuple[bytes, T]:
        try:
            misfit = self._shape.misfit(value)
            if misfit is not None:
                raise self._refused(misfit)
            data = _write({"$operon": 1, "value": lower(value, self._shape)})
            self._check_size(data)
            back = lift(_read(data)["value"], self._shape)
            path = difference(value, back)
        except EncodingError:
            raise
        except Refusal as refusal:
            raise self._refused(Misfit(refusal.path, refusal.reason)) from None
        except RecursionError:
            raise self._refused(Misfit("", TOO_DEEP)) from None
        except Exception as error:
            raise self._refused(Misfit("", f"does not come back: {self._words(error)}")) from self._cause(error)
        if path is not None:
            raise self._refused(Misfit(path, "does not come back equal"))
        return data, cast("T", back)

    def _check_size(self, data: bytes) -> None:
        if len(data) > self.bytes_max:
            raise self._refused(Misfit("", f"is {len(data):,} bytes as JSON, and {self.bytes_max:,} are allowed"))

    def _refused(self, misfit: Misfit) -> EncodingError:
        return self.error(
            f"{self.where}{_short(misfit.path)} cannot be stored: it {misfit.reason}.",
            hint="annotate it with the type it has (a dataclass, a Struct, tuple, datetime, ...), or turn it into "
            "plain data first; what is large belongs in a table, with its key here.",
        )

    def _words(self, error: Exception) -> str:
        """What an error says, also when saying it fails; for a masked value its type only, for it may quote it."""
        try:
            return type(error).__name__ if self.masked else f"{type(error).__name__}: {error}"
        except Exception:
            return type(error).__name__

    def _cause(self, error: Exception) -> Exception | None:
        """The error behind a refusal; of a masked value none, for a traceback would quote what the words leave out."""
        return None if self.masked else error


def _short(path: str) -> str:
    return path if len(path) <= 200 else f"{path[:200]}..."
