"""What a workflow that monitors another one is told of its end: `Down`, received under the topic `DOWN`.

    ref = await ctx.monitor(handle.workflow_uuid)
    down = await ctx.recv(operon.DOWN, required=True)

It is a message like any other, so it can be waited for beside others (`recv_any`), it is received exactly once, and who
waits for it leaves memory. Only the runtime sends it: a `Down` that anybody could send would be no news.
"""

from __future__ import annotations

import functools
from uuid import UUID

import msgspec

from operon.codec import Codec
from operon.errors import DecodingError
from operon.failures import ErrorRecord
from operon.status import Status
from operon.topics import DOWN_NAME, Topic


class Down(msgspec.Struct, frozen=True):
    """A workflow has ended.

    ref: what `ctx.monitor` has returned. name: the operation's. status: how it ended, never PENDING.
    error: what went wrong, for people; `get_result()` of its handle raises it. None after SUCCESS.
    """

    ref: UUID
    workflow_uuid: UUID
    name: str
    status: Status
    error: str | None


class _Sent(msgspec.Struct, frozen=True):
    """The same as the database writes it, with the error as it is stored."""

    ref: UUID
    workflow_uuid: UUID
    name: str
    status: Status
    error: ErrorRecord | None


class _DownCodec(Codec[Down]):
    """Reads what the database has written."""

    __slots__ = ()

    def decode(self, data: bytes) -> Down:
        try:
            sent = _read(data)
        except msgspec.MsgspecError as error:
            raise DecodingError(f"{self.where} cannot be read: {error}") from error
        words = None if sent.error is None else f"{sent.error.type_name}: {sent.error.message}"
        return Down(sent.ref, sent.workflow_uuid, sent.name, sent.status, words)


class _Downs(Topic[Down]):
    """The topic of the runtime's own."""

    @functools.cached_property
    def codec(self) -> Codec[Down]:
        return _DownCodec(Down, repr(self))


_read = msgspec.json.Decoder(_Sent).decode

DOWN: Topic[Down] = _Downs(DOWN_NAME, Down)
