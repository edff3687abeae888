"""What messages and events are filed under: a name, and the type of what is found there.

    PAYMENT = operon.Topic("payment", Payment)
    STATUS = operon.EventKey("status", str)

A plain string does as well; what is sent or read under it is not checked. Messages without a topic are a pile of their
own. The other side may be another program: what it sent is checked when it is received.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from uuid import UUID

import msgspec

from operon.codec import INPUT_BYTES_MAX, Codec
from operon.errors import InputError, InvocationError

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

Key = str | int | UUID | Sequence[str | int | UUID]


class Named(Generic[T]):
    """A name with the type of what is filed under it."""

    def __init__(self, name: str, type: type[T]) -> None:
        self.name = checked(name)
        self.type = type

    @functools.cached_property
    def codec(self) -> Codec[T]:
        """Writes and reads what is filed here. Raises CatalogError for a type that cannot be stored."""
        return codec_of(self.type, repr(self))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"


class Topic(Named[T]):
    """A kind of message: `ctx.send(uuid, payment, PAYMENT)`, `await ctx.recv(PAYMENT)`."""


class EventKey(Named[T]):
    """What a workflow publishes under a name: `ctx.set_event(STATUS, "paid")`, `ctx.get_event(uuid, STATUS)`."""


@dataclass(frozen=True, slots=True)
class Received(Generic[T_co]):
    """A message out of `recv_any`: from which of the topics, as they were named there, and the message."""

    topic: Topic[Any] | str | None
    message: T_co


def codec_of(annotation: Any, where: str) -> Codec[Any]:
    return Codec(annotation, where, error=InputError, bytes_max=INPUT_BYTES_MAX)


UNTYPED = codec_of(Any, "a message or event without a type")


def checked(name: str) -> str:
    """A name as it is stored. InvocationError for one that cannot be."""
    if not name or not name.isprintable() or len(name) > 200:
        raise InvocationError(
            f"{name!r} is no name for a topic or an event", hint="1 to 200 printable characters, like 'payment'"
        )
    return name


def name_of(topic: Named[Any] | str | None) -> str | None:
    """The stored name of a topic; None for messages without one."""
    if topic is None:
        return None
    return checked(topic) if isinstance(topic, str) else topic.name


def codec_for(topic: Named[T] | str | None) -> Codec[T]:
    """How what is filed there is written and read."""
    return topic.codec if isinstance(topic, Named) else UNTYPED


def key_text(key: Key) -> str:
    """An idempotency key as it is stored: JSON, so that ("a", "bc") and ("ab", "c") are two."""
    parts: Any = key if isinstance(key, str | int | UUID) else list(key)
    return msgspec.json.encode(parts).decode()
