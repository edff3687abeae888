"""The greeting: counted when it is delivered, and only then."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest

from examples import hello
from operon.testing import TestRuntime


@pytest.fixture
async def runtime() -> AsyncGenerator[TestRuntime]:
    async with TestRuntime(hello) as runtime:
        yield runtime


async def test_greetings_are_counted(runtime: TestRuntime) -> None:
    client = runtime.app.quart.test_client()

    await client.get("/greeting/Ada")
    answer = await client.get("/greeting/Ada")

    assert answer.status_code == 200
    assert await answer.get_data(as_text=True) == "Hello, Ada! You have been greeted 2 times."


async def test_a_greeting_that_is_not_delivered_is_not_counted(runtime: TestRuntime) -> None:
    handle = await hello.greet(runtime.context, "Nobody")

    assert await handle.get_result() == "The greeting for Nobody came back."
    assert await runtime.fetchval("select greeted from greetings where name = 'Nobody'") == 0


@pytest.mark.parametrize(("name", "counted"), [("Ada", 1), ("Nobody", 0)])
async def test_the_count_is_right_wherever_it_crashes(runtime: TestRuntime, name: str, counted: int) -> None:
    async for _crash in runtime.crash_everywhere():
        handle = await hello.greet(runtime.context, name)
        await handle.get_result()

        assert await runtime.fetchval("select greeted from greetings where name = $1", name) == counted
