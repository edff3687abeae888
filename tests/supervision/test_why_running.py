"""Why is it not running: it runs, and `GET /operon/supervisor?uuid=` says what, since when, and where it stands."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator

import pytest

import operon
from operon.testing import TestRuntime
from tests.supervision.facts import until_said, until_why, why


class Gate:
    """Lets those pass who come to it, or holds them."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.reached = asyncio.Semaphore(0)
        self.tries = 0

    async def passed(self) -> None:
        self.reached.release()
        await self.open.wait()


GATES: dict[str, Gate] = {}


class GatewayUnavailable(Exception):
    pass


@operon.communicator(retry=operon.Retry(max_attempts=5, interval_seconds=0))
async def capture(ctx: operon.CommunicatorContext, failures: int = 0) -> None:
    if ctx.attempt <= failures:
        raise GatewayUnavailable
    await GATES["capture"].passed()


@operon.communicator(retry=operon.Retry(max_attempts=8, interval_seconds=3600))
async def down(ctx: operon.CommunicatorContext) -> None:
    raise GatewayUnavailable("hunter2 is my password")


@operon.transaction
async def moves(tx: operon.TransactionContext) -> None:
    await GATES["moves"].passed()


@operon.transaction
async def collides(tx: operon.TransactionContext) -> None:
    gate = GATES["collides"]
    gate.tries += 1
    if gate.tries <= 3:
        await tx.client.execute("do $$ begin raise exception 'collided' using errcode = '40001'; end $$")
    await gate.passed()


@operon.workflow
async def pays(ctx: operon.WorkflowContext, failures: int = 0) -> None:
    await capture(ctx, failures)


@operon.workflow
async def calls_down(ctx: operon.WorkflowContext) -> None:
    await down(ctx)


@operon.workflow
async def calls_moves(ctx: operon.WorkflowContext) -> None:
    await moves(ctx)
    await ctx.recv("receipt", 3600)


@operon.workflow
async def calls_collides(ctx: operon.WorkflowContext) -> None:
    await collides(ctx)


@operon.workflow
async def pays_and_waits(ctx: operon.WorkflowContext) -> None:
    await asyncio.gather(capture(ctx), capture(ctx), ctx.recv("receipt", 3600))


@operon.workflow
async def thinks(ctx: operon.WorkflowContext) -> None:
    ctx.now()
    ctx.now()
    await GATES["thinks"].passed()
    ctx.now()
    await ctx.recv("more", 3600)
    await ctx.recv("more", 3600)


@pytest.fixture
async def gates() -> AsyncIterator[dict[str, Gate]]:
    GATES.update({name: Gate() for name in ("capture", "moves", "collides", "thinks")})
    yield GATES
    for gate in GATES.values():
        gate.open.set()


@pytest.fixture
async def runtime(gates: dict[str, Gate]) -> AsyncIterator[TestRuntime]:
    async with TestRuntime(__name__, check_replay=False, heartbeat_seconds=0.2, park_after_seconds=3600) as runtime:
        yield runtime
        for gate in gates.values():  # or the runtime would wait for them
            gate.open.set()


async def test_a_communicator_is_told_with_its_name_its_time_and_its_attempt(
    runtime: TestRuntime, gates: dict[str, Gate]
) -> None:
    handle = await pays(runtime.context)
    await gates["capture"].reached.acquire()

    found = await why(runtime, handle.workflow_uuid)

    assert found["code"] == "running"
    assert re.fullmatch(r"Runs `capture` on \S+:\d+#\d+ for [\d.]+ m?s, attempt 1 of 5\.", found["text"])
    assert [place.partition(":")[0] for place in found["stands"]] == ["supervision/test_why_running.py"] * 3
    assert [place.partition(" ")[2] for place in found["stands"]] == ["pays", "capture", "passed"]


async def test_an_attempt_after_failed_ones_says_what_the_last_failed_with(
    runtime: TestRuntime, gates: dict[str, Gate]
) -> None:
    handle = await pays(runtime.context, 2)
    await gates["capture"].reached.acquire()

    found = await why(runtime, handle.workflow_uuid)

    assert found["code"] == "running"
    assert found["text"].endswith(", attempt 3 of 5; the last failed with `GatewayUnavailable`.")


async def test_a_pause_between_attempts_says_how_many_failed_and_when_the_next_begins() -> None:
    async with TestRuntime(__name__, check_replay=False, park_after_seconds=86_400) as runtime:
        handle = await calls_down(runtime.context)

        found = await until_why(runtime, handle.workflow_uuid, "backoff")

        failed = r"1 of 8 attempts failed, the last with `GatewayUnavailable`\."
        assert re.fullmatch(rf"Waits to try `down` again at \S+( \S+)?, in \d+ min: {failed}", found["text"])
        assert found["until"] is not None


async def test_a_pause_that_is_spent_out_of_memory_is_told_alike() -> None:
    async with TestRuntime(__name__, check_replay=False, park_after_seconds=0) as runtime:
        handle = await calls_down(runtime.context)
        await runtime.settled()

        found = await until_why(runtime, handle.workflow_uuid, "backoff")

        failed = "1 of 8 failed, the last with GatewayUnavailable."
        assert found["text"].endswith(f" for its next attempt of down: {failed}")
        assert found["until"] is not None
        assert await runtime.fetchval("select wait_kind is not null from operon.workflows")


async def test_a_transaction_is_told_like_a_communicator(runtime: TestRuntime, gates: dict[str, Gate]) -> None:
    handle = await calls_moves(runtime.context)
    await gates["moves"].reached.acquire()

    found = await why(runtime, handle.workflow_uuid)

    assert found["code"] == "running"
    assert re.match(r"Runs `moves` on \S+ for [\d.]+ m?s\.$", found["text"])
    assert [place.partition(" ")[2] for place in found["stands"]] == ["calls_moves", "moves", "passed"]

    gates["moves"].open.set()

    await until_why(runtime, handle.workflow_uuid, "recv")


async def test_a_transaction_that_met_conflicts_says_how_many(runtime: TestRuntime, gates: dict[str, Gate]) -> None:
    handle = await calls_collides(runtime.context)
    await gates["collides"].reached.acquire()

    found = await why(runtime, handle.workflow_uuid)

    assert found["code"] == "transaction_retry"
    met = "Its transaction `collides` met 3 conflicts or lost connections, the last `SerializationError`"
    assert found["text"] == f"{met}, and tries again now."


async def test_a_step_that_takes_longer_than_99_of_100_is_told_with_where_it_stands(
    runtime: TestRuntime, gates: dict[str, Gate]
) -> None:
    gates["capture"].open.set()
    for _ in range(20):
        await (await pays(runtime.context)).get_result(timeout=60)
    gates["capture"].open.clear()
    handle = await pays(runtime.context)

    found = await until_why(runtime, handle.workflow_uuid, "running_long")

    assert "; 99 % of 20 take less than " in found["text"]
    assert re.search(r" It stands at supervision/test_why_running\.py:\d+ passed\.$", found["text"])
    assert found["stands"][-1].endswith(" passed")


async def test_calls_at_the_same_time_are_counted_and_what_it_waits_for_besides_is_told(
    runtime: TestRuntime, gates: dict[str, Gate]
) -> None:
    handle = await pays_and_waits(runtime.context)
    await gates["capture"].reached.acquire()
    await gates["capture"].reached.acquire()

    found = await why(runtime, handle.workflow_uuid)

    assert found["code"] == "running"
    assert ", attempt 1 of 5, and 1 more at the same time." in found["text"]
    assert found["text"].endswith(" It also waits for recv receipt.")

    gates["capture"].open.set()

    assert "Waits for a message on `receipt`" in (await until_why(runtime, handle.workflow_uuid, "recv"))["text"]


async def test_its_own_code_is_told_with_where_it_stands(runtime: TestRuntime, gates: dict[str, Gate]) -> None:
    handle = await thinks(runtime.context)
    await gates["thinks"].reached.acquire()

    found = await why(runtime, handle.workflow_uuid)

    assert found["code"] == "running"
    assert [place.partition(" ")[2] for place in found["stands"]] == ["thinks", "passed"]


async def test_a_replay_says_how_far_it_is(gates: dict[str, Gate]) -> None:
    async with TestRuntime(__name__, check_replay=False, park_after_seconds=0) as runtime:
        gates["thinks"].open.set()
        handle = await thinks(runtime.context)
        await runtime.settled()
        await gates["thinks"].reached.acquire()
        gates["thinks"].open.clear()
        await runtime.context.send(handle.workflow_uuid, 1, "more")
        await gates["thinks"].reached.acquire()

        found = await why(runtime, handle.workflow_uuid)
        gates["thinks"].open.set()

        assert found["code"] == "replaying"
        assert re.fullmatch(r"Replays 3 steps on \S+, 67 % done\.", found["text"])


async def test_what_runs_elsewhere_is_told_as_its_executor_said(runtime: TestRuntime, gates: dict[str, Gate]) -> None:
    other = operon.Operon(__name__, database_url=runtime.database_url, heartbeat_seconds=0.2, port=0)
    async with other:
        handle = await pays(other.context())
        await gates["capture"].reached.acquire()
        number = other.executor.incarnation.number
        await until_said(runtime, number, lambda said: any(actor.doing for actor in said.actors))

        found = await why(runtime, handle.workflow_uuid)
        gates["capture"].open.set()

        assert found["code"] == "running"
        assert re.fullmatch(
            rf"Runs `capture` on \S+#{number} for [\d.]+ m?s, attempt 1 of 5, as it said [\d.]+ m?s ago\.",
            found["text"],
        )
