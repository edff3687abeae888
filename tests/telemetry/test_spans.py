"""Each thing that a workflow does is a span below what did it; what is replayed is none."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.trace import SpanKind, StatusCode

import operon
from operon.testing import TestRuntime
from tests.telemetry import shop
from tests.telemetry.conftest import Seen, attributes_of, ids, parent_of


async def test_every_step_is_a_span_below_its_workflow(runtime: TestRuntime, seen: Seen) -> None:
    await (await shop.order(runtime.context, "A1")).get_result()
    await runtime.restart()  # everything has ended

    order = seen.one("order")
    below = {span.name: span for span in seen.spans if parent_of(span) == ids(order)[1]}
    assert set(below) == {"reserve", "charge", "sql SELECT", "set_event status", "start ship"}
    assert parent_of(seen.one("ship")) == ids(below["start ship"])[1]
    assert parent_of(order) == ids(seen.one("start order"))[1]
    assert len({ids(span)[0] for span in seen.spans}) == 1
    assert attributes_of(below["charge"])["operon.step"] == 1
    assert attributes_of(below["reserve"])["db.system.name"] == "postgresql"
    assert below["start ship"].kind is SpanKind.PRODUCER


async def test_the_span_of_a_context_is_the_one_of_its_operation(runtime: TestRuntime, seen: Seen) -> None:
    await (await shop.order(runtime.context, "A1")).get_result()
    with pytest.raises(shop.Declined):
        await shop.decline(runtime.context, "1234")
    await runtime.restart()

    for name in ("order", "reserve", "charge", "decline"):  # the last one runs in a thread
        assert ids(shop.current[name]) == ids(seen.one(name))


async def test_a_single_step_is_one_span_and_no_workflow(runtime: TestRuntime, seen: Seen) -> None:
    await shop.reserve(runtime.context, "A1")
    await runtime.restart()

    assert [span.name for span in seen.spans] == ["start reserve", "reserve"]
    assert parent_of(seen.one("reserve")) == ids(seen.one("start reserve"))[1]


async def test_errors_are_on_the_span_of_the_step_and_of_the_workflow(runtime: TestRuntime, seen: Seen) -> None:
    handle = await shop.declined(runtime.context, "1234")
    with pytest.raises(shop.Declined):
        await handle.get_result()
    await runtime.restart()

    for name in ("decline", "declined"):
        span = seen.one(name)
        (event,) = span.events
        attributes: dict[str, Any] = dict(event.attributes or {})
        assert span.status.status_code is StatusCode.ERROR
        assert attributes_of(span)["error.type"] == "tests.telemetry.shop.Declined"
        assert event.name == "exception"
        assert attributes["exception.type"] == "tests.telemetry.shop.Declined"
        assert attributes["exception.message"] == "*** is declined"
    # Of the step, the traceback is where it was raised, not where its record was read.
    stack = dict(seen.one("decline").events[0].attributes or {})["exception.stacktrace"]
    assert "in decline" in str(stack)
    assert attributes_of(seen.one("declined"))["operon.workflow.status"] == "ERROR"


async def test_failed_attempts_are_events_of_one_span(runtime: TestRuntime, seen: Seen) -> None:
    await shop.flaky(runtime.context)
    await runtime.restart()

    span = seen.one("flaky")
    assert [dict(event.attributes or {})["operon.attempt"] for event in span.events] == [1, 2]
    assert span.status.status_code is StatusCode.UNSET


async def test_replayed_steps_have_no_spans(runtime: TestRuntime, seen: Seen) -> None:
    handle = await shop.held(runtime.context, "gate")
    await shop.gates["gate"].reached.wait()

    await runtime.crash()
    shop.gates["gate"].open()
    await runtime.context.retrieve_workflow(handle.workflow_uuid).get_result()
    await runtime.restart()

    assert len(seen.named("charge")) == 1
    assert len(seen.named("reserve")) == 1
    assert attributes_of(seen.named("held")[-1])["operon.workflow.recorded_steps"] == 1


async def test_a_workflow_that_is_cancelled_says_so(runtime: TestRuntime, seen: Seen) -> None:
    handle = await shop.buyer(runtime.context.using(timeout=0.05))
    with pytest.raises(operon.WorkflowTimeout):
        await handle.get_result()
    await runtime.restart()

    span = seen.one("buyer")
    assert attributes_of(span)["operon.workflow.status"] == "CANCELLED"
    assert span.status.status_code is StatusCode.ERROR
    assert seen.counted("operon.workflow.failed", operon_workflow_status="CANCELLED") == 1


class Broken(SpanProcessor):
    """Fails whenever it is called."""

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        raise RuntimeError("on_start")

    def on_end(self, span: ReadableSpan) -> None:
        raise RuntimeError("on_end")


class BrokenLate(Broken):
    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        pass


@pytest.mark.parametrize("processor", [Broken(), BrokenLate()], ids=["at the start", "at the end"])
async def test_a_processor_that_fails_fails_no_workflow(processor: SpanProcessor) -> None:
    tracers = TracerProvider(shutdown_on_exit=False)
    tracers.add_span_processor(processor)
    async with TestRuntime(shop, tracer_provider=tracers) as runtime:
        answer = await runtime.app.quart.test_client().post("/orders/A1")

        assert (answer.status_code, await answer.get_data()) == (200, b"A1")
        assert await (await shop.order(runtime.context, "A2")).get_result() == "A2"


async def test_only_the_size_of_arguments_is_told(runtime: TestRuntime, seen: Seen) -> None:
    await (await shop.order(runtime.context, "seat-in-the-first-row")).get_result()
    await runtime.restart()

    assert attributes_of(seen.one("order"))["operon.arguments.size"] == len('{"seat":"seat-in-the-first-row"}')
    assert not [span for span in seen.spans if "first-row" in span.to_json()]
