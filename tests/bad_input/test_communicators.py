"""Communicators that hang, fail or lie: bounded, recorded, and the same when they are asked again."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

import operon
from operon.contexts import CommunicatorContext, WorkflowContext
from operon.operations import Communicator
from operon.testing import TestRuntime
from tests.acceptance.gates import Gates

calls: Counter[str] = Counter()
gates = Gates()
never = threading.Event()

THRICE = operon.Retry(max_attempts=3, interval_seconds=0.01)


class BankClosed(Exception):
    """A user's own error, with a constructor that takes no message."""

    def __init__(self, *, hours: int) -> None:
        super().__init__(f"opens in {hours} hours")
        self.hours = hours


@operon.communicator(retry=THRICE, timeout_seconds=0.05)
async def hang(ctx: CommunicatorContext, name: str) -> None:
    calls[name] += 1
    await asyncio.Event().wait()


@operon.communicator(retry=None, timeout_seconds=0.05)
async def hang_once(ctx: CommunicatorContext, name: str) -> None:
    calls[name] += 1
    await asyncio.Event().wait()


@operon.communicator(retry=None, timeout_seconds=0.05)
def block_a_thread(ctx: CommunicatorContext, name: str) -> None:
    calls[name] += 1
    never.wait(60)


@operon.communicator(retry=None, timeout_seconds=60)
async def own_timeout(ctx: CommunicatorContext, name: str) -> None:
    calls[name] += 1
    raise TimeoutError("the bank's own")


@operon.communicator(retry=THRICE)
async def closed(ctx: CommunicatorContext, name: str) -> None:
    calls[name] += 1
    raise BankClosed(hours=ctx.attempt)


@operon.communicator(retry=None)
async def raise_a_group(ctx: CommunicatorContext) -> None:
    raise ExceptionGroup("both", [BankClosed(hours=1), ValueError("two")])


@operon.communicator(retry=None)
async def raise_the_unprintable(ctx: CommunicatorContext) -> None:
    class Unprintable(Exception):
        def __str__(self) -> str:
            raise RuntimeError("not even this")

    raise Unprintable(object())


@operon.communicator(retry=None)
async def lie_about_stop(ctx: CommunicatorContext, name: str) -> None:
    calls[name] += 1
    raise StopAsyncIteration("the end")


@operon.communicator
async def stop_at(ctx: CommunicatorContext, gate: str) -> None:
    await gates[gate].pass_()


@operon.workflow
async def tell_of(ctx: WorkflowContext, name: str) -> list[str]:
    """What a failed communicator looks like in a workflow, live and replayed."""
    told: list[str] = []
    for failing in (closed(ctx, name), hang(ctx, f"{name} hangs")):
        try:
            await failing
        except operon.MaxRetriesExceeded as error:
            told += [type(error).__name__, *(f"{type(one).__name__}: {one}" for one in error.errors)]
            told.append(str([getattr(one, "hours", None) for one in error.errors]))
    calls[f"told {name}"] += 1
    await stop_at(ctx, name)
    return told


@pytest.fixture(scope="module")
async def runtime() -> AsyncIterator[TestRuntime]:
    async with TestRuntime(__name__, poll_seconds=0.2) as runtime:
        yield runtime
    never.set()


async def test_an_attempt_that_hangs_is_ended_and_the_end_of_all_attempts_tells_each(runtime: TestRuntime) -> None:
    ctx = runtime.app.context(workflow_uuid=uuid4())

    for _ in range(2):
        with pytest.raises(operon.MaxRetriesExceeded, match="hang failed 3 times") as exceeded:
            await hang(ctx, "hangs")
        assert [type(error) for error in exceeded.value.errors] == [operon.StepTimeout] * 3

    assert calls["hangs"] == 3


@pytest.mark.parametrize("operation", [hang_once, block_a_thread])
async def test_without_retries_a_timeout_is_its_own_error(
    runtime: TestRuntime, operation: Communicator[[str], None]
) -> None:
    ctx = runtime.app.context(workflow_uuid=uuid4())

    for _ in range(2):
        with pytest.raises(operon.StepTimeout, match=r"took longer than 0\.05 s") as timeout:
            await operation(ctx, operation.name)
        assert isinstance(timeout.value, TimeoutError)

    assert calls[operation.name] == 1


async def test_a_timeout_of_the_callee_is_not_taken_for_ours(runtime: TestRuntime) -> None:
    with pytest.raises(TimeoutError, match="the bank's own") as error:
        await own_timeout(runtime.context, "own")

    assert not isinstance(error.value, operon.StepTimeout)


async def test_used_up_attempts_look_the_same_in_a_replay(runtime: TestRuntime) -> None:
    handle = await tell_of(runtime.context, "bank")
    await gates["bank"].reached.wait()

    await runtime.crash()
    gates["bank"].open()
    told = await handle.get_result()

    assert told[:4] == ["MaxRetriesExceeded", *(f"BankClosed: opens in {hours} hours" for hours in (1, 2, 3))]
    assert told[4] == "[1, 2, 3]"
    assert [one.partition(":")[0] for one in told[5:9]] == ["MaxRetriesExceeded", *["StepTimeout"] * 3]
    assert calls["told bank"] == 2
    assert (calls["bank"], calls["bank hangs"]) == (3, 3)


async def test_a_group_of_errors_comes_back_as_a_group(runtime: TestRuntime) -> None:
    ctx = runtime.app.context(workflow_uuid=uuid4())

    for _ in range(2):
        with pytest.raises(ExceptionGroup, match="both") as group:
            await raise_a_group(ctx)
        assert [type(error) for error in group.value.exceptions] == [BankClosed, ValueError]


async def test_an_error_that_cannot_be_printed_or_found_is_recorded_under_its_name(runtime: TestRuntime) -> None:
    ctx = runtime.app.context(workflow_uuid=uuid4())

    for _ in range(2):
        with pytest.raises(operon.RemoteError) as error:
            await raise_the_unprintable(ctx)
        assert error.value.type_name.endswith("Unprintable")


async def test_an_error_that_python_gives_a_meaning_hangs_nothing(runtime: TestRuntime) -> None:
    ctx = runtime.app.context(workflow_uuid=uuid4())

    async with asyncio.timeout(60):
        for _ in range(2):
            with pytest.raises((StopAsyncIteration, RuntimeError)):
                await lie_about_stop(ctx, "stop")

    assert calls["stop"] == 1
