"""What a supervisor needs to know of a child: how to make it, when to restart it, how long to wait for it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Generic, Never, TypeAlias, TypeVar

from actors.actor import Actor
from actors.host import Host, Started
from actors.mailbox import Mailbox
from actors.restart import Backoff, Restart

__all__ = ["ChildSpec", "Task"]

# Contravariant, as Actor and Ref are: a list of children of any kind is a list of ChildSpec[Never].
M_contra = TypeVar("M_contra", contravariant=True)

# A plain child: runs until cancelled, and calls `started()` when others may rely on it.
Task: TypeAlias = Callable[[Started], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True)
class ChildSpec(Generic[M_contra]):
    """One child of a Supervisor. Three kinds, by three constructors:

    ChildSpec("counter", Counter)           an actor: its class, or a function that makes one for each life
    ChildSpec.task("http", serve)           an async function `serve(started)`
    ChildSpec.nested(supervisor)            another supervisor, under its own name

    `restart`        which exits bring it back.
    `backoff`        the pause before that. A life longer than `backoff.longest` seconds forgives earlier crashes.
    `start_timeout`  how many seconds it may take to say that it has started; None waits for ever.
    `stop_timeout`   how many seconds it may take to stop, before it is listed as a zombie; None waits for ever.
    `mailbox`        makes an actor's mailbox, once, and it is kept across restarts; by default a MemoryMailbox.
    """

    name: str
    actor: Callable[[], Actor[M_contra]] | None = None
    restart: Restart = Restart.PERMANENT
    backoff: Backoff = field(default_factory=Backoff)
    start_timeout: float | None = 30.0
    stop_timeout: float | None = 5.0
    mailbox: Callable[[], Mailbox[M_contra]] | None = None
    run: Task | None = None
    supervisor: Host | None = None

    def __post_init__(self) -> None:
        if (self.actor is None) == (self.run is None):
            raise ValueError(
                f"child {self.name!r} is an actor or a task: ChildSpec(name, Actor), or ChildSpec.task(name, run)"
            )

    @staticmethod
    def task(
        name: str,
        run: Task,
        *,
        restart: Restart = Restart.PERMANENT,
        backoff: Backoff | None = None,
        start_timeout: float | None = 30.0,
        stop_timeout: float | None = 5.0,
    ) -> ChildSpec[Never]:
        """Describe an async function. It says `started()`, runs, and is told to stop by cancellation.

        Returning before `started()` counts as started and finished: so a child can do one thing, and be done.
        """
        return ChildSpec(
            name,
            run=run,
            restart=restart,
            backoff=backoff or Backoff(),
            start_timeout=start_timeout,
            stop_timeout=stop_timeout,
        )

    @staticmethod
    def nested(
        supervisor: Host,
        *,
        restart: Restart = Restart.PERMANENT,
        backoff: Backoff | None = None,
        start_timeout: float | None = None,
        stop_timeout: float | None = None,
    ) -> ChildSpec[Never]:
        """Describe a supervisor. Its children have timeouts of their own, so by default it has none.

        Restarted, it begins anew with the children it was made with; those it was given later are gone.
        """
        return ChildSpec(
            supervisor.name,
            run=supervisor.run,
            supervisor=supervisor,
            restart=restart,
            backoff=backoff or Backoff(),
            start_timeout=start_timeout,
            stop_timeout=stop_timeout,
        )
