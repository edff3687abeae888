"""Where nobody configured a provider, nothing of spans and metrics is ever called."""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType

import opentelemetry.sdk
import opentelemetry.trace

import operon.telemetry
from operon.telemetry.observer import SILENT
from operon.testing import TestRuntime
from tests.telemetry import shop

FORBIDDEN = (
    str(Path(opentelemetry.trace.__file__).parent.parent),
    str(Path(opentelemetry.sdk.__path__[0])),
    *(str(Path(operon.telemetry.__file__).parent / f"{name}.py") for name in ("lives", "metrics", "spans")),
)


@operon.workflow
async def quiet(ctx: operon.WorkflowContext, to: str) -> None:
    await shop.flaky(ctx)
    await ctx.fetchval("select 1")
    await ctx.set_event("status", "paid")
    await (await shop.ship(ctx)).get_result()
    await ctx.send(to, "coins", shop.PAYMENT)


@operon.workflow
async def listening(ctx: operon.WorkflowContext) -> str | None:
    return await ctx.recv(shop.PAYMENT)


class Watched:
    """Who is called, by file and name, of the forbidden files."""

    def __init__(self) -> None:
        self.called: set[tuple[str, str]] = set()

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(FORBIDDEN):
            self.called.add((frame.f_code.co_filename, frame.f_code.co_name))


async def test_nothing_of_spans_and_metrics_is_called_without_a_provider() -> None:
    async with TestRuntime(sys.modules[__name__], shop) as runtime:
        client = runtime.app.quart.test_client()
        watched = Watched()
        sys.setprofile(watched)
        try:
            to = await listening(runtime.context)
            handle = await quiet(runtime.context, str(to.workflow_uuid))
            await handle.get_result()
            await to.get_result()
            await client.post(f"/pay/{to.workflow_uuid}")
        finally:
            sys.setprofile(None)

        assert runtime.executor.telemetry is SILENT
        # A failed attempt asks whether there is a span, which costs nothing beside the failure.
        assert {name for _, name in watched.called} <= {
            "attempt_failed",
            "get_current_span",
            "is_recording",
            "get_current",
            "get_value",
        }
        assert await runtime.fetchval("select count(traceparent) from operon.workflows") == 0
