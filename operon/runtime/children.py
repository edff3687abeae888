"""What becomes of the children that a workflow leaves behind when it ends: `ctx.using(parent_close=...)`.

    abandon    they go on; the default
    cancel     they are cancelled, and theirs with them
    wait       the parent ends when they have ended

The rule: it happens after the body and before the end is recorded, in steps like any others. So a crash in between
repeats nothing, and of a workflow that has ended no child runs that should not. A child whose result the workflow has
heard has ended already, and costs nothing. A parent that dies is no step of anybody's: `operon.die` does it there.
"""

from __future__ import annotations

from collections.abc import Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from uuid import UUID

from operon.codec import Codec
from operon.errors import ResultTimeout
from operon.invokers import ParentClose
from operon.runtime.journal import StepKind

if TYPE_CHECKING:
    from operon.runtime.invoke import StepInvoker

CHILD: Codec[UUID | tuple[UUID, ParentClose]] = Codec(UUID | tuple[UUID, ParentClose], "the UUID of a child")


def write_child(uuid: UUID, close: ParentClose) -> bytes:
    """A child as the step that started it is recorded. `operon.die` reads it too."""
    return CHILD.encode(uuid if close == "abandon" else (uuid, close))


def read_child(stored: bytes) -> tuple[UUID, ParentClose]:
    """The child that was started, and what becomes of it."""
    child = CHILD.decode(stored)
    return child if isinstance(child, tuple) else (child, "abandon")


class Children:
    """The children of one life of a workflow that are not simply left alone, with the step that started each."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left: dict[UUID, tuple[int, ParentClose]] = {}

    def __len__(self) -> int:
        return len(self._left)

    def __contains__(self, workflow_uuid: UUID) -> bool:
        return workflow_uuid in self._left

    # All these are told when the workflow is given an answer, not when that is found: so every life agrees on them.

    def started(self, number: int, workflow_uuid: UUID, close: ParentClose) -> None:
        """A step has started a child, now or in an earlier life."""
        self._left[workflow_uuid] = number, close

    def ended(self, workflow_uuid: UUID) -> None:
        """This workflow has heard of the end of another one. If it is one of these, nothing is to be done about it."""
        self._left.pop(workflow_uuid, None)

    async def hear(self, workflow_uuid: UUID, answer: Coroutine[Any, Any, Any]) -> Any:
        """The answer of a step by which it hears of an end."""
        try:
            value = await answer
        except ResultTimeout:
            raise
        except Exception:
            self.ended(workflow_uuid)
            raise
        self.ended(workflow_uuid)
        return value

    async def close(self, invoker: StepInvoker) -> None:
        """Does with those that are left as was said: cancels the last one first, then waits for the others."""
        left = sorted((number, uuid, close) for uuid, (number, close) in self._left.items())
        for _, uuid, close in reversed(left):
            if close == "cancel":
                with suppress(Exception):  # a step that is not the recorded one is remembered by the journal
                    await invoker.control(StepKind.CANCEL, uuid, False)
        for _, uuid, close in left:
            if close == "wait":
                with suppress(Exception):  # however it ended
                    await invoker.result_of(uuid, None, False)
