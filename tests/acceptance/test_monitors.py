"""Monitors: a workflow is told of the end of another one, once, however that ended and wherever either of them is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import pytest

import operon
from operon import DOWN, CommunicatorContext, InputError, NonExistentWorkflowError, Operon, Status, WorkflowContext
from operon.database import notifications
from operon.testing import TestRuntime
from tests.acceptance.facts import parked, waits_for
from tests.acceptance.gates import Gates

WORD = operon.Topic("word", str)
gates = Gates()


class Broken(Exception):
    """What a workflow ends with."""


@operon.communicator
async def stop_at(ctx: CommunicatorContext, gate: str) -> None:
    await gates[gate].pass_()


@operon.workflow
async def told(ctx: WorkflowContext, word: str = "done") -> str:
    """Ends when it is told to, with what it is told: with an error for `error`."""
    said = await ctx.recv(WORD, required=True)
    if said == "error":
        raise Broken("no")
    if said == "dead":
        raise MemoryError
    return said


@operon.workflow
async def quick(ctx: WorkflowContext) -> str:
    return "quick"


@operon.workflow
async def watch(ctx: WorkflowContext, *targets: UUID, count: int = 1) -> list[tuple[UUID, str, str, str | None]]:
    """Who of these has ended, and how."""
    refs = {await ctx.monitor(target): target for target in targets}
    await ctx.set_event("watching", True)
    downs = [await ctx.recv(DOWN, required=True) for _ in range(count)]
    assert all(refs[down.ref] == down.workflow_uuid for down in downs)
    assert await ctx.recv(DOWN, timeout=0) is None
    return [(down.workflow_uuid, down.name, down.status.value, down.error) for down in downs]


@operon.workflow
async def watch_children(ctx: WorkflowContext, count: int) -> list[str]:
    """Children that end at once, so that some have ended before they are monitored."""
    children = [await quick(ctx) for _ in range(count)]
    await asyncio.gather(*(ctx.monitor(child.workflow_uuid) for child in children))
    downs = [await ctx.recv(DOWN, required=True) for _ in range(count)]
    assert {down.workflow_uuid for down in downs} == {child.workflow_uuid for child in children}
    assert await ctx.recv(DOWN, timeout=0) is None
    return [down.status.value for down in downs]


@operon.workflow
async def watch_nobody(ctx: WorkflowContext, target: UUID, owned: bool = False) -> str:
    try:
        await ctx.monitor(target, owned=owned)
    except NonExistentWorkflowError as error:
        return str(error)
    return "monitored"


@operon.workflow
async def watch_and_listen(ctx: WorkflowContext, target: UUID) -> list[str]:
    await ctx.monitor(target)
    heard: list[str] = []
    while len(heard) < 2:
        received = await ctx.recv_any(WORD, DOWN, required=True)
        heard.append("down" if received.topic is DOWN else received.message)
    return heard


@operon.workflow
async def watch_and_leave(ctx: WorkflowContext, target: UUID, gate: str) -> str:
    await ctx.monitor(target)
    await stop_at(ctx, gate)
    return "left"


@operon.workflow
async def watch_no_more(ctx: WorkflowContext, target: UUID) -> list[bool]:
    first, second = await ctx.monitor(target), await ctx.monitor(target)
    taken = [await ctx.demonitor(first), await ctx.demonitor(first), await ctx.demonitor(uuid4_of(ctx))]
    await ctx.set_event("watching", True)
    down = await ctx.recv(DOWN, required=True)
    return [*taken, down.ref == second, await ctx.demonitor(second), await ctx.recv(DOWN, timeout=0) is None]


def uuid4_of(ctx: WorkflowContext) -> UUID:
    return ctx.uuid4()


@operon.workflow
async def pretend(ctx: WorkflowContext, target: UUID) -> None:
    await ctx.send(target, {}, "operon.down")


@pytest.fixture(params=[False, True], ids=["live", "parked"])
async def runtime(request: pytest.FixtureRequest) -> AsyncIterator[TestRuntime]:
    async with TestRuntime(__name__, evict_always=request.param, poll_seconds=0.2, crash_budget=0) as runtime:
        yield runtime


async def watching(runtime: TestRuntime, watcher: operon.WorkflowHandle[Any]) -> None:
    assert await runtime.context.get_event(watcher.workflow_uuid, "watching", timeout=60)
    await waits_for(watcher, "recv operon.down")


async def left_over(runtime: TestRuntime) -> dict[str, int]:
    tables = ("monitors", "notifications", "dead_letters")
    counts = {table: await runtime.fetchval(f"select count(*) from operon.{table}") for table in tables}
    return {table: count for table, count in counts.items() if count}


@pytest.mark.parametrize(
    ("word", "status", "error"),
    [
        ("done", "SUCCESS", None),
        ("error", "ERROR", "Broken: no"),
        ("dead", "DEAD", "crashed 1 times in a row"),
    ],
)
async def test_a_watcher_is_told_how_the_other_one_ended(
    runtime: TestRuntime, word: str, status: str, error: str | None
) -> None:
    runtime.checks_replay = False  # a dead one cannot be replayed
    other = await told(runtime.context)
    watcher = await watch(runtime.context, other.workflow_uuid)
    await watching(runtime, watcher)

    await runtime.context.send(other.workflow_uuid, word, WORD)

    [(uuid, name, how, why)] = await watcher.get_result(timeout=60)
    assert (uuid, name, how) == (other.workflow_uuid, "told", status)
    assert why == error if error is None else why is not None and error in why
    assert await left_over(runtime) in ({}, {"notifications": 1})  # of the dead one, who may be resumed


async def test_a_watcher_is_told_of_a_cancelled_one(runtime: TestRuntime) -> None:
    other = await told(runtime.context)
    watcher = await watch(runtime.context, other.workflow_uuid)
    await watching(runtime, watcher)

    await other.cancel()

    [(_, _, how, why)] = await watcher.get_result(timeout=60)
    assert how == "CANCELLED"
    assert why is not None
    assert "was cancelled" in why


async def test_a_watcher_is_told_of_one_whose_time_is_over(runtime: TestRuntime) -> None:
    other = await told(runtime.context.using(timeout=0.5))
    watcher = await watch(runtime.context, other.workflow_uuid)

    [(_, _, how, why)] = await watcher.get_result(timeout=60)

    assert how == "CANCELLED"
    assert why is not None
    assert "WorkflowTimeout" in why


async def test_a_workflow_that_has_ended_before_is_down_at_once(runtime: TestRuntime) -> None:
    other = await quick(runtime.context)
    await other.get_result()

    watcher = await watch(runtime.context, other.workflow_uuid)

    assert await watcher.get_result(timeout=60) == [(other.workflow_uuid, "quick", "SUCCESS", None)]


async def test_each_of_many_monitors_has_one_message_whenever_the_other_ends(runtime: TestRuntime) -> None:
    watchers = [await watch_children(runtime.context, 10) for _ in range(10)]

    downs = [await watcher.get_result(timeout=60) for watcher in watchers]

    assert downs == [["SUCCESS"] * 10] * 10
    assert await left_over(runtime) == {}


async def test_every_monitor_of_one_workflow_is_told(runtime: TestRuntime) -> None:
    other = await told(runtime.context)
    twice = await watch(runtime.context, other.workflow_uuid, other.workflow_uuid, count=2)
    once = await watch(runtime.context, other.workflow_uuid)
    await watching(runtime, twice)
    await watching(runtime, once)

    await runtime.context.send(other.workflow_uuid, "done", WORD)

    assert [len(await watcher.get_result(timeout=60)) for watcher in (twice, once)] == [2, 1]


async def test_an_unknown_workflow_cannot_be_monitored(runtime: TestRuntime) -> None:
    handle = await watch_nobody(runtime.context, uuid4())

    assert "there is no workflow" in await handle.get_result(timeout=60)


async def test_another_users_workflow_cannot_be_monitored_where_it_has_to_be_ones_own(runtime: TestRuntime) -> None:
    adas = await told(runtime.context_of("ada"))

    bobs = await watch_nobody(runtime.context_of("bob"), adas.workflow_uuid, owned=True)
    own = await watch_nobody(runtime.context_of("ada"), adas.workflow_uuid, owned=True)
    anyones = await watch_nobody(runtime.context_of("bob"), adas.workflow_uuid)

    assert "there is no workflow" in await bobs.get_result(timeout=60)
    assert [await own.get_result(timeout=60), await anyones.get_result(timeout=60)] == ["monitored", "monitored"]
    await adas.cancel()


async def test_an_end_is_received_beside_other_messages(runtime: TestRuntime) -> None:
    other = await told(runtime.context)
    watcher = await watch_and_listen(runtime.context, other.workflow_uuid)
    await waits_for(watcher, "recv word, operon.down")

    await runtime.context.send(watcher.workflow_uuid, "hello", WORD)
    await waits_for(watcher, "recv word, operon.down")
    await runtime.context.send(other.workflow_uuid, "done", WORD)

    assert await watcher.get_result(timeout=60) == ["hello", "down"]


async def test_a_full_mailbox_takes_the_news_all_the_same() -> None:
    async with TestRuntime(__name__, mailbox_limit=1) as runtime:
        other = await told(runtime.context)
        watcher = await watch(runtime.context, other.workflow_uuid)
        await watching(runtime, watcher)
        await runtime.context.send(watcher.workflow_uuid, "fills it", "other")
        with pytest.raises(operon.MailboxFull):
            await runtime.context.send(watcher.workflow_uuid, "refused", "other")

        await runtime.context.send(other.workflow_uuid, "done", WORD)

        assert len(await watcher.get_result(timeout=60)) == 1


async def test_a_watcher_that_has_finished_is_told_nothing_more_and_leaves_nothing(runtime: TestRuntime) -> None:
    first, second = await told(runtime.context), await told(runtime.context)
    gate, another = str(uuid4()), str(uuid4())
    watcher = await watch_and_leave(runtime.context, first.workflow_uuid, gate)
    await gates[gate].reached.wait()
    unread = await watch_and_leave(runtime.context, second.workflow_uuid, another)
    await gates[another].reached.wait()
    await runtime.context.send(second.workflow_uuid, "done", WORD)  # while it does not look into its mailbox
    await second.get_result(timeout=60)

    gates[gate].open()
    gates[another].open()
    assert [await watcher.get_result(timeout=60), await unread.get_result(timeout=60)] == ["left", "left"]
    await runtime.context.send(first.workflow_uuid, "done", WORD)
    await first.get_result(timeout=60)

    await runtime.executor.look_ups.ask(notifications.bury)
    assert await left_over(runtime) == {}


async def test_a_watcher_that_was_cancelled_finds_it_when_it_is_resumed(runtime: TestRuntime) -> None:
    other = await told(runtime.context)
    watcher = await watch(runtime.context, other.workflow_uuid)
    await watching(runtime, watcher)
    await watcher.cancel()

    await runtime.context.send(other.workflow_uuid, "done", WORD)
    await other.get_result(timeout=60)
    await watcher.resume()

    assert len(await watcher.get_result(timeout=60)) == 1


async def test_a_monitor_that_was_taken_back_tells_nothing(runtime: TestRuntime) -> None:
    other = await told(runtime.context)
    watcher = await watch_no_more(runtime.context, other.workflow_uuid)
    await watching(runtime, watcher)

    await runtime.context.send(other.workflow_uuid, "done", WORD)

    assert await watcher.get_result(timeout=60) == [True, False, False, True, False, True]


async def test_nobody_else_can_say_that_a_workflow_is_down(runtime: TestRuntime) -> None:
    other = await told(runtime.context)

    with pytest.raises(InputError):
        await runtime.context.send(other.workflow_uuid, {}, "operon.down")
    with pytest.raises(InputError):
        await (await pretend(runtime.context, other.workflow_uuid)).get_result(timeout=60)

    await other.cancel()


async def test_a_watcher_of_another_process_is_told(runtime: TestRuntime) -> None:
    elsewhere = Operon(__name__, database_url=runtime.database_url, poll_seconds=0.2)
    async with elsewhere:
        others = [await told(elsewhere.context()) for _ in range(5)]
        watcher = await watch(runtime.context, *(other.workflow_uuid for other in others), count=5)
        await watching(runtime, watcher)

        await asyncio.gather(*(elsewhere.context().send(other.workflow_uuid, "done", WORD) for other in others))

        ended = await watcher.get_result(timeout=60)
    assert {uuid for uuid, *_ in ended} == {other.workflow_uuid for other in others}


async def test_a_watcher_is_told_wherever_it_crashes() -> None:
    async with TestRuntime(__name__) as runtime:
        async for _crash in runtime.crash_everywhere():
            watcher = await watch_children(runtime.context, 2)

            assert await watcher.get_result(timeout=60) == ["SUCCESS", "SUCCESS"]
            assert await left_over(runtime) == {}


async def test_a_parked_watcher_that_waits_for_other_things_stays_out_of_memory() -> None:
    async with TestRuntime(__name__, evict_always=True, poll_seconds=0.2) as runtime:
        other = await told(runtime.context)
        watcher = await watch_other_things(runtime.context, other.workflow_uuid)
        await waits_for(watcher, "recv word")
        await parked(runtime, watcher.workflow_uuid)

        await runtime.context.send(other.workflow_uuid, "done", WORD)
        await other.get_result(timeout=60)
        await parked(runtime, watcher.workflow_uuid)
        await runtime.context.send(watcher.workflow_uuid, "go on", WORD)

        assert await watcher.get_result(timeout=60) is Status.SUCCESS


@operon.workflow
async def watch_other_things(ctx: WorkflowContext, target: UUID) -> Status:
    await ctx.monitor(target)
    await ctx.recv(WORD)
    return (await ctx.recv(DOWN, required=True)).status


async def test_two_processes_that_watch_each_others_workflows_miss_nothing() -> None:
    """Both end workflows and set monitors all the time, so that the locks of one meet those of the other."""
    async with TestRuntime(__name__) as runtime:
        elsewhere = Operon(__name__, database_url=runtime.database_url)
        async with elsewhere:
            contexts = [runtime.context, elsewhere.context()]
            others = [await told(contexts[n % 2]) for n in range(100)]

            async def watched(n: int) -> int:
                watcher = await watch(
                    contexts[(n + 1) % 2], others[n].workflow_uuid, others[n - 1].workflow_uuid, count=2
                )
                await contexts[n % 2].send(others[n].workflow_uuid, "done", WORD)
                return len(await watcher.get_result(timeout=60))

            downs = await asyncio.gather(*(watched(n) for n in range(100)))

        assert downs == [2] * 100
        assert await left_over(runtime) == {}
