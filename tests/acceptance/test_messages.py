"""Messages between workflows, and to them from handlers and scripts: each one received once, in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest

import operon
from operon import CommunicatorContext, Received, Status, Topic, WorkflowContext
from operon.database import notifications
from operon.testing import TestRuntime
from operon.topics import Key
from tests.acceptance.facts import checkpoints, until, waits_for
from tests.acceptance.gates import Gates


class Payment(msgspec.Struct, frozen=True):
    cents: int
    card: str


PAYMENT = Topic("payment", Payment)
COUNT = Topic("count", int)

gates = Gates()


@operon.communicator
async def stop_at(ctx: CommunicatorContext, gate: str) -> None:
    await gates[gate].pass_()


@operon.workflow
async def receive(ctx: WorkflowContext, topic: str | None, times: int = 1, timeout: float | None = None) -> list[Any]:
    return [await ctx.recv(topic, timeout) for _ in range(times)]


@operon.workflow
async def receive_late(ctx: WorkflowContext, gate: str, topic: str | None, times: int) -> list[Any]:
    """Looks into its mailbox when the gate opens."""
    await stop_at(ctx, gate)
    return [await ctx.recv(topic, timeout=0) for _ in range(times)]


@operon.workflow
async def receive_twice(ctx: WorkflowContext, gate: str) -> tuple[Any, Any]:
    """Once with a look, and once more when the gate opens; what it was told the first time counts."""
    first = await ctx.recv("late", timeout=0)
    await stop_at(ctx, gate)
    return first, await ctx.recv("late", timeout=0)


@operon.workflow
async def receive_payment(ctx: WorkflowContext) -> Payment:
    return await ctx.recv(PAYMENT, required=True)


@operon.workflow
async def receive_payments_that_may_be_wrong(ctx: WorkflowContext, gate: str) -> list[str]:
    told: list[str] = []
    for _ in range(3):
        try:
            payment = await ctx.recv(PAYMENT)
            told.append("nothing" if payment is None else payment.card)
        except operon.DecodingError as error:
            told.append(type(error).__name__)
    await stop_at(ctx, gate)
    return told


@operon.workflow
async def receive_any(ctx: WorkflowContext, gate: str, times: int) -> list[str]:
    await stop_at(ctx, gate)
    told: list[str] = []
    for _ in range(times):
        received: Received[Any] | None = await ctx.recv_any(PAYMENT, COUNT, timeout=0)
        told.append("nothing" if received is None else f"{received.topic!r}: {received.message}")
    return told


@operon.workflow
async def require(ctx: WorkflowContext, gate: str, timeout: float) -> list[str]:
    told: list[str] = []
    for _ in range(2):
        try:
            told.append(str(await ctx.recv("never", timeout, required=True)))
        except operon.RecvTimeout as error:
            told.append(error.message)
    try:
        await ctx.recv_any("never", "never ever", timeout=0, required=True)
    except operon.RecvTimeout as error:
        told.append(error.message)
    await stop_at(ctx, gate)
    return told


@operon.workflow
async def send_to(
    ctx: WorkflowContext, to: UUID, messages: list[Any], topic: str | None, key: str | None = None, gate: str = ""
) -> None:
    for message in messages:
        await ctx.send(to, message, topic, idempotency_key=key)
    if gate:
        await stop_at(ctx, gate)


@operon.workflow
async def send_and_catch(ctx: WorkflowContext, to: UUID, gate: str, ignore: bool = False) -> list[str]:
    """What the sender is told, in this life and in the next."""
    told: list[str] = []
    try:
        await ctx.send(to, "hello", ignore_finished=ignore)
        told.append("sent")
    except operon.OperonError as error:
        told.append(f"{type(error).__name__}: {error.message}")
    await stop_at(ctx, gate)
    return told


@operon.workflow
async def send_wrong(ctx: WorkflowContext, to: UUID) -> str:
    wrong: Any = {"cents": "many"}
    try:
        await ctx.send(to, wrong, PAYMENT)
    except operon.InputError as error:
        return error.message
    return "sent"


@operon.workflow
async def ping(ctx: WorkflowContext, times: int) -> list[int]:
    """A conversation with another workflow, each waiting for the other."""
    other = await pong(ctx, ctx.workflow_uuid, times)
    heard: list[int] = []
    for number in range(times):
        await ctx.send(other.workflow_uuid, number, COUNT)
        heard.append(await ctx.recv(COUNT, required=True))
    return heard


@operon.workflow
async def pong(ctx: WorkflowContext, to: UUID, times: int) -> None:
    for _ in range(times):
        await ctx.send(to, await ctx.recv(COUNT, required=True) * 10, COUNT)


@operon.workflow
async def receive_in_a_group(ctx: WorkflowContext) -> list[Any]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(ctx.recv(topic)) for topic in ("a", "b", "a")]
    return [task.result() for task in tasks]


@pytest.fixture(scope="module")
async def runtime() -> AsyncIterator[TestRuntime]:
    async with TestRuntime(__name__, poll_seconds=0.2) as runtime:
        yield runtime


async def mailbox(runtime: TestRuntime, workflow_uuid: UUID) -> int:
    query = "select count(*) from operon.notifications where destination = $1"
    count: int = await runtime.fetchval(query, workflow_uuid)
    return count


# ---------------------------------------------------------------------- order


async def test_messages_are_received_in_the_order_in_which_they_were_sent(runtime: TestRuntime) -> None:
    handle = await receive(runtime.context, None, 2)

    await runtime.context.send(handle.workflow_uuid, "one")
    await runtime.context.send(handle.workflow_uuid, "two")

    assert await handle.get_result() == ["one", "two"]
    assert await mailbox(runtime, handle.workflow_uuid) == 0


async def test_messages_that_were_sent_before_recv_are_not_lost_also_those_of_one_moment(runtime: TestRuntime) -> None:
    gate = str(uuid4())
    handle = await receive_late(runtime.context, gate, "many", 201)
    await gates[gate].reached.wait()

    await asyncio.gather(*(runtime.context.send(handle.workflow_uuid, number, "many") for number in range(200)))
    gates[gate].open()

    assert await handle.get_result() == [*range(200), None]


async def test_a_thousand_messages_of_one_workflow_come_in_order_and_leave_nothing(runtime: TestRuntime) -> None:
    handle = await receive(runtime.context, "many", 1000)

    await send_to(runtime.context, handle.workflow_uuid, list(range(1000)), "many")

    assert await handle.get_result() == list(range(1000))
    assert await mailbox(runtime, handle.workflow_uuid) == 0


async def test_recv_without_a_topic_sees_only_messages_without_one(runtime: TestRuntime) -> None:
    gate = str(uuid4())
    handle = await receive_late(runtime.context, gate, None, 2)
    await runtime.context.send(handle.workflow_uuid, "filed", "topic")
    await runtime.context.send(handle.workflow_uuid, "plain")

    gates[gate].open()

    assert await handle.get_result() == ["plain", None]


async def test_a_topic_keeps_its_order_whatever_else_comes(runtime: TestRuntime) -> None:
    handle = await receive(runtime.context, "a", 3)

    for number in range(3):
        await runtime.context.send(handle.workflow_uuid, f"b{number}", "b")
        await runtime.context.send(handle.workflow_uuid, f"a{number}", "a")

    assert await handle.get_result() == ["a0", "a1", "a2"]


async def test_recv_any_gives_the_oldest_of_its_topics_and_says_which_it_is(runtime: TestRuntime) -> None:
    gate = str(uuid4())
    handle = await receive_any(runtime.context, gate, 4)
    await runtime.context.send(handle.workflow_uuid, 1, COUNT)
    await runtime.context.send(handle.workflow_uuid, Payment(50, "4242"), PAYMENT)
    await runtime.context.send(handle.workflow_uuid, "not asked for")
    await runtime.context.send(handle.workflow_uuid, 2, COUNT)

    gates[gate].open()

    assert await handle.get_result() == [
        "Topic('count'): 1",
        "Topic('payment'): Payment(cents=50, card='4242')",
        "Topic('count'): 2",
        "nothing",
    ]


async def test_branches_of_a_task_group_receive_each_its_own(runtime: TestRuntime) -> None:
    handle = await receive_in_a_group(runtime.context)
    await waits_for(handle, "recv a; recv b")

    for topic, message in [("b", 1), ("a", 2), ("a", 3)]:
        await runtime.context.send(handle.workflow_uuid, message, topic)

    first, second, third = await handle.get_result()
    assert second == 1
    assert {first, third} == {2, 3}


async def test_two_workflows_can_talk_to_each_other(runtime: TestRuntime) -> None:
    handle = await ping(runtime.context, 20)

    assert await handle.get_result() == [number * 10 for number in range(20)]


# ---------------------------------------------------------------------- waiting


async def test_a_message_wakes_a_workflow_that_waits_for_it(runtime: TestRuntime) -> None:
    handle = await receive(runtime.context, "wanted")
    await waits_for(handle, "recv wanted")

    await runtime.context.send(handle.workflow_uuid, {"any": ["json", 1, None]}, "wanted")

    assert await handle.get_result() == [{"any": ["json", 1, None]}]


async def test_recv_with_timeout_0_looks_once(runtime: TestRuntime) -> None:
    handle = await receive(runtime.context, "unknown", timeout=0)

    assert await handle.get_result() == [None]


async def test_that_nothing_came_in_time_is_recorded_and_replayed(runtime: TestRuntime) -> None:
    gate = str(uuid4())
    handle = await receive_twice(runtime.context, gate)
    await gates[gate].reached.wait()

    await runtime.context.send(handle.workflow_uuid, "here I am", "late")
    await runtime.crash()
    gates[gate].open()

    # Nothing, as before, though the message was there when it was replayed; then the message.
    assert await handle.get_result() == (None, "here I am")


async def test_a_required_message_that_does_not_come_is_an_error_and_stays_one(runtime: TestRuntime) -> None:
    gate = str(uuid4())
    handle = await require(runtime.context, gate, 0.05)
    await gates[gate].reached.wait()

    await runtime.context.send(handle.workflow_uuid, "late", "never")
    await runtime.crash()
    gates[gate].open()

    told = await handle.get_result()
    assert told == [
        "no message came under 'never' in 0.05 s",
        "no message came under 'never' in 0.05 s",
        "no message came under 'never, never ever' in 0 s",
    ]


async def test_a_restart_with_the_same_uuid_gives_the_same_answer_and_another_uuid_gets_nothing(
    runtime: TestRuntime,
) -> None:
    uuid = uuid4()
    first, second = await asyncio.gather(
        receive(runtime.context.using(workflow_uuid=uuid), "one"),
        receive(runtime.context.using(workflow_uuid=uuid), "one"),
    )
    await runtime.context.send(uuid, "message", "one")

    answers = [await first.get_result(), await second.get_result()]
    answers.append(await runtime.context.retrieve_workflow(uuid).get_result())
    answers.append(await (await receive(runtime.context.using(workflow_uuid=uuid), "one")).get_result())
    other = await (await receive(runtime.context, "one", timeout=0)).get_result()

    assert answers == [["message"]] * 4
    assert other == [None]


async def test_the_receipt_is_the_record_and_the_message_is_gone_with_it(runtime: TestRuntime) -> None:
    handle = await receive(runtime.context, "kept", 2)
    await runtime.context.send(handle.workflow_uuid, 1, "kept")
    await waits_for(handle, "recv kept")
    await until(lambda: handle.workflow_uuid in runtime.executor.incarnation.live)

    await runtime.crash()
    await runtime.context.send(handle.workflow_uuid, 2, "kept")

    assert await handle.get_result() == [1, 2]
    assert await checkpoints(runtime, handle.workflow_uuid) == [("recv", "kept", "1"), ("recv", "kept", "2")]


# ---------------------------------------------------------------------- types


async def test_a_typed_message_comes_as_its_type(runtime: TestRuntime) -> None:
    handle = await receive_payment(runtime.context)

    await runtime.context.send(handle.workflow_uuid, Payment(50, "4242"), PAYMENT)

    assert await handle.get_result() == Payment(50, "4242")


async def test_a_message_of_another_type_is_refused_where_it_is_sent(runtime: TestRuntime) -> None:
    handle = await receive_payment(runtime.context)
    wrong: Any = Payment(50, 4242)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    with pytest.raises(operon.InputError, match="payment"):
        await runtime.context.send(handle.workflow_uuid, wrong, PAYMENT)

    told = await (await send_wrong(runtime.context, handle.workflow_uuid)).get_result()
    assert "payment" in told
    assert await mailbox(runtime, handle.workflow_uuid) == 0


async def test_what_another_program_sent_wrong_is_an_error_where_it_is_received_and_consumed(
    runtime: TestRuntime,
) -> None:
    gate = str(uuid4())
    handle = await receive_payments_that_may_be_wrong(runtime.context, gate)
    for body in ('{"cents": "many"}', "null", '{"cents": 50, "card": "4242"}'):
        await runtime.execute("select operon.send($1, $2, 'payment')", handle.workflow_uuid, body)
    await gates[gate].reached.wait()

    left = await mailbox(runtime, handle.workflow_uuid)
    await runtime.crash()
    gates[gate].open()

    assert left == 0
    assert await handle.get_result() == ["DecodingError", "DecodingError", "4242"]


async def test_a_required_message_is_never_none(runtime: TestRuntime) -> None:
    handle = await receive_payment(runtime.context)

    await runtime.execute("select operon.send($1, 'null', 'payment')", handle.workflow_uuid)

    with pytest.raises(operon.DecodingError):
        await handle.get_result()


# ---------------------------------------------------------------------- idempotency

KEYS: list[Key] = ["a", ("a", "bc"), ("ab", "c"), ("abc",), ("a", "b", "c"), "abc", 1, "1", (1,), ("1",), 'a","bc']


async def test_different_keys_never_collide(runtime: TestRuntime) -> None:
    handle = await receive(runtime.context, None, len(KEYS))

    for number, key in enumerate(KEYS):
        await runtime.context.send(handle.workflow_uuid, number, idempotency_key=key)

    assert await handle.get_result() == list(range(len(KEYS)))


@pytest.mark.parametrize("key", ["order 7", ("order", 7), UUID(int=7)], ids=str)
async def test_a_message_with_a_key_is_delivered_once_also_when_it_was_received(
    runtime: TestRuntime, key: str | tuple[str, int] | UUID
) -> None:
    gate, uuid = str(uuid4()), uuid4()
    handle = await receive_twice(runtime.context.using(workflow_uuid=uuid), gate)
    await gates[gate].reached.wait()

    for _ in range(3):
        await runtime.context.send(uuid, "once", "late", idempotency_key=key)
    gates[gate].open()

    assert await handle.get_result() == (None, "once")


async def test_a_key_that_was_used_stays_used_after_its_message_was_received(runtime: TestRuntime) -> None:
    handle = await receive(runtime.context, None, 2)
    await runtime.context.send(handle.workflow_uuid, "first", idempotency_key="k")
    await until(lambda: handle.workflow_uuid in runtime.executor.incarnation.live)
    while await mailbox(runtime, handle.workflow_uuid):  # noqa: ASYNC110 - no bell rings
        await asyncio.sleep(0.005)

    await runtime.context.send(handle.workflow_uuid, "again", idempotency_key="k")
    await runtime.context.send(handle.workflow_uuid, "second")

    assert await handle.get_result() == ["first", "second"]


async def test_to_send_again_what_a_finished_workflow_has_received_is_no_error(runtime: TestRuntime) -> None:
    gate = str(uuid4())
    gates[gate].open()
    handle = await receive(runtime.context, None)
    uuid = handle.workflow_uuid
    await runtime.context.send(uuid, "once", idempotency_key="k")
    await handle.get_result()

    await runtime.context.send(uuid, "again", idempotency_key="k")
    await (await send_to(runtime.context, uuid, ["from a workflow"], None, "k")).get_result()
    by_sql = await runtime.fetchval("select operon.send($1, '1', null, 'k')", uuid)
    with pytest.raises(operon.WorkflowFinishedError):
        await runtime.context.send(uuid, "another", idempotency_key="l")

    assert by_sql is False
    assert await runtime.fetchval("select count(*) from operon.dead_letters where destination = $1", uuid) == 1


async def test_many_sends_with_one_key_at_once_are_one_message(runtime: TestRuntime) -> None:
    gate = str(uuid4())
    handle = await receive_late(runtime.context, gate, None, 2)

    await asyncio.gather(*(runtime.context.send(handle.workflow_uuid, n, idempotency_key="k") for n in range(50)))
    gates[gate].open()

    first, second = await handle.get_result()
    assert first in range(50)
    assert second is None


async def test_a_key_is_one_for_workflows_and_for_everybody_else(runtime: TestRuntime) -> None:
    gate = str(uuid4())
    handle = await receive_late(runtime.context, gate, "t", 3)
    uuid = handle.workflow_uuid

    await (await send_to(runtime.context, uuid, ["inside"], "t", "k")).get_result()
    await runtime.context.send(uuid, "outside", "t", idempotency_key="k")
    await (await send_to(runtime.context, uuid, ["inside again"], "t", "k")).get_result()
    sent = await runtime.fetchval("select operon.send($1, '\"by SQL\"', 't', 'k')", uuid)
    gates[gate].open()

    assert await handle.get_result() == ["inside", None, None]
    assert sent is False


async def test_a_key_of_one_destination_is_another_elsewhere(runtime: TestRuntime) -> None:
    handles = [await receive(runtime.context, None) for _ in range(2)]

    for handle in handles:
        await runtime.context.send(handle.workflow_uuid, "each", idempotency_key="k")

    assert [await handle.get_result() for handle in handles] == [["each"]] * 2


async def test_a_context_with_a_uuid_makes_a_send_idempotent(runtime: TestRuntime) -> None:
    gate = str(uuid4())
    handle = await receive_late(runtime.context, gate, None, 2)
    ctx = runtime.context.using(workflow_uuid=uuid4())

    for _ in range(2):
        await ctx.send(handle.workflow_uuid, "once")
    gates[gate].open()

    assert await handle.get_result() == ["once", None]


async def test_a_workflow_that_is_replayed_does_not_send_again(runtime: TestRuntime) -> None:
    gate, there = str(uuid4()), str(uuid4())
    receiver = await receive_late(runtime.context, there, "t", 4)
    sender = await send_to(runtime.context, receiver.workflow_uuid, [1, 2, 3], "t", gate=gate)
    await gates[gate].reached.wait()

    await runtime.crash()
    gates[gate].open()
    await sender.get_result()
    gates[there].open()

    assert await receiver.get_result() == [1, 2, 3, None]


# ---------------------------------------------------------------------- refusals


async def test_to_send_to_an_unknown_workflow_is_an_error_and_is_recorded_as_one(runtime: TestRuntime) -> None:
    gate, unknown = str(uuid4()), uuid4()

    with pytest.raises(operon.NonExistentWorkflowError, match=str(unknown)):
        await runtime.context.send(unknown, "hello")

    handle = await send_and_catch(runtime.context, unknown, gate)
    await gates[gate].reached.wait()
    await receive(runtime.context.using(workflow_uuid=unknown), None)
    await runtime.crash()
    gates[gate].open()

    assert await handle.get_result() == [f"NonExistentWorkflowError: there is no workflow {unknown} to send to"]


async def test_to_send_to_a_finished_workflow_is_an_error_and_leaves_a_dead_letter(runtime: TestRuntime) -> None:
    gate = str(uuid4())
    finished = await receive(runtime.context, None, 0)
    await finished.get_result()
    uuid = finished.workflow_uuid

    with pytest.raises(operon.WorkflowFinishedError, match=str(uuid)):
        await runtime.context.send(uuid, {"from": "outside"}, "t")
    handle = await send_and_catch(runtime.context, uuid, gate)
    await gates[gate].reached.wait()
    await runtime.crash()
    gates[gate].open()
    told = await handle.get_result()

    rows = await runtime.fetch(
        "select topic, sender, convert_from(body, 'UTF8') as body, reason from operon.dead_letters "
        "where destination = $1 order by sequence",
        uuid,
    )
    assert told == [f"WorkflowFinishedError: workflow {uuid} has finished; the message is a dead letter"]
    assert [(row["topic"], row["body"], row["reason"]) for row in rows] == [
        ("t", '{"from":"outside"}', "finished"),
        (None, '"hello"', "finished"),
    ]
    assert rows[1]["sender"] == handle.workflow_uuid


async def test_a_sender_may_say_that_a_finished_destination_is_no_error(runtime: TestRuntime) -> None:
    gate = str(uuid4())
    finished = await receive(runtime.context, None, 0)
    await finished.get_result()
    uuid = finished.workflow_uuid

    await runtime.context.send(uuid, "hello", ignore_finished=True)
    handle = await send_and_catch(runtime.context, uuid, gate, ignore=True)
    gates[gate].open()

    assert await handle.get_result() == ["sent"]
    assert await runtime.fetchval("select count(*) from operon.dead_letters where destination = $1", uuid) == 2


async def test_what_was_never_received_becomes_a_dead_letter(runtime: TestRuntime) -> None:
    gate = str(uuid4())
    handle = await receive_late(runtime.context, gate, None, 1)
    await runtime.context.send(handle.workflow_uuid, "nobody asked", "other")

    gates[gate].open()
    await handle.get_result()
    await handle.get_status()  # its end is in the database
    async with runtime.executor.incarnation.look_ups.connection() as connection:
        more = await notifications.bury(connection)

    query = "select reason from operon.dead_letters where destination = $1"
    assert await runtime.fetchval(query, handle.workflow_uuid) == "never received"
    assert await mailbox(runtime, handle.workflow_uuid) == 0
    assert not more


@pytest.fixture(scope="module")
async def small() -> AsyncIterator[TestRuntime]:
    async with TestRuntime(__name__, mailbox_limit=3, poll_seconds=0.2) as runtime:
        yield runtime


async def test_a_full_mailbox_refuses_and_receives_again_when_there_is_room(small: TestRuntime) -> None:
    handle = await receive(small.context, "wanted")
    uuid = handle.workflow_uuid
    for number in range(3):
        await small.context.send(uuid, number, "unwanted")

    with pytest.raises(operon.MailboxFull, match=str(uuid)):
        await small.context.send(uuid, "too many", "wanted", idempotency_key="k")
    await small.execute("delete from operon.notifications where destination = $1", uuid)
    await small.context.send(uuid, "again", "wanted", idempotency_key="k")

    assert await handle.get_result() == ["again"]


async def test_of_many_sends_at_once_as_many_go_in_as_there_is_room_for(small: TestRuntime) -> None:
    gate = str(uuid4())
    handle = await receive_late(small.context, gate, None, 4)

    told = await asyncio.gather(
        *(small.context.send(handle.workflow_uuid, number) for number in range(10)), return_exceptions=True
    )
    gates[gate].open()

    assert [type(each).__name__ for each in told] == ["NoneType"] * 3 + ["MailboxFull"] * 7
    assert await handle.get_result() == [0, 1, 2, None]


async def test_a_workflow_is_told_that_a_mailbox_is_full_and_told_so_again(small: TestRuntime) -> None:
    gate, there = str(uuid4()), str(uuid4())
    receiver = await receive_late(small.context, there, None, 4)
    for number in range(3):
        await small.context.send(receiver.workflow_uuid, number)
    sender = await send_and_catch(small.context, receiver.workflow_uuid, gate)
    await gates[gate].reached.wait()

    gates[there].open()
    received = await receiver.get_result()
    await small.crash()
    gates[gate].open()

    assert received == [0, 1, 2, None]
    assert await sender.get_result() == [f"MailboxFull: the mailbox of workflow {receiver.workflow_uuid} is full"]


async def test_the_error_of_a_refused_message_is_the_workflows_outcome_where_it_is_not_caught(
    runtime: TestRuntime,
) -> None:
    handle = await send_to(runtime.context, uuid4(), ["hello"], None)

    with pytest.raises(operon.NonExistentWorkflowError):
        await handle.get_result()

    status = await handle.get_status()
    assert status is not None
    assert status.status is Status.ERROR
