"""Why is it not running: it is over, or an operator has to decide; as `GET /operon/supervisor?uuid=` says."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from uuid import UUID

import pytest

import operon
from operon.testing import TestRuntime
from tests.supervision.facts import until_why


class Code:
    """What is deployed, and whether the first life has come to its end."""

    def __init__(self) -> None:
        self.is_new = False
        self.waits = asyncio.Event()


CODE: list[Code] = []


@operon.communicator(retry=None)
async def charge(ctx: operon.CommunicatorContext) -> None:
    if CODE[-1].is_new:
        raise LookupError("sold out")


@operon.communicator(retry=None)
async def release(ctx: operon.CommunicatorContext) -> None:
    pass


@operon.workflow
async def changes(ctx: operon.WorkflowContext) -> None:
    await (release if CODE[-1].is_new else charge)(ctx)
    await ctx.recv("go")


@operon.workflow
async def sells(ctx: operon.WorkflowContext) -> None:
    ctx.now()
    await charge(ctx)


@operon.workflow
async def gives_up(ctx: operon.WorkflowContext) -> None:
    ctx.now()
    raise ValueError("no")


@operon.workflow
async def waits(ctx: operon.WorkflowContext) -> None:
    await ctx.recv("go")


@pytest.fixture
async def runtime() -> AsyncIterator[TestRuntime]:
    CODE.append(Code())
    async with TestRuntime(__name__, check_replay=False, park_after_seconds=0, version="7f3a2c1") as runtime:
        yield runtime


async def test_an_end(runtime: TestRuntime) -> None:
    handle = await sells(runtime.context)

    found = await until_why(runtime, handle.workflow_uuid, "finished")

    assert re.fullmatch(r"Finished in [\d.]+ m?s\.", found["text"])


async def test_an_error_with_the_step_that_it_came_from(runtime: TestRuntime) -> None:
    CODE[-1].is_new = True
    handle = await sells(runtime.context)

    found = await until_why(runtime, handle.workflow_uuid, "error")

    assert found["text"] == "Failed at step 1, `charge`, with `LookupError`; its own result, nothing is retried."


async def test_an_error_of_its_own_code_with_the_step_before(runtime: TestRuntime) -> None:
    handle = await gives_up(runtime.context)

    found = await until_why(runtime, handle.workflow_uuid, "error")

    assert found["text"] == "Failed after step 0, `now`, with `ValueError`; its own result, nothing is retried."


async def test_code_that_does_not_fit_with_the_version_that_recorded_it(runtime: TestRuntime) -> None:
    handle = await changes(runtime.context)
    await runtime.settled()
    await runtime.execute("update operon.workflows set version = '6b90e1d'")  # an earlier deployment
    CODE[-1].is_new = True
    await runtime.context.send(handle.workflow_uuid, 1, "go")

    found = await until_why(runtime, handle.workflow_uuid, "nondeterminism")

    assert "step 0 is now communicator 'release', but was recorded as communicator 'charge'" in found["text"]
    assert (
        "Nothing is lost: it was started by version 6b90e1d, and now 7f3a2c1 runs; run that one and resume it"
        in found["text"]
    )


@operon.workflow
async def cancels(ctx: operon.WorkflowContext, workflow_uuid: UUID) -> None:
    await ctx.retrieve_workflow(workflow_uuid).cancel()


async def test_who_cancelled_it_as_far_as_that_is_known(runtime: TestRuntime) -> None:
    by_hand, in_time = await waits(runtime.context), await waits(runtime.context.using(timeout=0.01))
    by_user, by_other = await waits(runtime.context_of("ada")), await waits(runtime.context)
    other = await cancels(runtime.context, by_other.workflow_uuid)
    await by_hand.cancel()
    await runtime.context_of("ada").retrieve_workflow(by_user.workflow_uuid, owned=True).cancel()

    found = [
        (await until_why(runtime, handle.workflow_uuid, "cancelled"))["text"]
        for handle in (by_hand, in_time, by_user, by_other)
    ]

    assert re.fullmatch(r"Cancelled at \d\d:\d\d:\d\d: workflow \S+ was cancelled\.", found[0])
    assert found[1].endswith("was cancelled: its timeout had passed.")
    assert found[2].endswith("was cancelled by user 'ada'.")
    assert found[3].endswith(f"was cancelled by workflow 'cancels' {other.workflow_uuid}.")
