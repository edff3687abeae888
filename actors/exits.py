"""How a child ended, as values.

An exception of a child never travels through a task group, where it would take the siblings down.
It becomes one of these, is handed to the supervisor, and is judged there (`restart.decide`).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TypeAlias, cast

__all__ = [
    "NORMAL",
    "SHUTDOWN",
    "Crashed",
    "Exit",
    "Normal",
    "Shutdown",
    "Stopped",
    "Zombie",
    "exit_of",
    "message_of",
    "unwrap",
]


@dataclass(frozen=True, slots=True)
class Normal:
    """The child returned."""

    def __str__(self) -> str:
        return "normal"


@dataclass(frozen=True, slots=True)
class Shutdown:
    """The child was told to stop, and did."""

    def __str__(self) -> str:
        return "shutdown"


@dataclass(frozen=True, slots=True)
class Stopped:
    """The child left with one of the exceptions that its supervisor counts as an ordinary way to leave."""

    by: BaseException

    def __str__(self) -> str:
        return f"stopped: {type(self.by).__name__}"


@dataclass(frozen=True, slots=True)
class Crashed:
    """The child raised. Also a cancellation that did not come from its supervisor."""

    error: BaseException

    def __str__(self) -> str:
        return f"crashed: {type(self.error).__name__}"


@dataclass(frozen=True, slots=True)
class Zombie:
    """The child was told to stop and did not within `seconds`. It may still be running: asyncio cannot kill."""

    seconds: float

    def __str__(self) -> str:
        return f"zombie: still running after {self.seconds:g} s"


Exit: TypeAlias = Normal | Shutdown | Stopped | Crashed | Zombie

# Tens of thousands of children a second end in these two; one object each is enough.
NORMAL = Normal()
SHUTDOWN = Shutdown()


def exit_of(error: BaseException, *, asked: bool, stopped_by: tuple[type[BaseException], ...] = ()) -> Exit:
    """Name the exit of a child that ended with `error`; `asked` says whether its supervisor had told it to stop."""
    error = unwrap(error)
    if isinstance(error, asyncio.CancelledError):
        return SHUTDOWN if asked else Crashed(error)
    if isinstance(error, stopped_by):
        return Stopped(error)
    return Crashed(error)


def message_of(exit: Exit | None) -> str | None:
    """Return the message of a crash, if it was one."""
    return str(exit.error) if isinstance(exit, Crashed) else None


def unwrap(error: BaseException) -> BaseException:
    """Take an error out of exception groups that hold nothing else: task groups wrap what people want to read."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    errors: tuple[BaseException, ...] = cast("BaseExceptionGroup[BaseException]", error).exceptions
    return unwrap(errors[0]) if len(errors) == 1 else cast("BaseException", error)
