"""A canary in masked arguments, headers and addresses sings in no span, no metric and no log."""

from __future__ import annotations

import asyncio
from urllib.parse import quote

import pytest

from operon.testing import TestRuntime
from tests.http.conftest import served
from tests.telemetry import shop
from tests.telemetry.conftest import Seen, attributes_of
from tests.telemetry.test_logs import Log, log

__all__ = ["log"]

CANARY = shop.CANARY
HEADERS = {
    "authorization": f"Bearer {CANARY}",
    "cookie": f"session={CANARY}",
    "x-api-key": CANARY,
    "operon-workflowuuid": "0197a2f3-0000-7000-8000-000000000001",
}


def told(seen: Seen) -> str:
    """Everything that was exported, as text."""
    return "\n".join([*(span.to_json() for span in seen.spans), seen.metrics])


@pytest.mark.parametrize("format", ["text", "json"])
async def test_a_masked_argument_is_told_to_nobody(runtime: TestRuntime, seen: Seen, log: Log, format: str) -> None:
    log.format(format)
    client = runtime.app.quart.test_client()

    await client.post(f"/orders/A1?token={CANARY}", headers=HEADERS)
    answer = await client.post(f"/declined/{CANARY}")
    await client.get(f"/broken?card={CANARY}")
    await runtime.restart()

    assert answer.status_code == 402
    assert {span.name for span in seen.spans} >= {"declined", "decline", "charge", "GET /broken"}
    assert "http.server.request.duration" in told(seen)
    assert CANARY not in told(seen)
    assert "about to charge ***" in log.text  # it was said, without it
    assert "declining ***" in log.text
    assert "broken by ***" in log.text
    assert CANARY not in log.text
    assert "hunter2" not in told(seen) + log.text
    assert attributes_of(seen.one("POST /declined/<card>"))["url.path"] == "/declined/<card>"


async def test_what_a_step_masks_its_workflow_masks_in_every_life(runtime: TestRuntime, seen: Seen) -> None:
    handle = await shop.careless(runtime.context, CANARY)
    await shop.gates["careless"].reached.wait()

    await runtime.crash()  # from now on the step is replayed, and its argument has to be hidden all the same
    shop.gates["careless"].open()
    with pytest.raises(RuntimeError, match=CANARY):
        await runtime.context.retrieve_workflow(handle.workflow_uuid).get_result()
    await runtime.restart()

    failed = seen.named("careless")[-1]
    assert failed.status.description == "RuntimeError: no luck with ***"
    assert CANARY not in told(seen)


async def test_without_a_tracer_the_log_keeps_quiet_too(log: Log) -> None:
    async with TestRuntime(shop) as runtime:
        client = runtime.app.quart.test_client()

        await client.post(f"/declined/{CANARY}")
        await client.get(f"/broken?card={CANARY}")

    assert "declining ***" in log.text
    assert CANARY not in log.text


async def test_the_canary_keeps_quiet_over_a_real_server(runtime: TestRuntime, seen: Seen, log: Log) -> None:
    async with served(runtime.app.quart) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        head = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
        writer.write(f"POST /declined/{quote(CANARY)} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{head}\r\n".encode())
        await reader.read()
        writer.close()

    assert attributes_of(seen.one("POST /declined/<card>"))["client.address"] == "127.0.0.1"
    assert CANARY not in told(seen) + log.text
