"""What is counted and measured."""

from __future__ import annotations

import pytest

from operon.testing import TestRuntime
from tests.telemetry import shop
from tests.telemetry.conftest import Seen
from tests.telemetry.test_traces import until_parked


async def test_starts_ends_failures_and_restarts_are_counted(runtime: TestRuntime, seen: Seen) -> None:
    await (await shop.order(runtime.context, "A1")).get_result()
    with pytest.raises(shop.Declined):
        await (await shop.declined(runtime.context, "1234")).get_result()
    held = await shop.held(runtime.context, "gate")
    await shop.gates["gate"].reached.wait()
    await runtime.crash()
    shop.gates["gate"].open()
    await runtime.context.retrieve_workflow(held.workflow_uuid).get_result()
    await runtime.restart()

    assert {
        name: seen.counted("operon.workflow.started", operon_operation_name=name)
        for name in ("order", "ship", "declined", "held")
    } == {"order": 1, "ship": 1, "declined": 1, "held": 1}
    assert seen.counted("operon.workflow.completed") == 3
    assert seen.counted("operon.workflow.completed", operon_operation_name="held") == 1
    assert seen.counted("operon.workflow.failed", operon_workflow_status="ERROR") == 1
    assert seen.counted("operon.workflow.restarted", operon_operation_name="held") == 1
    assert seen.counted("operon.workflow.restarted") == 1


async def test_steps_and_commits_are_measured(runtime: TestRuntime, seen: Seen) -> None:
    await (await shop.order(runtime.context, "A1")).get_result()
    with pytest.raises(shop.Declined):
        await shop.decline(runtime.context, "1234")
    await runtime.restart()

    assert seen.counted("operon.step.duration", operon_operation_name="reserve") == 1
    assert seen.counted("operon.step.duration", operon_operation_kind="result") == 1
    assert seen.counted("operon.step.duration", error_type="tests.telemetry.shop.Declined") == 1
    (size,) = seen.points("operon.commit.size")
    (duration,) = seen.points("operon.commit.duration")
    rows = await runtime.fetchval("select (select count(*) from operon.workflows) + count(*) from operon.checkpoints")
    assert size.count == duration.count > 0
    assert size.sum >= rows - 2  # but for those of transactions, which commit by themselves
    assert 0 < duration.sum < 60


async def test_what_lives_and_what_is_parked_are_gauges(seen: Seen) -> None:
    async with TestRuntime(shop, meter_provider=seen.meters, park_after_seconds=0) as runtime:
        handle = await shop.buyer(runtime.context)
        await until_parked(runtime)
        (parked,) = seen.points("operon.workflow.parked")
        held = await shop.held(runtime.context, "gate")
        await shop.gates["gate"].reached.wait()
        (live,) = seen.points("operon.workflow.live")

        shop.gates["gate"].open()
        await held.get_result()
        await runtime.context.send(handle.workflow_uuid, "coins", shop.PAYMENT)
        await handle.get_result()
        (none_parked,) = seen.points("operon.workflow.parked")

        assert (live.value, parked.value, none_parked.value) == (1, 1, 0)
        while not seen.points("operon.notify.latency"):  # the first ping
            await runtime.execute("select 1")
        assert seen.points("operon.notify.latency")[0].value > 0
        assert seen.points("operon.mailbox.depth")[0].sum == 1
    assert [point.value for point in seen.points("operon.workflow.live")] == [0]


async def test_requests_are_measured_as_the_conventions_say(runtime: TestRuntime, seen: Seen) -> None:
    await runtime.app.quart.test_client().get("/hello")

    (point,) = seen.points("http.server.request.duration")
    assert dict(point.attributes) == {
        "http.request.method": "GET",
        "http.route": "/hello",
        "http.response.status_code": 200,
        "url.scheme": "http",
        "network.protocol.version": "1.1",
    }


async def test_metrics_alone_make_no_spans(seen: Seen) -> None:
    async with TestRuntime(shop, meter_provider=seen.meters) as runtime:
        await (await shop.order(runtime.context, "A1")).get_result()

        assert await runtime.fetchval("select count(traceparent) from operon.workflows") == 0
        assert seen.counted("operon.workflow.started") == 2
    assert seen.spans == ()


async def test_what_happens_to_executors_is_counted(runtime: TestRuntime, seen: Seen) -> None:
    await runtime.crash()

    assert seen.counted("operon.supervision.events", operon_supervision_event="started") == 2
    assert seen.counted("operon.supervision.events", operon_supervision_event="fenced") == 1
