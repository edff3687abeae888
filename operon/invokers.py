"""The other side of contexts: what the runtime has to offer, and the database to a transaction."""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, Protocol
from uuid import UUID

from operon.topics import EventKey, Key, Topic

if TYPE_CHECKING:
    from operon.contexts import InvokingContext
    from operon.handles import WorkflowHandle
    from operon.operations import Operation

ParentClose = Literal["abandon", "cancel", "wait"]


@dataclass(frozen=True, slots=True)
class StartOptions:
    """Options for the next workflow that a context starts, set by `ctx.using(...)`."""

    workflow_uuid: UUID | None = None
    timeout: float | None = None
    parent_close: ParentClose = "abandon"


NO_OPTIONS = StartOptions()


class Invoker(Protocol):
    """The runtime's side of the door: one for handlers and scripts, one for each live workflow."""

    def invoke(
        self, operation: Operation[..., Any], ctx: InvokingContext, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Coroutine[Any, Any, Any]: ...

    def retrieve(self, ctx: InvokingContext, workflow_uuid: UUID, *, owned: bool = False) -> WorkflowHandle[Any]: ...

    def send(
        self,
        ctx: InvokingContext,
        destination: UUID,
        message: Any,
        topic: Topic[Any] | str | None,
        key: Key | None,
        ignore_finished: bool,
        owned: bool,
    ) -> Coroutine[Any, Any, None]: ...

    def get_event(
        self,
        ctx: InvokingContext,
        workflow_uuid: UUID,
        key: EventKey[Any] | str,
        timeout: float | None,
        owned: bool,
    ) -> Coroutine[Any, Any, Any]: ...


class WorkflowInvoker(Invoker, Protocol):
    """What a live workflow can ask for besides its operations."""

    def now(self) -> datetime: ...
    def uuid4(self) -> UUID: ...
    def random(self) -> float: ...
    def sql(self, mode: str, statement: str, args: tuple[Any, ...]) -> Coroutine[Any, Any, Any]: ...
    def recv(
        self, topic: Topic[Any] | str | None, timeout: float | None, required: bool
    ) -> Coroutine[Any, Any, Any]: ...
    def recv_any(
        self, topics: Sequence[Topic[Any] | str], timeout: float | None, required: bool
    ) -> Coroutine[Any, Any, Any]: ...
    def set_event(self, key: EventKey[Any] | str, value: Any, replace: bool) -> Coroutine[Any, Any, None]: ...
    def sleep(self, duration: float) -> Coroutine[Any, Any, None]: ...
    def monitor(self, target: UUID, owned: bool) -> Coroutine[Any, Any, UUID]: ...
    def demonitor(self, ref: UUID) -> Coroutine[Any, Any, bool]: ...
    def sleep_until(self, when: datetime) -> Coroutine[Any, Any, None]: ...


class Client(Protocol):
    """The open transaction, as asyncpg offers it. There is no begin and no commit: the runtime does both."""

    async def execute(self, statement: str, /, *args: Any, timeout: float | None = None) -> str: ...

    async def executemany(
        self, statement: str, args: Iterable[Sequence[Any]], /, *, timeout: float | None = None
    ) -> None: ...

    async def fetch(self, statement: str, /, *args: Any, timeout: float | None = None) -> list[Any]: ...

    async def fetchrow(self, statement: str, /, *args: Any, timeout: float | None = None) -> Any: ...

    async def fetchval(self, statement: str, /, *args: Any, column: int = 0, timeout: float | None = None) -> Any: ...

    def cursor(self, statement: str, /, *args: Any, prefetch: int | None = None) -> AsyncIterator[Any]: ...
