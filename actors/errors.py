"""Every error of this package, in one tree. Each says what happened; `hint` says what to do.

ActorsError
|- ActorDead            told or asked an actor that is gone for good
|- ActorCrashed         the actor crashed on the very message that asked
|- AskTimeout           no reply in time (also a TimeoutError); the actor may still be working on it
|- MailboxFull          the mailbox is at its limit
|- NameTaken            two children, or two entries of a registry, under one name
|- NoSuchChild
|- ChildStartFailed     a child ended, or stayed silent, before it said `started`; the cause is chained
|- IntensityExceeded    too many restarts in the window; raised to the parent, and at the root to the caller
|- TooManyChildren      a dynamic supervisor is at `children_max`
|- SupervisorSuspended  a dynamic supervisor takes no new children until `resume`
`- SupervisorNotRunning not entered yet, stopping, or gone
"""

from __future__ import annotations

__all__ = [
    "ActorCrashed",
    "ActorDead",
    "ActorsError",
    "AskTimeout",
    "ChildStartFailed",
    "IntensityExceeded",
    "MailboxFull",
    "NameTaken",
    "NoSuchChild",
    "SupervisorNotRunning",
    "SupervisorSuspended",
    "TooManyChildren",
]


class ActorsError(Exception):
    """The root of everything that this package raises."""

    def __init__(self, message: str = "", *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\nHint: {self.hint}" if self.hint else self.message


class ActorDead(ActorsError):
    """The actor is gone for good: finished, stopped, or crashed more often than its supervisor allows."""


class ActorCrashed(ActorsError):
    """The actor crashed while it handled this message. The crash is the cause; the message is not tried again."""


class AskTimeout(ActorsError, TimeoutError):
    """No reply came in time. The message may still be waiting, or may have been handled."""


class MailboxFull(ActorsError):
    """The mailbox holds as many messages as it may. Nothing was put in."""


class NameTaken(ActorsError):
    """The name belongs to something that is still alive."""


class NoSuchChild(ActorsError):
    """The supervisor has no child of this name."""


class ChildStartFailed(ActorsError):
    """The child ended before it was started, or took longer than its `start_timeout`."""


class IntensityExceeded(ActorsError):
    """More restarts in the window than the intensity allows. The supervisor has stopped all its children."""


class TooManyChildren(ActorsError):
    """The dynamic supervisor has as many children as it may. Nothing was started."""


class SupervisorSuspended(ActorsError):
    """The dynamic supervisor was suspended and takes no new children. Nothing was started."""


class SupervisorNotRunning(ActorsError):
    """The supervisor was not entered yet, is stopping, or is gone."""
