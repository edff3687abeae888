"""The market: stalls that break down are opened again, those of a process that was killed go on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from examples import market
from operon.testing import TestRuntime
from tests.examples.served import Served, served


async def until_left(left: Callable[[], Awaitable[Any]], count: int) -> None:
    """Waits until so many are left: an order is durable before it is worked off."""
    async with asyncio.timeout(60):
        while await left() != count:  # noqa: ASYNC110 - over HTTP no bell rings
            await asyncio.sleep(0.02)


async def test_a_stall_that_breaks_down_is_opened_again() -> None:
    async with TestRuntime(market) as runtime:
        client = runtime.app.quart.test_client()

        async def left() -> Any:
            return await (await client.get("/market/apples")).get_json()

        opened = [(await client.post("/market")).status_code for _ in range(2)]
        await client.post("/market/apples", json={"count": 3})
        await until_left(left, 7)
        await client.post("/market/apples", json={"count": 100})
        await until_left(left, 10)
        unknown = await client.get("/market/plums")

        assert opened == [204, 204]
        assert unknown.status_code == 404
        assert await runtime.fetchval("select count(*) from operon.workflows where name = 'stall'") == 3
        await runtime.context.retrieve_workflow(market.MARKET).cancel()


@pytest.mark.long
async def test_the_stalls_of_a_server_that_was_killed_go_on(tmp_path: Path, database_url: str) -> None:
    environment = {"OPERON_DATABASE_URL": database_url}

    async def left(server: Served) -> Any:
        return (await server.get("/market/apples")).value

    async with served("examples.market:app", tmp_path, environment=environment) as server:
        await server.post("/market", {})
        await server.post("/market/apples", {"count": 3})
        await until_left(lambda: left(server), 7)
        await server.kill()

    async with served("examples.market:app", tmp_path, environment=environment) as server:
        assert (await server.post("/market", {})).status == 204
        await server.post("/market/apples", {"count": 2})
        await until_left(lambda: left(server), 5)
        await server.post("/market/apples", {"count": 6})
        await until_left(lambda: left(server), 10)
