"""Why is it not running: however many workflows wait and have ended, asking about one reads a few rows, by indexes."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

import operon
from operon.database import reasons, supervision
from operon.testing import TestRuntime
from tests.supervision.facts import until_why
from tests.supervision.stage import STAGE, Stage, label

PAGES_MAX = 6_000  # of 8 kB each

FILL = """
insert into operon.workflows (
    workflow_uuid, name, version, inputs, owner, wait_kind, wait_what, wait_topics, wait_since
)
select gen_random_uuid(), 'pays', '', '{{}}', 1, 0, 'recv gate', '{{gate}}', now() from generate_series(1, {count});
insert into operon.checkpoints (workflow_uuid, step, kind, name, output, started_at, completed_at)
select w.workflow_uuid, 0, 1, 'label', 'null', now() - interval '10 ms', now() from operon.workflows w;
insert into operon.waits (target, waiter, key) select w.workflow_uuid, w.workflow_uuid, 'never' from operon.workflows w;
insert into operon.dead_letters (destination, sequence, sent_at, topic, body, reason)
select w.workflow_uuid, 1, now(), 'gate', '1', 'poison' from operon.workflows w;
analyze
"""


@operon.workflow
async def pays(ctx: operon.WorkflowContext) -> None:
    await label(ctx)


@pytest.mark.parametrize("count", [50_000, pytest.param(1_000_000, marks=pytest.mark.long)])
async def test_asking_about_one_of_many_reads_a_few_pages(count: int) -> None:
    STAGE.append(Stage())
    async with TestRuntime(__name__, check_replay=False, poll_seconds=3600) as runtime:
        for statement in FILL.format(count=count).split(";\n"):
            await runtime.execute(statement)
        some = await runtime.fetchval("select workflow_uuid from operon.workflows limit 1")
        handle = await pays(runtime.context)
        await STAGE[-1].called.wait()

        async with runtime.executor.look_ups.connection() as connection:
            read = {
                "subjects": await pages(connection, supervision.SQL["subjects"], [some]),
                "chain": await pages(connection, reasons.SQL["chain"], some, reasons.CIRCLE_MAX),
                "usual": await pages(connection, reasons.SQL["usual"], some, "pays", 0, "label", reasons.USUAL_AMONG),
                "set_aside": await pages(connection, reasons.SQL["set_aside"], some, ["gate"], reasons.SET_ASIDE_MAX),
            }
        parked = await until_why(runtime, some, "recv_aside")
        found = await until_why(runtime, handle.workflow_uuid, "running_long")
        STAGE[-1].may_return.set()

        assert {name: count for name, count in read.items() if count > PAGES_MAX} == {}
        assert "1 message on `gate` was set aside as a dead letter." in parked["text"]
        assert "; 99 % of 500 take less than 10 ms." in found["text"]


async def pages(connection: Any, statement: str, *arguments: Any) -> int:
    """How many pages a statement looks at, by the server's own count."""
    text = f"explain (analyze, buffers, format json) {statement}"
    (plan,) = msgspec.json.decode(await connection.fetchval(text, *arguments))
    return int(plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"])
