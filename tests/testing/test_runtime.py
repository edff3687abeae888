"""The test runtime: whom it calls as, over HTTP and not, and what it leaves behind."""

from __future__ import annotations

import gc
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

import operon
from operon import Authenticated, ConfigurationError, MiddlewareContext, NotAuthorizedError, WorkflowContext
from operon.database import testbed
from operon.database.stock import stock_of
from operon.handles import WorkflowHandle
from operon.testing import TestRuntime


@operon.get("/whoami")
@operon.workflow
async def whoami(ctx: WorkflowContext) -> tuple[str | None, list[str], str]:
    request: dict[str, str] = ctx.request or {}
    return ctx.authenticated_user, sorted(ctx.authenticated_roles), request.get("method", "none")


@operon.required_roles("clerk")
@operon.workflow
async def refund(ctx: WorkflowContext, cents: int) -> str | None:
    return f"{ctx.assumed_role} {cents}"


@operon.transaction
async def double_it(tx: operon.TransactionContext, number: int) -> int:
    return number * 2


@operon.workflow
async def patience(ctx: WorkflowContext) -> float:
    return float(str(ctx.config["patience"]))


async def ada(ctx: MiddlewareContext) -> Authenticated:
    return Authenticated("ada", ["clerk"])


app = operon.Operon(__name__, config={"patience": 1.5})


async def test_a_workflow_is_invoked_as_somebody() -> None:
    async with TestRuntime(__name__) as runtime:
        handle: WorkflowHandle[str | None] = await runtime.invoke(refund, 100, user="ada", roles=["clerk"])

        assert await handle.get_result() == "clerk 100"
        with pytest.raises(NotAuthorizedError):
            await runtime.invoke(refund, 100, user="bob")


async def test_a_step_is_invoked_for_its_value() -> None:
    async with TestRuntime(__name__) as runtime:
        doubled: int = await runtime.invoke(double_it, number=21)

    assert doubled == 42


async def test_what_is_invoked_has_the_identity_and_the_request_that_it_was_given() -> None:
    uuid = uuid4()
    async with TestRuntime(__name__) as runtime:
        handle = await runtime.invoke(whoami, user="ada", request={"method": "PUT"}, workflow_uuid=uuid)
        again = await runtime.invoke(whoami, user="ada", workflow_uuid=str(uuid))

        assert handle.workflow_uuid == again.workflow_uuid == uuid
        assert await again.get_result() == ("ada", [], "PUT")


async def test_the_client_asks_over_http_as_the_authentication_says() -> None:
    async with TestRuntime(__name__, authentication=ada) as runtime:
        answer = await runtime.client.get("/whoami")

        assert await answer.get_json() == ["ada", ["clerk"], "GET"]


async def test_an_application_is_run_as_it_was_made_and_gets_its_settings_back() -> None:
    before = app.settings

    async with TestRuntime(app, poll_seconds=0.25) as runtime:
        handle = await patience(app.context())
        assert await handle.get_result() == 1.5
        assert app.settings.database_url == runtime.database_url
        assert app.settings.poll_seconds == 0.25

    assert app.settings == before


@pytest.mark.parametrize("wrong", [(app, app), (app, __name__)])
def test_a_runtime_runs_one_application(wrong: tuple[operon.Operon | str, ...]) -> None:
    with pytest.raises(ConfigurationError):
        TestRuntime(*wrong)


async def test_a_second_runtime_on_the_same_database_sees_what_the_first_one_did() -> None:
    async with TestRuntime(__name__) as runtime:
        handle = await runtime.invoke(refund, 100, user="ada", roles=["clerk"])
        await handle.get_result()

        async with operon.Operon(__name__, database_url=runtime.database_url) as second:
            earlier = second.context().retrieve_workflow(handle.workflow_uuid)

            assert await earlier.get_result() == "clerk 100"


async def test_the_crashes_may_be_left_in_the_middle() -> None:
    async with TestRuntime(__name__) as runtime:
        async for crash in runtime.crash_everywhere():
            if crash == 1:
                break
        gc.collect()  # and with it the rest of the loop

        doubled = [await runtime.invoke(double_it, number) for number in range(20)]

    assert doubled == [2 * number for number in range(20)]


async def test_each_runtime_has_a_database_of_its_own_which_is_removed(server: str) -> None:
    async with TestRuntime(__name__) as first, TestRuntime(__name__) as second:
        await first.invoke(double_it, 1)
        names = {urlsplit(runtime.database_url).path.strip("/") for runtime in (first, second)}
        assert await second.fetchval("select count(*) from operon.workflows") == 0

    await stock_of(server).rest()
    listed = await testbed.fetch(server, "select datname from pg_database where datname = any ($1)", list(names))
    assert len(names) == 2
    assert listed == []
