"""The live workflows, a supervisor for each name: what happens to one name does not touch the others.

    workflows         one_for_one
    |- checkout       dynamic, one for each operation: one raw asyncio task per live workflow of that name
    |  `- 6f1c...     temporary: its next life begins from its row, here or elsewhere
    `- report

The rules:

* A crowd that goes down takes its workflows with it and loses nothing. Their coroutines are closed before they are
  cancelled, so nothing more of them is recorded; when they have ended, their rows say that they are ready, and whoever
  has room takes them, with a new epoch. A crowd that is down takes nobody, and comes back empty.
* A crowd may have a limit (`@operon.workflow(max_live=...)`). It is a bulkhead and no error: what is started beyond it
  is recorded and waits in the database, what is parked stays parked, and who ends makes room for the next. Room is
  promised (`Places`) before anything is read from the database, so that the limit holds whoever else comes meanwhile.

All crowds are made at the start: one costs 0.1 ms and 6 kB, and a start then finds its own by one look into a dict.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from itertools import chain
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID

from actors import (
    ChildSpec,
    DynamicChild,
    DynamicSupervisor,
    Intensity,
    NoSuchChild,
    Restart,
    Supervisor,
    SupervisorState,
)
from actors.dynamic import CHUNK
from operon.errors import Evicted, StopActor
from operon.operations import Operation, Workflow

if TYPE_CHECKING:
    from operon.runtime.incarnation import Incarnation
    from operon.runtime.workflow_actor import WorkflowActor

WORKFLOWS = "workflows"
CHILDREN_MAX = 1_000_000  # live workflows, children of workflows among them; starts from outside end at max_live
INTENSITY = Intensity(restarts=10, period=60.0)  # of all crowds together: a crowd fails only by a bug


class Crowd(DynamicSupervisor):
    """The live workflows of one name."""

    def __init__(self, incarnation: Incarnation, name: str, allowed: int | None) -> None:
        """`allowed`: how many may live at a time; None for as many as come."""
        super().__init__(
            name,
            restart=Restart.TEMPORARY,
            on_intensity=lambda _: None,  # many crashes suspend their name (see suspensions), and kill nobody
            children_max=CHILDREN_MAX,
            stopped_by=(StopActor,),
        )
        self._incarnation = incarnation
        self.allowed = allowed
        self.coming = 0  # that were promised room, and do not live yet

    @property
    def full(self) -> bool:
        """Whether as many live, or are about to, as may."""
        return self.allowed is not None and len(self) + self.coming >= self.allowed

    @property
    def closed(self) -> bool:
        """Whether nobody may come to life here now."""
        return self.full or self.state is not SupervisorState.RUNNING

    async def take_down(self) -> None:
        """Stops all that live here. Nothing more of them is recorded; they go on from their rows."""
        incarnation = self._incarnation
        leaving = [UUID(child) for child in self._children]
        incarnation.endings.unsettled.update(leaving)  # no next life before this one is over
        for uuid in leaving:
            if (actor := incarnation.live.get(uuid)) is not None:
                actor.halt(Evicted("its supervisor went down"))
        await self.stop_all()
        if leaving:
            incarnation.endings.let_go(leaving, {self.name}, ring=True)

    async def _serve(self) -> None:
        self._incarnation.crowds.comes_up(self)
        await super()._serve()

    async def _close(self) -> None:
        self._incarnation.crowds.goes_down(self)
        await self.take_down()


class Crowds(Supervisor):
    """The supervisor of all crowds."""

    def __init__(self, incarnation: Incarnation, operations: Iterable[Operation[..., Any]]) -> None:
        self._incarnation = incarnation
        self.by_name: Mapping[str, Crowd] = {
            operation.name: Crowd(incarnation, operation.name, limit_of(operation)) for operation in operations
        }
        # Those that may have no place, because they have a limit or do not run; whoever starts looks here only.
        self.guarded = dict(self.by_name)
        self.wanted: set[str] = set()  # names of which something was held back
        super().__init__(
            WORKFLOWS, children=[ChildSpec.nested(crowd) for crowd in self.by_name.values()], intensity=INTENSITY
        )

    def closed(self, name: str) -> bool:
        """Whether nobody of this name may come to life now."""
        return name in self.guarded and self.guarded[name].closed

    def full(self, name: str) -> bool:
        """Whether a name has a limit and no room: then whoever only waits leaves memory at once."""
        return name in self.guarded and self.guarded[name].full

    def freed(self, name: str) -> None:
        """There may be room for one more: what was held back is looked for."""
        if name in self.wanted and not self.closed(name):
            self._incarnation.activator.fill(name)

    def comes_up(self, crowd: Crowd) -> None:
        """A crowd runs, perhaps again."""
        if crowd.allowed is None:
            self.guarded.pop(crowd.name, None)
        self.freed(crowd.name)

    def goes_down(self, crowd: Crowd) -> None:
        """A crowd takes nobody until it comes up."""
        self.guarded[crowd.name] = crowd
        self.wanted.add(crowd.name)

    def open(self, names: list[str]) -> list[str]:
        """Those of these names of which something may be brought to life."""
        return [name for name in names if not self.closed(name)]

    def life_of(self, actor: WorkflowActor) -> DynamicChild | None:
        """A live workflow as its supervisor has it; None when it has just ended."""
        try:
            return self.by_name[actor.operation.name].child(str(actor.workflow_uuid))
        except NoSuchChild:
            return None

    @property
    def stuck(self) -> Iterator[DynamicChild]:
        """Those that were told to stop, did not, and still run."""
        return chain.from_iterable(crowd.zombies for crowd in self.by_name.values())

    async def stop_all(self) -> None:
        """Cancels every actor, a thousand at a time, and waits for all of them together."""
        await self._each(Crowd.stop_all)

    async def _close(self) -> None:
        # All at once: one after the other, each could wait for those of its own that do not stop.
        await self._each(Crowd.take_down)
        await super()._close()

    async def _each(self, end: Callable[[Crowd], Coroutine[Any, Any, None]]) -> None:
        async with asyncio.TaskGroup() as ending:
            for crowd in self.by_name.values():
                if len(crowd):
                    turns = len(crowd) // CHUNK + 1
                    ending.create_task(end(crowd))
                    for _ in range(turns):
                        await asyncio.sleep(0)


class Places:
    """Room for workflows that are about to live, kept for them while they are read. Use it as `with`."""

    def __init__(self, crowds: Crowds) -> None:
        self._crowds = crowds
        self._taken: list[Crowd] = []

    def take(self, name: str) -> bool:
        """Keeps a place under a name; False if there is none: it is looked for again when there is."""
        crowd = self._crowds.by_name[name]
        if crowd.closed:
            self._crowds.wanted.add(name)
            return False
        crowd.coming += 1
        self._taken.append(crowd)
        return True

    def give_back(self) -> None:
        """They live now, or will not."""
        taken, self._taken = self._taken, []
        for crowd in taken:
            crowd.coming -= 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        names = {crowd.name for crowd in self._taken}
        self.give_back()
        for name in names:
            self._crowds.freed(name)


def limit_of(operation: Operation[..., Any]) -> int | None:
    """How many workflows of an operation may live at a time in one executor."""
    return operation.max_live if isinstance(operation, Workflow) else None
