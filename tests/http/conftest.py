"""An application over HTTP without a runtime: its operations are called as plain functions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest
from quart import Quart

from operon.catalog import Catalog
from operon.config import Settings
from operon.contexts import InvokingContext
from operon.handles import WorkflowHandle
from operon.http.identity import fresh
from operon.http.server import build, serve
from operon.operations import Described, Operation, Workflow
from operon.rows import Row


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@dataclass
class Call:
    operation: str
    ctx: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


@dataclass
class DirectInvoker:
    """Calls the function of an operation and records nothing but the call."""

    calls: list[Call] = field(default_factory=list[Call])

    async def invoke(
        self, operation: Operation[..., Any], ctx: InvokingContext, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        self.calls.append(Call(operation.name, ctx, args, kwargs))
        outcome = operation.fn(ctx, *args, **kwargs)
        if isinstance(operation, Workflow):
            handle: WorkflowHandle[Any] = WorkflowHandle(Outcome(outcome), ctx.options.workflow_uuid or fresh())
            return handle
        return await outcome

    def retrieve(self, ctx: InvokingContext, workflow_uuid: UUID, *, owned: bool = False) -> WorkflowHandle[Any]:
        raise NotImplementedError

    async def send(
        self,
        ctx: InvokingContext,
        destination: UUID,
        message: Any,
        topic: Any,
        key: Any,
        ignore_finished: bool,
        owned: bool,
    ) -> None:
        raise NotImplementedError

    async def get_event(
        self, ctx: InvokingContext, workflow_uuid: UUID, key: Any, timeout: float | None, owned: bool
    ) -> Any:
        raise NotImplementedError


@dataclass
class Outcome:
    """A workflow that runs when its result is asked for."""

    outcome: Coroutine[Any, Any, Any]

    async def result(self, workflow_uuid: UUID, timeout: float | None) -> Any:
        return await self.outcome

    async def status(self, workflow_uuid: UUID) -> None:
        return None

    async def cancel(self, workflow_uuid: UUID) -> bool:
        raise NotImplementedError

    async def resume(self, workflow_uuid: UUID) -> bool:
        raise NotImplementedError


def quart_of(
    *functions: Described,
    invoker: DirectInvoker | None = None,
    settings: Settings | None = None,
    quart: Quart | None = None,
    **hooks: Any,
) -> Quart:
    """The Quart app of an application of these functions."""
    catalog = Catalog()
    for function in functions:
        catalog.add(function)
    settings = settings or Settings(port=0)
    hooks.setdefault("query", no_query)
    return build(catalog, settings, invoker or DirectInvoker(), {}, name="tests.http", quart=quart, **hooks)


async def no_query(statement: str, *args: Any) -> list[Row]:
    raise NotImplementedError


@dataclass
class Served:
    """A server on a real socket."""

    url: str
    port: int
    stop: asyncio.Event
    task: asyncio.Task[None]


@asynccontextmanager
async def served(quart: Quart, settings: Settings | None = None) -> AsyncGenerator[Served]:
    """The server of an app, cancelled at the end if it is still there."""
    stop = asyncio.Event()
    bound: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(serve(quart, settings or Settings(port=0), bound.set_result, stop))
    task.add_done_callback(lambda _: bound.done() or bound.cancel())
    await asyncio.wait([bound])
    if bound.cancelled():
        await task
    url: str = bound.result()
    try:
        yield Served(url, int(url.rpartition(":")[2]), stop, task)
    finally:
        task.cancel()
        await asyncio.wait([task])
