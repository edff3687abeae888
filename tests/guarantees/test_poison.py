"""A message at which its workflow crashes each time stops the workflow or is set aside, as its topic says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

import operon
from operon import EventKey, Topic
from operon.runtime.events import Kind
from operon.testing import TestRuntime
from tests.supervision.facts import until_event

WORDS = Topic("words", str, on_poison="skip")
ONCE = Topic("once", str, on_poison="skip", max_deliveries=1)
STERN = Topic("stern", str)
READY = EventKey("ready", bool)

POISON = "poison"
LETTERS = "select topic, convert_from(body, 'UTF8') as body, reason, detail from operon.dead_letters order by sequence"
DELIVERIES = 3
BUDGET = 5


class Cause:
    """Which messages were met, and whether poison still is."""

    def __init__(self) -> None:
        self.mended = False
        self.met: list[str | None] = []

    def meet(self, message: str | None) -> None:
        self.met.append(message)
        if message == POISON and not self.mended:
            raise MemoryError("no more")


cause = Cause()


@operon.workflow
async def reads(ctx: operon.WorkflowContext, count: int) -> list[str | None]:
    """Crashes at each message that is poison."""
    found: list[str | None] = []
    for _ in range(count):
        message = await ctx.recv(WORDS)
        cause.meet(message)
        found.append(message)
    return found


@operon.workflow
async def obeys(ctx: operon.WorkflowContext) -> str | None:
    message = await ctx.recv(STERN)
    cause.meet(message)
    return message


@operon.workflow
async def steps(ctx: operon.WorkflowContext) -> str | None:
    """Crashes one step after its message."""
    message = await ctx.recv(WORDS)
    await ctx.execute("select 1")
    cause.meet(message)
    return message


@operon.workflow
async def either(ctx: operon.WorkflowContext, topics: int) -> str:
    received = await ctx.recv_any(*(WORDS, ONCE, STERN)[:topics], required=True)
    cause.meet(received.message)
    return str(received.message)


@operon.workflow
async def patient(ctx: operon.WorkflowContext, required: bool) -> str | None:
    message = await ctx.recv(WORDS, timeout=3600, required=required)
    cause.meet(message)
    return message


@operon.communicator(retry=None)
async def considers(ctx: operon.CommunicatorContext, message: str | None) -> str | None:
    cause.meet(message)
    return message


@operon.workflow
async def at_once(ctx: operon.WorkflowContext) -> list[Any]:
    """Two things at a time: the second begins when the message has come, and depends on it."""

    async def listens() -> str | None:
        message = await ctx.recv(WORDS)
        return await considers(ctx, message) if message != "quiet" else message

    async def watches() -> bool | None:
        return await ctx.get_event(ctx.workflow_uuid, READY, timeout=3600)

    return list(await asyncio.gather(watches(), listens()))


@pytest.fixture
async def runtime(anyio_backend: str) -> AsyncIterator[TestRuntime]:
    cause.mended, cause.met = False, []
    async with TestRuntime(__name__, poll_seconds=0.2) as runtime:
        runtime.executor.incarnation.jitter = lambda: 0.0  # pauses between lives cost no time here
        yield runtime


async def test_poison_is_set_aside_after_some_deliveries_and_the_next_message_is_received(runtime: TestRuntime) -> None:
    handle = await reads(runtime.context, 2)

    for word in ("first", POISON, "second"):
        await runtime.context.send(handle.workflow_uuid, word, WORDS)

    assert await handle.get_result(timeout=60) == ["first", "second"]
    assert cause.met.count(POISON) == DELIVERIES
    (letter,) = await runtime.fetch(LETTERS)
    assert tuple(letter)[:3] == ("words", '"poison"', "poison")
    assert f"crashed 'reads' {DELIVERIES} times in a row at step 1, the last time with MemoryError" in letter["detail"]
    assert "Traceback" in letter["detail"]
    assert (await until_event(runtime, Kind.SET_ASIDE))["workflow_uuid"] == handle.workflow_uuid


async def test_each_poison_has_deliveries_of_its_own(runtime: TestRuntime) -> None:
    handle = await reads(runtime.context, 1)

    for word in (POISON, POISON, "good"):
        await runtime.context.send(handle.workflow_uuid, word, WORDS)

    assert await handle.get_result(timeout=60) == ["good"]
    assert cause.met == [*[POISON] * (2 * DELIVERIES), "good"]
    assert len(await runtime.fetch(LETTERS)) == 2


async def test_poison_that_is_mended_is_requeued_and_received(runtime: TestRuntime) -> None:
    handle = await reads(runtime.context, 1)
    await runtime.context.send(handle.workflow_uuid, POISON, WORDS)
    await until_event(runtime, Kind.SET_ASIDE)
    cause.mended = True

    await runtime.execute("select operon.requeue(destination, sequence) from operon.dead_letters")

    assert await handle.get_result(timeout=60) == [POISON]


async def test_a_topic_that_says_nothing_stops_the_workflow_which_meets_the_same_message_when_resumed(
    runtime: TestRuntime,
) -> None:
    handle = await obeys(runtime.context)
    for word in (POISON, "next"):
        await runtime.context.send(handle.workflow_uuid, word, STERN)
    with pytest.raises(operon.WorkflowDeadError, match="MemoryError"):
        await handle.get_result(timeout=60)

    cause.mended = True
    await handle.resume()

    assert await handle.get_result(timeout=60) == POISON
    assert cause.met == [POISON] * (BUDGET + 2)
    assert await runtime.fetch(LETTERS) == []


async def test_a_step_that_was_recorded_since_is_progress_and_clears_the_message(runtime: TestRuntime) -> None:
    handle = await steps(runtime.context)
    await runtime.context.send(handle.workflow_uuid, POISON, WORDS)

    with pytest.raises(operon.WorkflowDeadError, match="before step 2"):
        await handle.get_result(timeout=60)

    assert await runtime.fetch(LETTERS) == []


@pytest.mark.parametrize(
    ("topic", "deliveries"), [pytest.param(WORDS, DELIVERIES, id="words"), pytest.param(ONCE, 1, id="once")]
)
async def test_of_several_topics_the_one_it_came_from_decides(
    runtime: TestRuntime, topic: Topic[str], deliveries: int
) -> None:
    handle = await either(runtime.context, 3)

    await runtime.context.send(handle.workflow_uuid, POISON, topic)
    await runtime.context.send(handle.workflow_uuid, "good", WORDS)

    assert await handle.get_result(timeout=60) == "good"
    assert cause.met == [*[POISON] * deliveries, "good"]
    assert [tuple(letter)[:3] for letter in await runtime.fetch(LETTERS)] == [(topic.name, '"poison"', "poison")]


async def test_one_of_several_topics_may_stop_the_workflow(runtime: TestRuntime) -> None:
    handle = await either(runtime.context, 3)

    await runtime.context.send(handle.workflow_uuid, POISON, STERN)

    with pytest.raises(operon.WorkflowDeadError):
        await handle.get_result(timeout=60)
    assert await runtime.fetch(LETTERS) == []


@pytest.mark.parametrize("required", [False, True])
async def test_who_skips_a_message_waits_for_the_rest_of_its_time(runtime: TestRuntime, required: bool) -> None:
    handle = await patient(runtime.context, required)
    await runtime.advance(seconds=3000)
    await runtime.context.send(handle.workflow_uuid, POISON, WORDS)
    await until_event(runtime, Kind.SET_ASIDE)
    await runtime.settled()

    await runtime.advance(seconds=601)

    if required:
        with pytest.raises(operon.RecvTimeout):
            await handle.get_result(timeout=60)
    else:
        assert await handle.get_result(timeout=60) is None


async def test_what_was_announced_after_the_receipt_goes_with_it(runtime: TestRuntime) -> None:
    handle = await at_once(runtime.context)
    await runtime.context.send(handle.workflow_uuid, POISON, WORDS)
    await until_event(runtime, Kind.BACKED_OFF)
    await until_event(runtime, Kind.SET_ASIDE)

    await runtime.context.send(handle.workflow_uuid, "quiet", WORDS)
    await runtime.settled()
    await runtime.advance(hours=1)

    assert await handle.get_result(timeout=60) == [None, "quiet"]


async def test_it_is_set_aside_too_where_the_process_died_each_time(runtime: TestRuntime) -> None:
    runtime.executor.incarnation.jitter = lambda: 1.0
    handle = await reads(runtime.context, 1)
    await runtime.context.send(handle.workflow_uuid, POISON, WORDS)
    await until_event(runtime, Kind.BACKED_OFF)
    await runtime.context.send(handle.workflow_uuid, "good", WORDS)
    # As if others had met it since, and had died of it with their processes.
    count = "update operon.workflows set crash_count = $1, last_error = null, wake_at = operon.clock()"
    await runtime.execute(count, DELIVERIES)

    await runtime.crash()

    handle = runtime.context.retrieve_workflow(handle.workflow_uuid)
    assert await handle.get_result(timeout=60) == ["good"]
    (letter,) = await runtime.fetch(LETTERS)
    assert letter["detail"].endswith("in a row at step 0: its process died")


async def test_it_is_set_aside_before_a_smaller_budget_is_used_up() -> None:
    cause.mended, cause.met = False, []
    async with TestRuntime(__name__, crash_budget=2) as runtime:
        runtime.executor.incarnation.jitter = lambda: 0.0
        handle = await reads(runtime.context, 1)

        for word in (POISON, "good"):
            await runtime.context.send(handle.workflow_uuid, word, WORDS)

        assert await handle.get_result(timeout=60) == ["good"]
        assert cause.met.count(POISON) == 2


async def test_an_executor_that_was_declared_dead_sets_nothing_aside(runtime: TestRuntime) -> None:
    handle = await reads(runtime.context, 1)
    await runtime.context.send(handle.workflow_uuid, POISON, WORDS)
    await until_event(runtime, Kind.SET_ASIDE)
    await runtime.execute(
        "insert into operon.checkpoints (workflow_uuid, step, kind, name, output) values ($1, 0, 11, 'words', '1')",
        handle.workflow_uuid,
    )
    owner = "select owner, epoch from operon.workflows"
    number, epoch = tuple((await runtime.fetch(owner))[0])
    take = "select operon.set_aside($1, $2, $3, 0, 'words', '1', $4, '', 4::smallint)"
    foreign = await runtime.fetchval(take, number + 1, handle.workflow_uuid, epoch, 0)
    earlier = await runtime.fetchval(take, number, handle.workflow_uuid, epoch - 1, 0)
    await runtime.execute("update operon.executors set state = 2")
    dead = await runtime.fetchval(take, number, handle.workflow_uuid, epoch, 0)

    assert [foreign, earlier, dead] == [None] * 3
    assert len(await runtime.fetch(LETTERS)) == 1
    await runtime.execute("delete from operon.checkpoints")


@pytest.mark.parametrize("wrong", [{"on_poison": "drop"}, {"max_deliveries": 0}])
def test_a_topic_with_another_policy_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(operon.InvocationError, match=next(iter(wrong))):
        Topic("words", str, **wrong)
