"""Promise: a workflow's UUID is an identifier and no key. With `owned=True` that of another user is an unknown one.

That holds for messages and events as for results: the same error, the same words, over HTTP the same answer; inside of
a workflow it is recorded, so every life is told the same.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from quart.typing import TestClientProtocol as HttpClient
from quart.wrappers import Response

import operon
from operon.authorization import Authenticated, MiddlewareContext
from operon.errors import MailboxFull, NonExistentWorkflowError, WorkflowFinishedError
from operon.testing import TestRuntime

USERS = (None, "ada", "Ada", "ada ", "null")


def by_header(ctx: MiddlewareContext) -> Authenticated | None:
    name = ctx.request.headers.get("x-user")
    return None if name is None else Authenticated(name, ())


@operon.workflow
async def box(ctx: operon.WorkflowContext) -> list[Any]:
    await ctx.set_event("ready", ctx.authenticated_user)
    return [await ctx.recv("news"), await ctx.recv("news")]


@operon.workflow
async def over(ctx: operon.WorkflowContext) -> None:
    await ctx.set_event("ready", "over")


@operon.workflow
async def meddle(ctx: operon.WorkflowContext, which: UUID) -> list[str]:
    """Tries everything, and tells what it was told."""
    told: list[str] = []
    try:
        await ctx.send(which, "from me", "news", owned=True, ignore_finished=True)
        told.append("sent")
    except NonExistentWorkflowError as error:
        told.append(error.message)
    try:
        told.append(str(await ctx.get_event(which, "ready", 0, owned=True)))
    except NonExistentWorkflowError as error:
        told.append(error.message)
    ctx.random()
    return told


@operon.required_roles()
@operon.post("/boxes/<uuid:which>")
async def put(ctx: operon.HandlerContext, which: UUID, text: str) -> None:
    await ctx.send(which, text, "news", owned=True)


@operon.required_roles()
@operon.get("/boxes/<uuid:which>")
async def ready(ctx: operon.HandlerContext, which: UUID) -> Any:
    return await ctx.get_event(which, "ready", 0, owned=True)


@pytest.fixture(scope="module")
async def runtime() -> AsyncIterator[TestRuntime]:
    async with TestRuntime(__name__, authentication=by_header, poll_seconds=0.2) as runtime:
        yield runtime


@pytest.fixture
def client(runtime: TestRuntime) -> HttpClient:
    return runtime.app.quart.test_client()


async def started(runtime: TestRuntime, user: str | None) -> UUID:
    """A box of a user, which has said that it is ready."""
    handle = await box(runtime.app.context(user=user))
    assert await runtime.context.get_event(handle.workflow_uuid, "ready") == user
    return handle.workflow_uuid


async def letters(runtime: TestRuntime, which: UUID) -> int:
    """How many messages were ever kept for a workflow, and keys of messages."""
    count: int = await runtime.fetchval(
        "select (select count(*) from operon.notifications where destination = $1)"
        " + (select count(*) from operon.notification_keys where destination = $1)"
        " + (select count(*) from operon.dead_letters where destination = $1)",
        which,
    )
    return count


async def test_over_http_another_user_s_workflow_answers_like_an_unknown_one(
    runtime: TestRuntime, client: HttpClient
) -> None:
    which, nowhere = str(await started(runtime, "ada")), str(uuid4())

    async def ask(method: str, uuid: str, **headers: str) -> Response:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if method == "GET":
            return await client.get(f"/boxes/{uuid}", headers=sent)
        return await client.post(f"/boxes/{uuid}", json={"text": "hello"}, headers=sent)

    for method in ("POST", "GET"):
        theirs, unknown = await ask(method, which, x_user="bob"), await ask(method, nowhere, x_user="bob")
        nobody, own = await ask(method, which), await ask(method, which, x_user="ada")

        assert (theirs.status_code, unknown.status_code, nobody.status_code) == (404, 404, 404)
        problem, same, third = [await answer.get_json() for answer in (theirs, unknown, nobody)]
        for text in ("detail", "title", "code", "hint"):
            assert problem[text].replace(which, nowhere) == same[text]
            assert problem[text] == third[text]
        assert own.status_code in (200, 204)
    await runtime.context.send(which, "the end", "news")
    assert await runtime.context.retrieve_workflow(which).get_result() == ["hello", "the end"]


@pytest.mark.parametrize("owner", USERS)
async def test_only_the_very_same_user_owns_a_workflow(runtime: TestRuntime, owner: str | None) -> None:
    which = await started(runtime, owner)

    for user in USERS:
        ctx = runtime.app.context(user=user)
        if user == owner:
            await ctx.send(which, "mine", "news", owned=True)
            assert await ctx.get_event(which, "ready", 0, owned=True) == owner
            continue
        with pytest.raises(NonExistentWorkflowError):
            await ctx.send(which, "not mine", "news", owned=True)
        with pytest.raises(NonExistentWorkflowError):
            await ctx.get_event(which, "ready", 0, owned=True)

    await runtime.context.send(which, "anybody's", "news")  # without the flag, as webhooks need it
    handle = runtime.context.retrieve_workflow(which)
    assert await handle.get_result() == ["mine", "anybody's"]


async def test_a_refused_message_leaves_nothing_behind(runtime: TestRuntime) -> None:
    which = await started(runtime, "ada")
    ada, bob = runtime.app.context(user="ada"), runtime.app.context(user="bob")

    with pytest.raises(NonExistentWorkflowError):
        await bob.send(which, "stolen", "news", idempotency_key="once", owned=True)
    await ada.send(which, "first", "news", idempotency_key="once", owned=True)
    with pytest.raises(NonExistentWorkflowError):
        await bob.send(which, "stolen", "news", idempotency_key="once", owned=True)
    await ada.send(which, "second", "news", owned=True)

    assert await ada.retrieve_workflow(which, owned=True).get_result() == ["first", "second"]


async def test_a_finished_or_full_workflow_of_another_user_is_unknown_as_well() -> None:
    async with TestRuntime(__name__, mailbox_limit=1) as runtime:
        ada, bob = runtime.app.context(user="ada"), runtime.app.context(user="bob")
        finished = await over(ada)
        await finished.get_result()
        full = await started(runtime, "ada")
        await ada.send(full, 1, "other", owned=True)

        with pytest.raises(WorkflowFinishedError):
            await ada.send(finished.workflow_uuid, "late", owned=True)
        with pytest.raises(MailboxFull):
            await ada.send(full, 2, "other", owned=True)
        for which in (finished.workflow_uuid, full):
            with pytest.raises(NonExistentWorkflowError):
                await bob.send(which, "mine", "other", owned=True, ignore_finished=True)

        assert await letters(runtime, finished.workflow_uuid) == 1  # the owner's, which is a dead letter
        assert await letters(runtime, full) == 1


async def test_what_a_workflow_was_told_of_another_user_s_is_told_again_wherever_it_crashes() -> None:
    async with TestRuntime(__name__) as runtime:
        own = await started(runtime, "bob")
        other = await started(runtime, "ada")
        nowhere = uuid4()
        words = [f"there is no workflow {nowhere} to send to", f"there is no workflow {nowhere}"]

        async for _crash in runtime.crash_everywhere():
            bob = runtime.app.context(user="bob")
            told = {which: await (await meddle(bob, which)).get_result() for which in (own, other, nowhere)}

            assert told[own] == ["sent", "bob"]
            assert told[nowhere] == words
            assert told[other] == [text.replace(str(nowhere), str(other)) for text in words]
            kept = await runtime.fetchval("select count(*) from operon.notifications where destination = $1", other)
            assert kept == 0
