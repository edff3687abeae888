"""W1: a workflow without steps, started and awaited. What it costs to exist durably at all."""

from __future__ import annotations

import operon
from bench import application, harness


@operon.workflow
async def no_steps(ctx: operon.WorkflowContext, item: str) -> str:
    return item


if __name__ == "__main__":
    harness.run(application.measure(harness.task_from_arguments(), __name__, no_steps))
