"""Actors and supervision for asyncio, usable alone: nothing here knows of workflows, databases or HTTP.

    async with Supervisor("demo", intensity=Intensity(restarts=3, period=5)) as root:
        counter = await root.start(ChildSpec("counter", Counter, restart=Restart.TRANSIENT))
        await counter.tell(Add(2))
        assert await counter.ask(Total) == 2

It needs anyio for its cancel scopes and runs on asyncio (and uvloop) only: children are asyncio tasks, because those
are an order of magnitude cheaper, and everything is for one event loop and one thread. `actors.testing` has what tests
of supervised code need.
"""

from __future__ import annotations

from actors.actor import Actor
from actors.child import ChildSpec
from actors.clock import Clock, Timer
from actors.dynamic import DynamicSupervisor
from actors.dynamic_actor import spawn_actor
from actors.dynamic_child import DynamicChild
from actors.errors import (
    ActorCrashed,
    ActorDead,
    ActorsError,
    AskTimeout,
    ChildStartFailed,
    IntensityExceeded,
    MailboxFull,
    NameTaken,
    NoSuchChild,
    SupervisorNotRunning,
    SupervisorSuspended,
    TooManyChildren,
)
from actors.events import Event, Happening
from actors.exits import Crashed, Exit, Normal, Shutdown, Stopped, Zombie
from actors.host import Host, Started
from actors.lifetime import Lifetime
from actors.mailbox import Mailbox, MemoryMailbox
from actors.monitor import Down, Monitor
from actors.ref import Ref
from actors.registry import Registry
from actors.reply import Reply
from actors.restart import Backoff, Intensity, Restart, Strategy, Verdict, decide
from actors.snapshot import ChildSnapshot, SupervisorSnapshot
from actors.state import ChildState, SupervisorState
from actors.supervisor import Supervisor

__all__ = [
    "Actor",
    "ActorCrashed",
    "ActorDead",
    "ActorsError",
    "AskTimeout",
    "Backoff",
    "ChildSnapshot",
    "ChildSpec",
    "ChildStartFailed",
    "ChildState",
    "Clock",
    "Crashed",
    "Down",
    "DynamicChild",
    "DynamicSupervisor",
    "Event",
    "Exit",
    "Happening",
    "Host",
    "Intensity",
    "IntensityExceeded",
    "Lifetime",
    "Mailbox",
    "MailboxFull",
    "MemoryMailbox",
    "Monitor",
    "NameTaken",
    "NoSuchChild",
    "Normal",
    "Ref",
    "Registry",
    "Reply",
    "Restart",
    "Shutdown",
    "Started",
    "Stopped",
    "Strategy",
    "Supervisor",
    "SupervisorNotRunning",
    "SupervisorSnapshot",
    "SupervisorState",
    "SupervisorSuspended",
    "Timer",
    "TooManyChildren",
    "Verdict",
    "Zombie",
    "decide",
    "spawn_actor",
]
