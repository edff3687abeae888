"""The door from outside: handlers, scripts and tests come in here, and what they call is a workflow of its own.

Whatever an incarnation that was declared dead refuses is asked of the next one, so its end is nobody's error.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any
from uuid import UUID

from operon.authorization import authorized
from operon.contexts import InvokingContext
from operon.database.mail import NO_USER
from operon.errors import Fenced
from operon.given import as_seconds
from operon.handles import WorkflowHandle
from operon.operations import Operation
from operon.runtime import messages
from operon.runtime.results import Owned
from operon.topics import EventKey, Key, Topic, codec_for, event_name, key_text, sent_under

if TYPE_CHECKING:
    from operon.runtime.spawn import Spawner


class EntryInvoker:
    """The door from outside: what is called here is a workflow of its own, also a single step."""

    __slots__ = ("_replaced", "_spawner")

    def __init__(self, spawner: Callable[[], Spawner], replaced: Callable[[], Awaitable[None]]) -> None:
        self._spawner = spawner
        self._replaced = replaced

    def invoke(
        self, operation: Operation[..., Any], ctx: InvokingContext, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Coroutine[Any, Any, Any]:
        """Starts a workflow and gives its handle; a single step, and gives its value."""
        self._spawner().catalog.require(operation)
        start = self._start(operation, ctx, args, kwargs)
        return start if operation.kind == "workflow" else self._value(start)

    async def _start(
        self, operation: Operation[..., Any], ctx: InvokingContext, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> WorkflowHandle[Any]:
        caller = ctx.caller
        if operation.required_roles:
            caller = authorized(operation.name, operation.required_roles, caller)
        chosen, fresh = ctx.options.workflow_uuid, self._spawner().new_uuid()
        while True:
            spawner = self._spawner()
            try:
                deadline = spawner.deadline_in(ctx.options.timeout)
                return await spawner.start(operation, caller, chosen, args, kwargs, deadline, fresh)
            except Fenced:
                # A batch that was in flight may have landed all the same, so the next one starts this very workflow.
                chosen = chosen or fresh
                await self._replaced()

    async def send(
        self,
        ctx: InvokingContext,
        destination: UUID,
        message: Any,
        topic: Topic[Any] | str | None,
        key: Key | None,
        ignore_finished: bool,
        owned: bool,
    ) -> None:
        """Sends a message; durable when it returns. A workflow UUID that was chosen for it makes it idempotent."""
        name, caller, telemetry = sent_under(topic), ctx.caller, self._spawner().telemetry
        body = codec_for(topic).encode(message)
        if key is None:
            key = ctx.options.workflow_uuid
        text = None if key is None else key_text(key)
        owner = (caller.user or NO_USER) if owned else None
        post = self._post(caller, destination, name, body, text, ignore_finished, owner)
        await (post if telemetry.tracer is None else telemetry.entry("send", name or "", caller.traceparent, post))

    async def _post(self, *said: Any) -> None:
        while True:
            try:
                return messages.delivered(await self._spawner().post(*said))
            except Fenced:
                await self._replaced()

    async def get_event(
        self,
        ctx: InvokingContext,
        workflow_uuid: UUID,
        key: EventKey[Any] | str,
        timeout: float | None,
        owned: bool,
    ) -> Any:
        """An event of a workflow; None when it is not set in time."""
        name, spawner = event_name(key), self._spawner()
        owner = (ctx.caller.user or NO_USER) if owned else None
        look = spawner.results.event(workflow_uuid, name, as_seconds(timeout), owner)
        value = await spawner.telemetry.entry("get_event", name, ctx.caller.traceparent, look)
        return None if value is None else codec_for(key).decode(value)

    async def _value(self, start: Coroutine[Any, Any, WorkflowHandle[Any]]) -> Any:
        handle = await start
        return await handle.get_result()

    def retrieve(self, ctx: InvokingContext, workflow_uuid: UUID, *, owned: bool = False) -> WorkflowHandle[Any]:
        """A handle of any workflow, or of the caller's own."""
        results = self._spawner().results
        return WorkflowHandle(Owned(results, ctx.caller.user) if owned else results, workflow_uuid)
