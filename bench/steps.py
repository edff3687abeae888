"""W2: three communicators, one at a time, each of which does nothing. What a durable step costs."""

from __future__ import annotations

from typing import Any

import operon
from bench import application, harness


@operon.communicator
async def charge(ctx: operon.CommunicatorContext, item: str, number: int) -> dict[str, Any]:
    return {"step": number, "done": f"charged {item}", "cents": 5000}


@operon.workflow
async def three_steps(ctx: operon.WorkflowContext, item: str) -> dict[str, Any]:
    await charge(ctx, item, 1)
    await charge(ctx, item, 2)
    return await charge(ctx, item, 3)


if __name__ == "__main__":
    harness.run(application.measure(harness.task_from_arguments(), __name__, three_steps))
