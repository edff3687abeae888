"""`operon start` sends what the OTEL_* variables say, and a trace goes on in another process after `kill -9`."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from operon.database import testbed
from operon.database.stock import stock_of
from operon.testing import with_database
from tests.telemetry.collector import DEADLINE_SECONDS, Collector, collecting

METRICS = {"operon.workflow.restarted", "operon.workflow.live", "operon.step.duration", "operon.commit.size"}
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture
async def database() -> AsyncGenerator[str]:
    url = os.environ.get("OPERON_TEST_DATABASE_URL") or await testbed.embedded_server(Path(".operon/test-postgres"))
    stock = stock_of(url)
    name = await stock.take()
    try:
        yield with_database(url, name)
    finally:
        stock.give_back(name)


@asynccontextmanager
async def started(database: str, life: int, log: Path, **environment: str) -> AsyncGenerator[tuple[int, int]]:
    """`operon start`, killed at the end; its process id and port."""
    with log.open("ab") as errors:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "operon.cli", "start", "tests.telemetry.held:app", "--port", "0"),
            env={**os.environ, "OPERON_DATABASE_URL": database, "LIFE": str(life), **environment},
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
        )
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            line = await process.stdout.readline() if process.stdout else b""
        announced = re.search(rb"http://127\.0\.0\.1:(\d+)", line)
        assert announced is not None, said(log)
        yield process.pid, int(announced[1])
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def exporting(collector: Collector, life: int) -> dict[str, str]:
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
        "OTEL_RESOURCE_ATTRIBUTES": f"life={life}",
        "OTEL_SERVICE_NAME": "the shop",
        "OTEL_BSP_SCHEDULE_DELAY": "50",
        "OTEL_METRIC_EXPORT_INTERVAL": "200",
    }


async def test_a_trace_goes_on_in_another_process_after_kill_9(database: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with collecting() as collector:
        async with started(database, 1, log, **exporting(collector, 1)) as (pid, port):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            traceparent = f"00-{TRACE_ID}-00f067aa0ba902b7-01"
            writer.write(f"POST /work HTTP/1.1\r\nhost: a\r\ntraceparent: {traceparent}\r\n\r\n".encode())
            await collector.until(lambda: bool(collector.named("first")))
            os.kill(pid, 9)
            writer.close()

        async with started(database, 2, log, **exporting(collector, 2)):
            await collector.until(lambda: bool(collector.named("work")) and collector.metrics >= METRICS)

    (first,), (second,), (work,) = map(collector.named, ("first", "second", "work"))
    assert (first.resource["life"], second.resource["life"], work.resource["life"]) == ("1", "2", "2")
    assert {first.trace_id, second.trace_id, work.trace_id} == {TRACE_ID}
    assert second.parent_id == work.span_id
    assert work.resource["service.name"] == "the shop"


async def test_logs_are_json_by_one_setting(database: str, tmp_path: Path) -> None:
    log = tmp_path / "log"

    async with started(database, 2, log, OPERON_LOG_FORMAT="json", OPERON_DIRECT_URL="postgres://a:hunter2@[::1]:1/x"):
        await until_said(log, "does not hear")

    documents = [json.loads(line) for line in log.read_text().splitlines()]
    assert {document["level"] for document in documents} >= {"warning"}
    assert all(document["time"] and document["logger"] and document["message"] for document in documents)
    assert "hunter2" not in log.read_text()


def said(log: Path) -> str:
    return log.read_text()


async def until_said(log: Path, words: str) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while words not in said(log):  # noqa: ASYNC110 - a file rings no bell
            await asyncio.sleep(0.01)


async def test_an_exporter_that_is_not_installed_is_said_at_once(database: str, tmp_path: Path) -> None:
    log = tmp_path / "log"

    with pytest.raises(AssertionError, match="there is no exporter 'nonesuch' for traces"):
        async with started(database, 2, log, OTEL_TRACES_EXPORTER="nonesuch"):
            pass
