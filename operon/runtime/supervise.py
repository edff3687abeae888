"""Supervisors that are workflows: a tree of workflows that survives the death of every process.

    desk = operon.supervise(
        [operon.child("clerk", clerk, "eu"), operon.child("mailer", mailer).using(restart="transient")],
        name="desk", strategy="one_for_all",
    )
    handle = await desk(ctx)

A supervisor starts its children in order, monitors them, and judges each end by the table of `actors.restart`, the same
that judges the actors of a process. Whatever it does is a recorded step, also the time of each restart, so another life
of it goes on where it was and counts on. A restarted child is a new workflow, and its UUID is derived from the step.

The rule: the order of the steps here is a stored format. Supervisors live for years, so a change of it needs a new name
for what it changes. What the children are is recorded by the first step: a deployment that changes the list changes the
supervisors that are started later.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, cast, get_args
from uuid import UUID

import msgspec

from actors import Crashed, Exit, Intensity, Normal, Restart, Shutdown, Verdict, decide
from actors.restart import wants_restart
from operon.codec import Codec
from operon.contexts import WorkflowContext
from operon.errors import CatalogError, IntensityExceeded, RemoteError
from operon.handles import WorkflowHandle
from operon.links import DOWN
from operon.operations import Workflow
from operon.status import Status
from operon.topics import checked

if TYPE_CHECKING:
    from operon.runtime.invoke import StepInvoker

P = ParamSpec("P")

RestartType = Literal["permanent", "transient", "temporary"]
StrategyName = Literal["one_for_one", "one_for_all", "rest_for_one"]


class ChildSpec(msgspec.Struct, frozen=True):
    """One child of a supervisor, as `operon.child` makes it. `inputs` are its arguments, as they are stored."""

    id: str
    workflow: str
    inputs: str
    restart: RestartType = "permanent"

    def using(self, *, restart: RestartType) -> ChildSpec:
        """The same child, restarted otherwise.

        permanent: whenever it ends, but by being cancelled. transient: when it fails or is dead; returning means being
        done. temporary: never.
        """
        require_word("restart", restart, get_args(RestartType))
        return msgspec.structs.replace(self, restart=restart)


def child(id: str, workflow: Workflow[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> ChildSpec:
    """A child of a supervisor: a workflow and its arguments, permanent unless `.using(restart=...)` says otherwise.

    id: unique among its siblings. The supervisor publishes the UUID of the present life as an event of this name.
    Raises InputError for arguments that cannot be stored.
    """
    return ChildSpec(checked(id), workflow.name, workflow.signature.encode(args, kwargs).decode())


def supervise(
    children: Sequence[ChildSpec],
    *,
    name: str,
    strategy: StrategyName = "one_for_one",
    intensity: Intensity | None = None,
) -> Workflow[[], None]:
    """A workflow that keeps others running: it starts these in order and restarts them, until all are done for good.

    name: the recorded name of this workflow.
    strategy: who is cancelled and started again together with a child that is restarted: nobody (`one_for_one`), all
        its siblings (`one_for_all`), those after it (`rest_for_one`).
    intensity: how many restarts it bears within a time, by default 3 in 5 seconds. One more, and it cancels all
        children and ends with `IntensityExceeded`, so that a supervisor above it sees it fail.

    A supervisor is a child like any other: `operon.child("desk", desk)`. Whatever ends it cancels its children.
    """
    require_word("strategy", strategy, get_args(StrategyName))
    plan = Plan(tuple(children), strategy, intensity or Intensity())
    ids = [spec.id for spec in plan.children]
    if twice := sorted({id for id in ids if ids.count(id) > 1}):
        raise CatalogError(f"supervisor {name!r} has two children {twice[0]!r}", hint="their ids are to be unique")

    async def run(ctx: WorkflowContext) -> None:
        await Supervision(ctx, name, plan).run()

    return Workflow(run, name)


class Plan(msgspec.Struct, frozen=True):
    """What a supervisor was told when it was started."""

    children: tuple[ChildSpec, ...]
    strategy: StrategyName
    intensity: Intensity


PLAN: Codec[Plan] = Codec(Plan, "the children of a supervisor")


@dataclass(frozen=True, slots=True)
class Life:
    """One life of a child."""

    handle: WorkflowHandle[Any]
    ref: UUID


class Supervision:
    """The state of one supervisor. All of it follows from its recorded steps."""

    def __init__(self, ctx: WorkflowContext, name: str, plan: Plan) -> None:
        self._ctx = ctx
        self._name = name
        self._invoker = cast("StepInvoker", ctx.invoker)
        self._plan = self._invoker.value("children", PLAN, lambda: plan)
        self._lives: dict[str, Life] = {}  # by id; who is not here is done for good
        self._history: list[float] = []  # the times of restarts that still count

    async def run(self) -> None:
        """Starts the children, and sees to them until the last one is done."""
        for spec in self._plan.children:
            await self._start(spec)
        while self._lives:
            down = await self._ctx.recv(DOWN, required=True)
            id = next((id for id, life in self._lives.items() if life.ref == down.ref), None)
            if id is not None:  # not of a life that was ended here
                del self._lives[id]
                spec = next(spec for spec in self._plan.children if spec.id == id)
                await self._judge(spec, exit_of(down.status, down.error), down.error or down.status.value)

    async def _judge(self, spec: ChildSpec, exit: Exit, words: str) -> None:
        intensity, now = self._plan.intensity, self._ctx.now().timestamp()
        allowed = f"{intensity.restarts} restarts within {intensity.period:g} s"
        match decide(Restart(spec.restart), exit, self._history, now, intensity):
            case Verdict.FORGET:
                pass
            case Verdict.RESTART:
                self._history = [when for when in self._history if when > now - intensity.period] + [now]
                await self._restart(spec)
            case Verdict.ESCALATE:
                raise IntensityExceeded(
                    f"supervisor {self._name!r}: more than {allowed}; "
                    f"the last for {spec.id!r}, which ended with {words}",
                    hint="fix the failure that caused this, or allow more with intensity=Intensity(restarts, period)",
                )

    async def _restart(self, spec: ChildSpec) -> None:
        """Takes the group of a child down, the last one first, and starts it again in order."""
        group = self._group(spec)
        back = {spec.id}
        for sibling in reversed(group):
            if (life := self._lives.pop(sibling.id, None)) is not None and await self._stop(sibling, life):
                back.add(sibling.id)
        for one in group:
            if one.id in back:
                await self._start(one)

    async def _stop(self, spec: ChildSpec, life: Life) -> bool:
        """Ends a life; whether there is to be another one. A temporary child that goes down with others stays down."""
        if await life.handle.cancel():
            return spec.restart != "temporary"
        status = await life.handle.get_status()  # it had just ended by itself
        return status is not None and wants_restart(Restart(spec.restart), exit_of(status.status, status.error))

    async def _start(self, spec: ChildSpec) -> None:
        ctx = self._ctx.using(parent_close="cancel")
        handle = await self._invoker.child_of(ctx, spec.workflow, spec.inputs.encode())
        await self._ctx.set_event(spec.id, handle.workflow_uuid, replace=True)
        self._lives[spec.id] = Life(handle, await self._ctx.monitor(handle.workflow_uuid))

    def _group(self, spec: ChildSpec) -> Sequence[ChildSpec]:
        children = self._plan.children
        match self._plan.strategy:
            case "one_for_one":
                return [spec]
            case "one_for_all":
                return children
            case "rest_for_one":
                return children[children.index(spec) :]


def exit_of(status: Status, error: str | None) -> Exit:
    """The end of a workflow in the words of `actors`. Who was cancelled was told to go."""
    match status:
        case Status.SUCCESS:
            return Normal()
        case Status.CANCELLED:
            return Shutdown()
        case _:
            return Crashed(RemoteError(error or status.value))


def require_word(what: str, word: str, known: Sequence[str]) -> None:
    if word not in known:
        raise CatalogError(f"{what}={word!r}", hint=f"one of {', '.join(map(repr, known))}")
