"""The steps of messages and events, numbered and recorded. How they wait, and for what, is in `messages`."""

from __future__ import annotations

import functools
from collections.abc import Coroutine, Sequence
from typing import Any
from uuid import UUID

from operon.contexts import InvokingContext
from operon.errors import InvocationError
from operon.failures import encode_error
from operon.given import as_seconds
from operon.links import Down
from operon.runtime import messages
from operon.runtime.door import Decode, Door, answer, as_replayed
from operon.runtime.journal import Step, StepKind, clock
from operon.runtime.poison import refuse_poison
from operon.topics import (
    DOWN_NAME,
    EventKey,
    Key,
    Received,
    Topic,
    codec_for,
    event_name,
    key_text,
    name_of,
    sent_under,
)


class Correspondence(Door):
    """What a live workflow sends and receives, publishes and hears of."""

    __slots__ = ()

    def send(
        self,
        ctx: InvokingContext,
        destination: UUID,
        message: Any,
        topic: Topic[Any] | str | None,
        key: Key | None,
        ignore_finished: bool,
        owned: bool,
    ) -> Coroutine[Any, Any, None]:
        """Sends a message, exactly once."""
        name = sent_under(topic)
        body = codec_for(topic).encode(message)
        key_or_none = None if key is None else key_text(key)
        step = self._journal.call(StepKind.SEND, name or "")
        decode = messages.replayed(destination)
        owner = self._owner if owned else None
        return self._answer(
            step, decode, self._messages.send, destination, name, body, key_or_none, ignore_finished, owner
        )

    def recv(self, topic: Topic[Any] | str | None, timeout: float | None, required: bool) -> Coroutine[Any, Any, Any]:
        """The next message under a topic."""
        name = name_of(topic)
        timeout = as_seconds(timeout)
        step = self._journal.call(StepKind.RECV, name or "")
        if step.recorded is not None and self._actor.crashed:
            refuse_poison(self._incarnation, self._actor, step.recorded, {name: topic})
        decode = or_nothing(codec_for(topic).decode)
        given = self._answer(step, decode, self._messages.receive, (name,), name or "", timeout, required, decode)
        return self._noting(given) if name == DOWN_NAME else given

    def recv_any(
        self, topics: Sequence[Topic[Any] | str], timeout: float | None, required: bool
    ) -> Coroutine[Any, Any, Any]:
        """The next message under any of these topics."""
        by_name = {name_of(topic): topic for topic in topics}
        if len(by_name) < 2:
            raise InvocationError("recv_any takes two topics or more", hint="for one there is recv(topic)")
        timeout = as_seconds(timeout)
        name = ", ".join(str(each) for each in by_name)
        step = self._journal.call(StepKind.RECV, name)
        if step.recorded is not None and self._actor.crashed:
            refuse_poison(self._incarnation, self._actor, step.recorded, by_name)

        @or_nothing
        def decode(stored: bytes) -> Received[Any]:
            which, body = messages.read_any(stored)
            topic = by_name[which]
            return Received(topic, codec_for(topic).decode(body))

        given = self._answer(step, decode, self._messages.receive, tuple(by_name), name, timeout, required, decode)
        return self._noting(given) if DOWN_NAME in by_name else given

    async def _noting(self, given: Coroutine[Any, Any, Any]) -> Any:
        """A message, which may say that a child has ended."""
        message: Any = await given
        received: Any = getattr(message, "message", message)  # of `recv_any`
        if isinstance(received, Down):
            self._children.ended(received.workflow_uuid)
        return message

    def set_event(self, key: EventKey[Any] | str, value: Any, replace: bool) -> Coroutine[Any, Any, None]:
        """Publishes a value under a key."""
        name = event_name(key)
        body = codec_for(key).encode(value)
        step = self._journal.call(StepKind.SET_EVENT, name)
        duplicate = self._journal.sets(name) and not replace
        return self._answer(step, nothing, self._set_event, name, body, duplicate)

    async def _set_event(self, step: Step, name: str, body: bytes, duplicate: bool) -> None:
        answer(*self._messages.set_event(step, name, body, duplicate), nothing)

    def get_event(
        self,
        ctx: InvokingContext,
        workflow_uuid: UUID,
        key: EventKey[Any] | str,
        timeout: float | None,
        owned: bool,
    ) -> Coroutine[Any, Any, Any]:
        """An event of another workflow, as a step."""
        name = event_name(key)
        timeout = as_seconds(timeout)
        step = self._journal.call(StepKind.GET_EVENT, name)
        decode = or_nothing(codec_for(key).decode)
        owner = self._owner if owned else None
        return self._answer(step, decode, self._get_event, workflow_uuid, name, timeout, owner, decode)

    async def _get_event(
        self, step: Step, workflow_uuid: UUID, name: str, timeout: float | None, owner: str | None, decode: Decode
    ) -> Any:
        journal = self._journal
        if journal.pending:  # a child that was just started has to be there before it is asked for
            await journal.durable()
        started = clock()
        try:
            output = await self._messages.get_event(step, workflow_uuid, name, timeout, owner)
        except Exception as error:
            stored = encode_error(error)
            journal.record(step, StepKind.GET_EVENT, name, None, started, stored)
            raise as_replayed(stored) from error
        journal.record(step, StepKind.GET_EVENT, name, output, started)
        return decode(output)


def nothing(stored: bytes) -> None:
    """The answer of a step that has none."""


@functools.lru_cache(maxsize=1000)
def or_nothing(decode: Decode) -> Decode:
    """Reads a value, or that none came in time. One for all who wait for the same: they may be many."""
    return lambda stored: None if stored == messages.NOTHING else decode(stored)
