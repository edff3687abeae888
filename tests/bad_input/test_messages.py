"""Messages, events and times that cannot be: refused where they are given, and nothing has happened."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

import operon
from operon import EventKey, InputError, InvocationError, Topic, WorkflowContext, WorkflowHandle
from operon.testing import TestRuntime

NAMES: list[Any] = ["", "tab\t", "nul\x00", "line\n", "\x1f", "\ud800", "x" * 201, 7, b"topic", object]
TIMES: list[Any] = [-1, -0.001, float("nan"), float("inf"), -float("inf"), 1e300, 10**400, "1", timedelta(seconds=1)]
KEYS: list[Any] = [
    *[1.5, b"key", object(), {"a": 1}, {"a", "b"}, ("a", 1.5), ("a", ("b",)), ("a", None)],
    "\ud800",
    10**1000,
    ("x" * 500, "y" * 500),
    "x" * 1000,
]
UUIDS: list[Any] = ["", "7", "not a uuid", str(UUID(int=7)) + "0", 7, None, b"0" * 16, object()]
MESSAGES: list[Any] = [object(), float, "x" * (20 * 1024 * 1024), {1: {2: object()}}, lambda: None]
LISTS = {"NAMES": NAMES, "TIMES": TIMES, "KEYS": KEYS, "UUIDS": UUIDS, "MESSAGES": MESSAGES}


def refusal_of(which: str, wrong: Any) -> type[operon.OperonError]:
    """A text, or a key of the right kind, may be a client's; whatever else is wrong, the code is."""
    texts = wrong == ("x" * 500, "y" * 500) or isinstance(wrong, str | int)
    match which:
        case "MESSAGES":
            return InputError
        case "UUIDS" if isinstance(wrong, str):
            return operon.NonExistentWorkflowError
        case "NAMES" if isinstance(wrong, str):
            return InputError
        case "KEYS" if texts:
            return InputError
        case _:
            return InvocationError


def ids(values: list[Any]) -> list[str]:
    """Short names for test cases, the same in every process."""
    return [f"{number} {type(value).__name__}" for number, value in enumerate(values)]


@operon.workflow
async def receive(ctx: WorkflowContext) -> Any:
    return await ctx.recv(timeout=0)


@operon.workflow
async def still(ctx: WorkflowContext) -> Any:
    return await ctx.recv()


@operon.workflow
async def try_to(ctx: WorkflowContext, what: str, which: str, number: int) -> str:
    """Does something wrong inside of a workflow. What is wrong is looked up: it could not be an input."""
    wrong = LISTS[which][number]
    other = await still(ctx)
    uuid = other.workflow_uuid
    try:
        match what:
            case "send under":
                await ctx.send(uuid, 1, wrong)
            case "send":
                await ctx.send(uuid, wrong)
            case "send to":
                await ctx.send(wrong, 1)
            case "send with key":
                await ctx.send(uuid, 1, idempotency_key=wrong)
            case "recv":
                await ctx.recv(wrong)
            case "recv for":
                await ctx.recv(timeout=wrong)
            case "recv_any":
                await ctx.recv_any("good", wrong)
            case "recv_any for":
                await ctx.recv_any("a", "b", timeout=wrong)
            case "set_event under":
                await ctx.set_event(wrong, 1)
            case "set_event":
                await ctx.set_event("key", wrong)
            case "get_event under":
                await ctx.get_event(uuid, wrong)
            case "get_event for":
                await ctx.get_event(uuid, "key", wrong)
            case "get_event of":
                await ctx.get_event(wrong, "key")
            case "get_result for":
                await other.get_result(wrong)
            case "sleep":
                await ctx.sleep(wrong)
            case _:
                await still(ctx.using(timeout=wrong))
    except operon.OperonError as error:
        return type(error).__name__
    finally:
        await ctx.send(uuid, "go")
    return "it was done"


@operon.workflow
async def one_topic_only(ctx: WorkflowContext, topics: list[str]) -> Any:
    return await ctx.recv_any(*topics)


@pytest.fixture(scope="module")
async def runtime() -> AsyncIterator[TestRuntime]:
    async with TestRuntime(__name__, poll_seconds=0.2) as runtime:
        yield runtime


@pytest.fixture
async def handle(runtime: TestRuntime) -> AsyncIterator[WorkflowHandle[Any]]:
    """A workflow that waits. That it got nothing before is found when it ends."""
    handle = await still(runtime.context)
    yield handle
    await runtime.context.send(handle.workflow_uuid, "the first message")
    assert await handle.get_result() == "the first message"


# ---------------------------------------------------------------------- in a workflow


WRONG = (
    [(what, "NAMES", n) for what in ("send under", "recv", "recv_any", "set_event under") for n in range(len(NAMES))]
    + [("get_event under", "NAMES", n) for n in range(len(NAMES))]
    + [(what, "TIMES", n) for what in ("recv for", "recv_any for", "get_event for") for n in range(len(TIMES))]
    + [(what, "TIMES", n) for what in ("get_result for", "sleep", "using") for n in range(len(TIMES))]
    + [("send with key", "KEYS", n) for n in range(len(KEYS))]
    + [(what, "UUIDS", n) for what in ("send to", "get_event of") for n in range(len(UUIDS))]
    + [(what, "MESSAGES", n) for what in ("send", "set_event") for n in range(len(MESSAGES))]
)


@pytest.mark.parametrize(("what", "which", "number"), WRONG)
async def test_a_workflow_is_told_what_it_does_wrong_and_goes_on(
    runtime: TestRuntime, what: str, which: str, number: int
) -> None:
    handle = await try_to(runtime.context, what, which, number)

    assert await handle.get_result(timeout=60) == refusal_of(which, LISTS[which][number]).__name__


@pytest.mark.parametrize("topics", [[], ["a"], ["a", "a"]])
async def test_recv_any_takes_two_topics_or_more(runtime: TestRuntime, topics: list[str]) -> None:
    with pytest.raises(InvocationError, match="two topics"):
        await (await one_topic_only(runtime.context, topics)).get_result()


# ---------------------------------------------------------------------- from outside


@pytest.mark.parametrize("name", NAMES, ids=ids(NAMES))
async def test_a_name_that_cannot_be_stored_is_refused(
    runtime: TestRuntime, handle: WorkflowHandle[Any], name: Any
) -> None:
    with pytest.raises(refusal_of("NAMES", name), match="no name"):
        await runtime.context.send(handle.workflow_uuid, 1, name)
    with pytest.raises(refusal_of("NAMES", name), match="no name"):
        await runtime.context.get_event(handle.workflow_uuid, name)
    with pytest.raises(InvocationError, match="no name"):
        Topic(name, int)
    with pytest.raises(InvocationError, match="no name"):
        EventKey(name, int)


@pytest.mark.parametrize("timeout", TIMES, ids=ids(TIMES))
async def test_a_time_that_is_none_is_refused(runtime: TestRuntime, handle: WorkflowHandle[Any], timeout: Any) -> None:
    anybody = runtime.context.retrieve_workflow(handle.workflow_uuid)

    with pytest.raises(InvocationError, match="seconds"):
        await runtime.context.get_event(handle.workflow_uuid, "key", timeout)
    with pytest.raises(InvocationError, match="seconds"):
        await handle.get_result(timeout)
    with pytest.raises(InvocationError, match="seconds"):
        await anybody.get_result(timeout)
    with pytest.raises(InvocationError, match="seconds"):
        runtime.context.using(timeout=timeout)


@pytest.mark.parametrize("key", KEYS, ids=ids(KEYS))
async def test_a_key_of_the_wrong_kind_is_refused(runtime: TestRuntime, handle: WorkflowHandle[Any], key: Any) -> None:
    with pytest.raises(refusal_of("KEYS", key), match="no idempotency key"):
        await runtime.context.send(handle.workflow_uuid, 1, idempotency_key=key)


@pytest.mark.parametrize("uuid", UUIDS, ids=ids(UUIDS))
async def test_what_is_not_a_uuid_is_refused(runtime: TestRuntime, uuid: Any) -> None:
    with pytest.raises(refusal_of("UUIDS", uuid), match="not a UUID"):
        await runtime.context.send(uuid, 1)
    with pytest.raises(refusal_of("UUIDS", uuid), match="not a UUID"):
        await runtime.context.get_event(uuid, "key")
    with pytest.raises(refusal_of("UUIDS", uuid), match="not a UUID"):
        runtime.context.retrieve_workflow(uuid)


@pytest.mark.parametrize("message", MESSAGES, ids=ids(MESSAGES))
async def test_a_message_that_cannot_be_stored_is_refused(
    runtime: TestRuntime, handle: WorkflowHandle[Any], message: Any
) -> None:
    with pytest.raises(InputError):
        await runtime.context.send(handle.workflow_uuid, message)


# ---------------------------------------------------------------------- at the edge of what is right


GOOD_KEYS: list[Any] = ["x" * 998, "", 0, -1, 2**70, True, ("",), (), "ä" * 499, "\x00"]


@pytest.mark.parametrize("key", GOOD_KEYS, ids=ids(GOOD_KEYS))
async def test_any_key_that_fits_does(runtime: TestRuntime, key: Any) -> None:
    handle = await still(runtime.context)

    for _ in range(2):
        await runtime.context.send(handle.workflow_uuid, "once", idempotency_key=key)

    assert await handle.get_result() == "once"


@pytest.mark.parametrize("name", ["x" * 200, "ä" * 200, " ", "'; drop table operon.events; --", "🎟", "{}", "null"])
async def test_any_name_that_is_printable_does(runtime: TestRuntime, name: str) -> None:
    handle = await publish(runtime.context, name)

    await runtime.context.send(handle.workflow_uuid, 1, name)

    assert await handle.get_result() == 1
    assert await runtime.context.get_event(handle.workflow_uuid, name) == name


@operon.workflow
async def publish(ctx: WorkflowContext, name: str) -> Any:
    await ctx.set_event(name, name)
    return await ctx.recv(name)


@operon.workflow
async def wait_for_ages(ctx: WorkflowContext) -> Any:
    return await ctx.recv(timeout=1e10)


async def test_a_time_that_will_not_come_is_waited_for_and_parked() -> None:
    async with TestRuntime(__name__, evict_always=True) as runtime:
        handle = await wait_for_ages(runtime.context.using(timeout=1e10))
        await runtime.context.send(handle.workflow_uuid, "before that")

        assert await handle.get_result(timeout=60) == "before that"


async def test_get_result_with_timeout_0_looks_once(runtime: TestRuntime) -> None:
    done, open_ = await receive(runtime.context), await still(runtime.context)
    await done.get_result()
    await done.get_status()

    assert await runtime.context.retrieve_workflow(done.workflow_uuid).get_result(timeout=0) is None
    with pytest.raises(operon.ResultTimeout):
        await open_.get_result(timeout=0)
    with pytest.raises(operon.NonExistentWorkflowError):
        await runtime.context.retrieve_workflow(uuid4()).get_result(timeout=0)
