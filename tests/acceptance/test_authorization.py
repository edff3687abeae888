"""Who asks is known from the request to the last step, and in every life of the workflow."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from quart.typing import TestClientProtocol as HttpClient

import operon
from operon.authorization import Authenticated, MiddlewareContext
from operon.contexts import CommunicatorContext, HandlerContext, InitializerContext, TransactionContext, WorkflowContext
from operon.errors import NonExistentWorkflowError, NotAuthorizedError, WorkflowConflictError
from operon.testing import TestRuntime
from tests.acceptance.gates import Gates

calls: Counter[str] = Counter()
gates = Gates()


@operon.initializer
async def tables(ctx: InitializerContext) -> None:
    await ctx.client.execute("create table if not exists members (token text primary key, name text, roles text[])")
    await ctx.client.execute("create sequence if not exists numbers")
    await ctx.client.execute(
        "insert into members values ('t-ada', 'ada', '{clerk,admin}'), ('t-bob', 'bob', '{clerk}'),"
        " ('t-eve', 'eve', '{}') on conflict do nothing"
    )


async def member(ctx: MiddlewareContext) -> Authenticated | None:
    token = ctx.request.headers.get("authorization", "").removeprefix("Bearer ")
    if not token:
        return None
    rows = await ctx.query("select name, roles from members where token = $1", token)
    if not rows:
        raise NotAuthorizedError("nobody has this token", status=401)
    return Authenticated(rows[0]["name"], rows[0]["roles"])


def bearer(name: str, **headers: str) -> dict[str, str]:
    return {"authorization": f"Bearer t-{name}", **{key.replace("_", "-"): value for key, value in headers.items()}}


def seen(ctx: Any) -> list[Any]:
    return [ctx.authenticated_user, list(ctx.authenticated_roles), ctx.assumed_role]


@operon.required_roles("admin")
@operon.transaction
async def audit(tx: TransactionContext, text: str) -> list[Any]:
    calls[text] += 1
    return seen(tx)


@operon.required_roles("auditor", "clerk")
@operon.communicator
async def charge(ctx: CommunicatorContext, gate: str | None = None) -> list[Any]:
    if gate is not None:
        await gates[gate].pass_()
    return seen(ctx)


@operon.transaction
async def plain(tx: TransactionContext) -> list[Any]:
    return seen(tx)


@operon.required_roles("admin")
@operon.workflow
async def child(ctx: WorkflowContext, gate: str | None = None) -> list[Any]:
    if gate is not None:
        await charge(ctx, gate)
    return seen(ctx)


@operon.post("/orders")
@operon.workflow
async def order(ctx: WorkflowContext, text: str = "", gate: str | None = None) -> dict[str, Any]:
    charged = await charge(ctx, gate)
    return {
        "workflow": seen(ctx),
        "plain": await plain(ctx),
        "charged": charged,
        "audited": await audit(ctx, text),
        "child": await (await child(ctx)).get_result(),
    }


@operon.workflow
async def waits(ctx: WorkflowContext) -> list[Any]:
    await ctx.recv("go")
    return await audit(ctx, "parked")


async def or_refused(call: Coroutine[Any, Any, list[Any]]) -> list[Any]:
    try:
        return await call
    except NotAuthorizedError:
        return ["refused"]


@operon.post("/tries")
@operon.workflow
async def tries(ctx: WorkflowContext) -> list[Any]:
    """Is refused between two steps, alone and among others, and goes on."""
    answers: list[Any] = [ctx.random(), await plain(ctx)]
    try:
        await audit(ctx, "refused")
    except NotAuthorizedError as error:
        answers.append(str(error.status))
    answers.extend(await asyncio.gather(plain(ctx), or_refused(audit(ctx, "refused")), charge(ctx)))
    try:
        await child(ctx)
    except NotAuthorizedError as error:
        answers.append(error.message)
    return [*answers, await charge(ctx), ctx.random()]


@operon.get("/results/<uuid:which>")
async def result(ctx: HandlerContext, which: UUID) -> Any:
    return await ctx.retrieve_workflow(which, owned=True).get_result()


@operon.get("/any-results/<uuid:which>")
async def any_result(ctx: HandlerContext, which: UUID) -> Any:
    return await ctx.retrieve_workflow(which).get_result()


@operon.workflow
async def looks(ctx: WorkflowContext, which: UUID) -> list[Any]:
    handle = ctx.retrieve_workflow(which, owned=True)
    status = await handle.get_status()
    try:
        found = await handle.get_result()
    except NonExistentWorkflowError:
        found = "unknown"
    return [None if status is None else status.authenticated_user, found]


@operon.get("/look")
@operon.required_roles()
async def look(ctx: HandlerContext) -> list[Any]:
    return seen(ctx)


@operon.default_required_roles("clerk")
class Desk:
    @operon.get("/desk")
    @staticmethod
    async def page(ctx: HandlerContext) -> list[Any]:
        return seen(ctx)

    @operon.required_roles()
    @operon.get("/desk/help")
    @staticmethod
    async def help(ctx: HandlerContext) -> str:
        return "anybody"


@pytest.fixture(scope="module")
async def runtime() -> AsyncIterator[TestRuntime]:
    async with TestRuntime(__name__, Desk, authentication=member, poll_seconds=0.2) as runtime:
        yield runtime


@pytest.fixture
def client(runtime: TestRuntime) -> HttpClient:
    return runtime.app.quart.test_client()


async def test_the_database_says_who_asks_401_403_and_after_they_were_registered_200(
    runtime: TestRuntime, client: HttpClient
) -> None:
    unknown = await client.post("/orders", json={})
    stranger = await client.post("/orders", json={}, headers=bearer("zoe"))
    await runtime.execute("insert into members values ('t-zoe', 'zoe', '{guest}')")
    guest = await client.get("/desk", headers=bearer("zoe"))
    await runtime.execute("update members set roles = '{clerk}' where name = 'zoe'")
    clerk = await client.get("/desk", headers=bearer("zoe"))

    assert [answer.status_code for answer in (unknown, stranger, guest, clerk)] == [401, 401, 403, 200]
    assert await clerk.get_json() == ["zoe", ["clerk"], "clerk"]


async def test_a_class_s_role_holds_for_its_functions_unless_one_is_opened(client: HttpClient) -> None:
    answers = [
        await client.get(path, headers=headers)
        for path in ("/desk", "/desk/help")
        for headers in ({}, bearer("eve"), bearer("bob"))
    ]

    assert [answer.status_code for answer in answers] == [401, 403, 200, 200, 200, 200]


async def test_user_and_roles_reach_every_step_with_the_role_that_it_assumed(client: HttpClient) -> None:
    answer = await client.post("/orders", json={}, headers=bearer("ada"))

    ada = ["ada", ["clerk", "admin"]]
    assert await answer.get_json() == {
        "workflow": [*ada, None],
        "plain": [*ada, None],
        "charged": [*ada, "clerk"],
        "audited": [*ada, "admin"],
        "child": [*ada, "admin"],
    }


async def test_a_step_that_the_caller_may_not_run_does_not_run_and_fails_the_workflow_with_403(
    runtime: TestRuntime, client: HttpClient
) -> None:
    answer = await client.post("/orders", json={"text": "never"}, headers=bearer("bob"))

    problem = await answer.get_json()
    assert (answer.status_code, problem["code"]) == (403, "not_authorized")
    assert problem["detail"] == "audit requires one of these roles: admin"
    assert calls["never"] == 0


async def test_a_call_from_a_script_is_checked_like_a_request(runtime: TestRuntime) -> None:
    admin = runtime.app.context(user="ada", roles=("admin",))

    assert await audit(admin, "direct") == ["ada", ["admin"], "admin"]
    for user, status in (("bob", 403), (None, 401)):
        with pytest.raises(NotAuthorizedError, match=r"^audit requires") as refused:
            await audit(runtime.app.context(user=user), "refused")
        assert refused.value.status == status
    with pytest.raises(NotAuthorizedError, match="child requires one of these roles: admin"):
        await child(runtime.app.context(user="bob"))
    assert calls["refused"] == 0


async def test_roles_without_a_user_are_enough_and_survive_too(runtime: TestRuntime) -> None:
    service = runtime.app.context(roles=("clerk", "admin"))

    handle = await child(service, gate="service")
    await gates["service"].reached.wait()
    await runtime.crash()
    gates["service"].open()

    assert await handle.get_result() == [None, ["clerk", "admin"], "admin"]


async def test_a_refusal_in_a_workflow_is_the_same_when_it_is_given_again(runtime: TestRuntime) -> None:
    for who, status in ((runtime.context, 401), (runtime.app.context(user="bob"), 403)):
        handle = await order(who)
        with pytest.raises(NotAuthorizedError) as first:
            await handle.get_result()

        with pytest.raises(NotAuthorizedError) as again:
            await runtime.context.retrieve_workflow(handle.workflow_uuid).get_result()
        assert first.value.status == again.value.status == status
        assert (first.value.message, first.value.challenge) == (again.value.message, again.value.challenge)


@pytest.mark.parametrize("user", ["", "a\0b", 7])
async def test_a_user_that_cannot_be_stored_is_refused_before_anything_starts(runtime: TestRuntime, user: Any) -> None:
    with pytest.raises(operon.InvocationError):
        runtime.app.context(user=user)


async def test_user_roles_and_assumed_role_are_stored_and_restored_after_a_crash(
    runtime: TestRuntime, client: HttpClient
) -> None:
    admin = runtime.app.context(user="ada", roles=("admin", "clerk"))
    key = uuid4()
    before = asyncio.create_task(
        client.post("/orders", json={"gate": "crash"}, headers=bearer("ada", operon_workflowuuid=str(key)))
    )
    alone = asyncio.create_task(charge(admin.using(workflow_uuid=uuid4()), "alone"))
    await gates["crash"].reached.wait()
    await gates["alone"].reached.wait()

    await runtime.crash()
    gates["crash"].open()
    gates["alone"].open()
    answer = await before

    status = await runtime.context.retrieve_workflow(key).get_status()
    assert status is not None
    assert status.attempts > 1
    assert (status.authenticated_user, status.authenticated_roles) == ("ada", ("clerk", "admin"))
    assert (await answer.get_json())["audited"] == ["ada", ["clerk", "admin"], "admin"]
    assert await alone == ["ada", ["admin", "clerk"], "clerk"]


async def test_a_workflow_that_was_parked_comes_back_with_its_user_s_roles() -> None:
    async with TestRuntime(__name__, Desk, authentication=member, park_after_seconds=0) as runtime:
        ada, bob = runtime.app.context(user="ada", roles=("admin",)), runtime.app.context(user="bob")
        allowed, refused = await waits(ada), await waits(bob)
        async with asyncio.timeout(60):
            while runtime.executor.incarnation.live:
                await runtime.fetchval("select 1")

        await bob.send(allowed.workflow_uuid, None, "go")
        await ada.send(refused.workflow_uuid, None, "go")

        assert await allowed.get_result() == ["ada", ["admin"], "admin"]
        with pytest.raises(NotAuthorizedError):
            await refused.get_result()


async def test_a_refused_step_takes_no_number_wherever_the_workflow_crashes() -> None:
    async with TestRuntime(__name__, Desk, authentication=member) as runtime:
        lives = 0
        async for _crash in runtime.crash_everywhere():
            handle = await tries(runtime.app.context(user="bob", roles=("clerk",)))

            answers = await handle.get_result()
            assert answers[1:-1] == [
                ["bob", ["clerk"], None],
                "403",
                *(["bob", ["clerk"], None], ["refused"], ["bob", ["clerk"], "clerk"]),
                "child requires one of these roles: admin",
                ["bob", ["clerk"], "clerk"],
            ]
            steps = await runtime.fetch("select step from operon.checkpoints where step >= 0 order by step")
            assert [row[0] for row in steps] == list(range(6))
            lives += 1

        assert lives > 5
        assert calls["refused"] == 0


async def test_another_user_s_uuid_is_409_that_tells_nothing_whether_it_runs_or_is_finished(
    runtime: TestRuntime, client: HttpClient
) -> None:
    key = str(uuid4())
    body = {"text": "hidden", "gate": "conflict"}
    running = asyncio.create_task(client.post("/orders", json=body, headers=bearer("ada", operon_workflowuuid=key)))
    await gates["conflict"].reached.wait()

    during = await client.post("/orders", json={}, headers=bearer("bob", operon_workflowuuid=key))
    gates["conflict"].open()
    await running
    after = await client.post("/orders", json={}, headers=bearer("bob", operon_workflowuuid=key))
    by_key = await client.post("/orders", json={}, headers=bearer("bob", idempotency_key=key))

    for answer in (during, after, by_key):
        text = await answer.get_data(as_text=True)
        problem = await answer.get_json()
        assert (answer.status_code, problem["code"]) == (409, "workflow_conflict")
        assert problem["detail"] == f"'order' cannot be started as {key}: that UUID is in use"
        assert not re.search(r"\bada\b", text)  # not in the middle of a UUID
        assert "hidden" not in text
    with pytest.raises(WorkflowConflictError):
        await order(runtime.app.context(user="bob", workflow_uuid=key))


async def test_the_same_idempotency_key_of_two_users_is_two_workflows(client: HttpClient) -> None:
    ada, bob, again = [
        await client.post("/tries", json={}, headers=bearer(who, idempotency_key="my order"))
        for who in ("ada", "bob", "ada")
    ]

    assert ada.headers["operon-workflowuuid"] == again.headers["operon-workflowuuid"]
    assert ada.headers["operon-workflowuuid"] != bob.headers["operon-workflowuuid"]
    assert await ada.get_json() == await again.get_json()
    assert (await bob.get_json())[1][0] == "bob"


async def test_another_user_s_workflow_is_unknown_to_who_asks_for_their_own(
    runtime: TestRuntime, client: HttpClient
) -> None:
    mine = await client.post("/tries", json={}, headers=bearer("ada"))
    uuid, nowhere = mine.headers["operon-workflowuuid"], str(uuid4())

    owner = await client.get(f"/results/{uuid}", headers=bearer("ada"))
    other = await client.get(f"/results/{uuid}", headers=bearer("bob"))
    unknown = await client.get(f"/results/{nowhere}", headers=bearer("bob"))
    service = await client.get(f"/any-results/{uuid}", headers=bearer("bob"))

    assert await owner.get_json() == await mine.get_json() == await service.get_json()
    assert (other.status_code, unknown.status_code) == (404, 404)
    problem, same = await other.get_json(), await unknown.get_json()
    assert problem["detail"].replace(uuid, nowhere) == same["detail"]
    assert (problem["code"], problem["hint"]) == (same["code"], same["hint"])
    bob = runtime.app.context(user="bob").retrieve_workflow(uuid, owned=True)
    assert await bob.get_status() is None
    with pytest.raises(NonExistentWorkflowError):
        await runtime.context.retrieve_workflow(uuid, owned=True).get_result()


async def test_a_running_workflow_of_another_user_is_unknown_as_well(runtime: TestRuntime) -> None:
    ada = runtime.app.context(user="ada", roles=("clerk", "admin"))
    handle = await order(ada, gate="running")
    await gates["running"].reached.wait()

    with pytest.raises(NonExistentWorkflowError):
        await runtime.app.context(user="bob").retrieve_workflow(handle.workflow_uuid, owned=True).get_result()
    gates["running"].open()

    mine = ada.retrieve_workflow(handle.workflow_uuid, owned=True)
    assert (await mine.get_result())["workflow"][0] == "ada"


async def test_what_a_workflow_was_told_of_its_user_s_own_workflows_is_told_again_after_a_crash() -> None:
    async with TestRuntime(__name__, Desk, authentication=member) as runtime:
        ada, bob = runtime.app.context(user="ada"), runtime.app.context(user="bob")
        finished = await looks(ada, uuid4())
        assert await finished.get_result() == [None, "unknown"]

        async for _crash in runtime.crash_everywhere():
            own = await looks(runtime.app.context(user="ada"), finished.workflow_uuid)
            other = await looks(runtime.app.context(user="bob"), finished.workflow_uuid)

            assert await own.get_result() == ["ada", [None, "unknown"]]
            assert await other.get_result() == [None, "unknown"]
        assert ada.authenticated_user != bob.authenticated_user


async def test_no_credential_is_stored_with_a_workflow_or_a_step(runtime: TestRuntime, client: HttpClient) -> None:
    headers = bearer("ada", cookie="session=hunter2", proxy_authorization="Basic hunter2", x_api_key="hunter2")

    answer = await client.post("/tries?token=hunter2", json={}, headers=headers)

    assert answer.status_code == 200
    for table in ("workflows", "checkpoints"):
        payloads = "concat_ws(' ', convert_from(output, 'UTF8'), convert_from(error, 'UTF8'))"
        if table == "workflows":
            payloads += " || convert_from(inputs, 'UTF8') || coalesce(convert_from(request, 'UTF8'), '')"
        found = await runtime.fetch(f"select {payloads} || t::text from operon.{table} t")
        assert found
        assert not [row[0] for row in found if "hunter2" in row[0] or "t-ada" in row[0]]


async def test_an_authentication_function_cannot_write(runtime: TestRuntime) -> None:
    query = runtime.executor.query

    rows = await query("select name, roles from members where token = $1", "t-ada")
    for statement in (
        "insert into members values ('t-x', 'x', '{}')",
        "with written as (delete from members returning 1) select count(*) from written",
        "select nextval('numbers')",
        "create table stolen (a int)",
    ):
        with pytest.raises(operon.InvocationError, match="only reads"):
            await query(statement)
    for statement in ("commit", "rollback; delete from members", "begin"):
        with pytest.raises((operon.InvocationError, asyncpg.PostgresError)):
            await query(statement)

    assert [dict(row) for row in rows] == [{"name": "ada", "roles": ["clerk", "admin"]}]
    assert await query("select count(*) as members from members where token = 't-ada'") == [
        operon.Row(("members",), (1,))
    ]


async def test_what_a_query_sets_is_gone_with_it(runtime: TestRuntime) -> None:
    query = runtime.executor.query

    await query("select set_config('application_name', 'somebody else', false)")
    names = [row[0] for _ in range(4) for row in await query("select current_setting('application_name')")]

    assert set(names) == {"operon"}


async def test_the_quart_app_stays_the_same_over_a_restart_with_what_was_added_to_it() -> None:
    async with TestRuntime(__name__, Desk, authentication=member) as runtime:
        quart = runtime.app.quart

        @quart.get("/mine")
        async def mine() -> str:  # pyright: ignore[reportUnusedFunction]
            started = await tries(runtime.app.context(user="mine", roles=("clerk",)))
            return str((await started.get_result())[1])

        first = await quart.test_client().get("/mine")
        await runtime.restart()
        second = await quart.test_client().get("/mine")
        ours = await runtime.app.quart.test_client().post("/tries", json={}, headers=bearer("bob"))

        assert runtime.app.quart is quart
        assert [answer.status_code for answer in (first, second, ours)] == [200, 200, 200]
