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
from operon.contexts import ParentClose
from operon.errors import ResultTimeout
from operon.runtime.journal import StepKind

if TYPE_CHECKING:
    from operon.runtime.invoke import StepInvoker

CHILD: Codec[UUID | tuple[UUID, ParentClose]] = Codec(UUID | tuple[UUID, ParentClose], "the UUID of a child")


def stored_child(uuid: UUID, close: ParentClose) -> bytes:
    """A child as the step that started it is recorded. `operon.die` reads it too."""
    return CHILD.encode(uuid if close == "abandon" else (uuid, close))


class Children:
    """The children of one life of a workflow that are not simply left alone, by the number of the step."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left: dict[int, tuple[UUID, ParentClose]] = {}

    def __len__(self) -> int:
        return len(self._left)

    def started(self, number: int, stored: bytes) -> UUID:
        """A step has started a child, now or in an earlier life."""
        match CHILD.decode(stored):
            case (uuid, close):
                self._left[number] = uuid, close
                return uuid
            case UUID() as uuid:
                return uuid

    async def hear(self, workflow_uuid: UUID, answer: Coroutine[Any, Any, Any]) -> Any:
        """The result of a workflow. If it is one of these, nothing is to be done about it any more."""
        try:
            value = await answer
        except ResultTimeout:
            raise
        except Exception:
            self._ended(workflow_uuid)
            raise
        self._ended(workflow_uuid)
        return value

    def _ended(self, workflow_uuid: UUID) -> None:
        self._left = {number: child for number, child in self._left.items() if child[0] != workflow_uuid}

    async def close(self, invoker: StepInvoker) -> None:
        """Does with those that are left as was said: cancels the last one first, then waits for the others."""
        for _, (uuid, close) in sorted(self._left.items(), reverse=True):
            if close == "cancel":
                with suppress(Exception):  # a step that is not the recorded one is remembered by the journal
                    await invoker.control(StepKind.CANCEL, uuid, False)
        for _, (uuid, close) in sorted(self._left.items()):
            if close == "wait":
                with suppress(Exception):  # however it ended
                    await invoker.result_of(uuid, None, False)
