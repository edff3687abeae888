"""What the sentences are made of, read from a real database: each wait of a real workflow, and what its row says."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import UUID

import pytest

import operon
from operon import EventKey
from operon.database import reasons
from operon.database.reasons import Told
from operon.database.supervision import Node
from operon.explain import Why
from operon.testing import TestRuntime
from tests.supervision.facts import until_said

STATUS = EventKey("status", str)


@operon.workflow
async def receives(ctx: operon.WorkflowContext) -> None:
    await ctx.recv("payment", 3600)


@operon.workflow
async def watches(ctx: operon.WorkflowContext, workflow_uuid: str) -> None:
    await ctx.get_event(UUID(workflow_uuid), STATUS, timeout=3600)


@operon.workflow
async def parent(ctx: operon.WorkflowContext) -> None:
    child = await receives(ctx)
    await child.get_result()


@operon.workflow
async def follows(ctx: operon.WorkflowContext, workflow_uuid: str) -> None:
    await ctx.retrieve_workflow(UUID(workflow_uuid)).get_result()


@operon.workflow
async def sleeps(ctx: operon.WorkflowContext) -> None:
    await ctx.sleep(3600)


@operon.workflow
async def fails(ctx: operon.WorkflowContext) -> None:
    raise ValueError("no")


@pytest.fixture(params=["parked", "live"])
async def runtime(request: pytest.FixtureRequest) -> AsyncIterator[TestRuntime]:
    after = 0 if request.param == "parked" else 3600
    async with TestRuntime(__name__, check_replay=False, park_after_seconds=after) as runtime:
        yield runtime


async def why(runtime: TestRuntime, workflow_uuid: UUID) -> Why:
    """The reason as any executor would give it, once everybody waits."""
    if any(not actor.over for actor in runtime.executor.incarnation.live.values()):
        await runtime.settled()
    number = runtime.executor.incarnation.number
    live = {actor.workflow_uuid: Told(actor, number) for actor in runtime.executor.pulse.portrait().actors}
    async with runtime.executor.look_ups.connection() as connection:
        cluster, _ = await reasons.look_around(connection, 5)
        return (await reasons.reasons(connection, [workflow_uuid], cluster, live.get))[workflow_uuid]


async def test_a_message(runtime: TestRuntime) -> None:
    handle = await receives(runtime.context)
    await runtime.settled()
    await runtime.context.send(handle.workflow_uuid, 1, "other")

    found = await why(runtime, handle.workflow_uuid)

    assert found.code == "recv"
    assert "a message on `payment` since" in found.text
    assert "1 message on other topics is there. Nothing is wrong." in found.text
    assert found.until is not None


async def test_an_event_of_another_workflow(runtime: TestRuntime) -> None:
    other = await receives(runtime.context)
    handle = await watches(runtime.context, str(other.workflow_uuid))

    found = await why(runtime, handle.workflow_uuid)

    assert found.code == "event"
    assert found.text.startswith("Waits for event `status` of `receives` …")
    assert found.link == f"/operon/supervisor?uuid={other.workflow_uuid}"


async def test_an_event_of_a_workflow_that_was_cancelled(runtime: TestRuntime) -> None:
    other = await receives(runtime.context)
    handle = await watches(runtime.context, str(other.workflow_uuid))
    await runtime.settled()
    await runtime.context.retrieve_workflow(other.workflow_uuid).cancel()

    assert (await why(runtime, handle.workflow_uuid)).code == "event_never"


async def test_a_child(runtime: TestRuntime) -> None:
    handle = await parent(runtime.context)

    found = await why(runtime, handle.workflow_uuid)

    assert found.code == "child"
    assert found.text.startswith("Waits for child `receives` …")


async def test_the_result_of_another_workflow(runtime: TestRuntime) -> None:
    other = await receives(runtime.context)
    handle = await follows(runtime.context, str(other.workflow_uuid))

    assert (await why(runtime, handle.workflow_uuid)).code == "handle"


async def test_two_that_wait_for_one_another() -> None:
    async with TestRuntime(__name__, check_replay=False, park_after_seconds=0) as runtime:
        bottom = await receives(runtime.context)
        one = await watches(runtime.context, str(bottom.workflow_uuid))
        other = await watches(runtime.context, str(one.workflow_uuid))
        await runtime.settled()
        await runtime.execute(
            "update operon.waits set target = $1 where waiter = $2", other.workflow_uuid, one.workflow_uuid
        )

        found = await why(runtime, one.workflow_uuid)

        assert found.code == "cycle"
        assert found.link == f"/operon/supervisor?uuid={other.workflow_uuid}"


async def test_a_sleep(runtime: TestRuntime) -> None:
    handle = await sleeps(runtime.context)

    assert (await why(runtime, handle.workflow_uuid)).code == "sleep"


async def test_an_end_with_an_error(runtime: TestRuntime) -> None:
    handle = await fails(runtime.context)
    with pytest.raises(ValueError, match="no"):
        await handle.get_result(timeout=60)
    await handle.get_status()

    found = await why(runtime, handle.workflow_uuid)

    assert (found.code, found.text) == ("error", "Failed with `ValueError`; its own result, nothing is retried.")


async def test_a_pause_after_a_crash(runtime: TestRuntime) -> None:
    handle = await receives(runtime.context)
    await runtime.settled()
    await runtime.execute(
        "update operon.workflows set wait_kind = 4, wait_what = 'its next life', wait_topics = null, crash_count = 2, "
        "wake_at = now() + interval '1 minute', last_error = $1 where workflow_uuid = $2",
        b'{"type": "MemoryError", "module": "builtins", "message": ""}',
        handle.workflow_uuid,
    )

    found = await why(runtime, handle.workflow_uuid)

    assert found.code == "crashed"
    assert "(`MemoryError`), 2 of 5 without progress; restarts at" in found.text


async def test_a_suspended_name(runtime: TestRuntime) -> None:
    since = "now() - interval '3 days'"
    await runtime.execute(f"insert into operon.suspensions (name, since, crashes) values ('gone', {since}, 14)")
    await runtime.execute(
        "insert into operon.workflows (workflow_uuid, name, version, inputs) values ($1, 'gone', '', '{}')", UUID(int=9)
    )

    found = await why(runtime, UUID(int=9))

    assert (found.code, found.text) == ("suspended", "`gone` is suspended for 3 d: 14 workflows crashed.")


async def test_a_name_that_nobody_here_knows(runtime: TestRuntime) -> None:
    number = runtime.executor.incarnation.number
    await until_said(runtime, number, lambda said: "receives" in said.names)
    await runtime.execute(
        "insert into operon.workflows (workflow_uuid, name, version, inputs) values ($1, 'gone', '', '{}')", UUID(int=9)
    )

    found = await why(runtime, UUID(int=9))

    assert found.code == "no_code"


def test_workflows_that_did_not_stop_are_found_in_a_tree() -> None:
    stuck = UUID(int=5)
    workflows = Node("workflows", "running", children=(Node(str(stuck), "zombie"), Node("odd", "zombie")))
    tree = Node("operon", "running", children=(Node("executor-1", "running", children=(workflows,)),))

    assert list(reasons.zombies(tree)) == [stuck]


def test_a_stored_error_that_cannot_be_read_is_an_error() -> None:
    error = reasons.error_of(b"\xff")

    assert error is not None
    assert error.type == "an error"
