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
from typing import Any, Generic, Literal, TypeVar
from uuid import UUID

import msgspec

from operon.codec import INPUT_BYTES_MAX, Codec
from operon.errors import InputError, InvocationError

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

Key = str | int | UUID | Sequence[str | int | UUID]

NAME_HINT = "1 to 200 printable characters, like 'payment'"
DOWN_NAME = "operon.down"  # the runtime sends it, and nobody else
KNOWN_MAX = 1_000  # names that need no second look; whoever makes them up as he goes has more
KEY_BYTES_MAX = 1_000  # an index of Postgres takes no more than 2,700


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


class Receivable(Generic[T_co]):
    """A topic, to who receives: a `Topic[int]` does where an `int | None` is wanted. Who sends needs its exact type."""


class Readable(Generic[T_co]):
    """The same of an event, to who reads it."""


class Topic(Named[T], Receivable[T]):
    """A kind of message: `ctx.send(uuid, payment, PAYMENT)`, `await ctx.recv(PAYMENT)`.

    on_poison: what becomes of a message at whose receipt the workflow crashes each time. "stop": the workflow is DEAD
    when its crash budget is used up, and meets the same message when it is resumed. "skip": after `max_deliveries` such
    crashes the message becomes a dead letter, and the workflow receives the next one.
    max_deliveries: the setting of that name by default, and never more than `crash_budget`.
    Raises InvocationError for what is neither.
    """

    def __init__(
        self,
        name: str,
        type: type[T],
        *,
        on_poison: Literal["stop", "skip"] = "stop",
        max_deliveries: int | None = None,
    ) -> None:
        super().__init__(name, type)
        if on_poison not in ("stop", "skip"):
            raise InvocationError(f"{self!r}: on_poison={on_poison!r}", hint='"stop" or "skip"')
        if max_deliveries is not None and not max_deliveries > 0:
            raise InvocationError(f"{self!r}: max_deliveries={max_deliveries!r}", hint="a number from 1 on")
        self.on_poison = on_poison
        self.max_deliveries = max_deliveries


class EventKey(Named[T], Readable[T]):
    """What a workflow publishes under a name: `ctx.set_event(STATUS, "paid")`, `ctx.get_event(uuid, STATUS)`."""


@dataclass(frozen=True, slots=True)
class Received(Generic[T_co]):
    """A message out of `recv_any`: from which of the topics, as they were named there, and the message."""

    topic: Topic[Any] | str | None
    message: T_co


def codec_of(annotation: Any, where: str) -> Codec[Any]:
    return Codec(annotation, where, error=InputError, bytes_max=INPUT_BYTES_MAX)


_known: set[str] = set()

UNTYPED = codec_of(Any, "a message or event without a type")


def checked(name: Any) -> str:
    """A name as it is stored. InvocationError for one that cannot be."""
    if not isinstance(name, str) or not is_name(name):
        raise InvocationError(f"{name!r} is no name for a topic or an event", hint=NAME_HINT)
    return name


def is_name(name: str) -> bool:
    return 0 < len(name) <= 200 and name.isprintable()


def name_of(topic: Named[Any] | str | None) -> str | None:
    """The stored name of a topic; None for messages without one."""
    return None if topic is None else event_name(topic)


def sent_under(topic: Named[Any] | str | None) -> str | None:
    """The same of a topic that somebody sends under. InputError for the runtime's own."""
    name = name_of(topic)
    if name == DOWN_NAME:
        raise InputError("only the end of a workflow sends a Down", hint="send under a topic of your own")
    return name


def event_name(key: Named[Any] | str) -> str:
    """The stored name of an event. InputError for a text that is none, InvocationError for what is no text."""
    if isinstance(key, Named):
        return key.name
    if key.__class__ is str and key in _known:
        return key
    name: Any = key
    if isinstance(name, str) and not is_name(name):  # whoever called a handler may have chosen it
        raise InputError(f"{name[:100]!r} is no name for a topic or an event", hint=NAME_HINT)
    if len(_known) < KNOWN_MAX:
        _known.add(checked(name))
    return checked(name)


def codec_for(topic: Named[T] | str | None) -> Codec[T]:
    """How what is filed there is written and read."""
    return topic.codec if isinstance(topic, Named) else UNTYPED


def key_text(key: Key) -> str:
    """An idempotency key as it is stored: JSON, so that ("a", "bc") and ("ab", "c") are two.

    InputError for one that cannot be stored, InvocationError for what is none.
    """
    given: Any = key
    several = isinstance(given, tuple | list)
    parts: list[Any] = [*given] if several else [given]
    are_parts = all(isinstance(part, str | int | UUID) for part in parts)
    try:
        if are_parts:
            text = msgspec.json.encode(parts if several else key).decode()
            if len(text.encode()) <= KEY_BYTES_MAX:
                return text
    except (ValueError, OverflowError):  # half a character, or a number of hundreds of digits
        pass
    raise (InputError if are_parts else InvocationError)(
        f"{str(key)[:100]!r} is no idempotency key",
        hint=f"a string, a number, a UUID, or a tuple of these; at most {KEY_BYTES_MAX} bytes in all",
    )
