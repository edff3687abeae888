"""One trace, whatever happens: a crash, a parked wait, a message, another process."""

from __future__ import annotations

from operon.testing import TestRuntime
from tests.telemetry import shop
from tests.telemetry.conftest import Seen, attributes_of, ids, parent_of


async def test_a_trace_goes_on_after_a_crash(runtime: TestRuntime, seen: Seen) -> None:
    handle = await shop.held(runtime.context, "gate")
    await shop.gates["gate"].reached.wait()

    await runtime.crash()
    shop.gates["gate"].open()
    await runtime.context.retrieve_workflow(handle.workflow_uuid).get_result()
    await runtime.restart()

    first, second = seen.named("held")
    origin = ids(seen.one("start held"))
    assert {ids(first)[0], ids(second)[0], ids(seen.one("reserve"))[0]} == {origin[0]}
    assert parent_of(first) == parent_of(second) == origin[1]
    assert parent_of(seen.one("charge")) == ids(first)[1]
    assert parent_of(seen.one("reserve")) == ids(second)[1]
    assert [link.context.span_id for link in second.links] == [ids(first)[1]]
    assert [attributes_of(life).get("operon.workflow.status") for life in (first, second)] == [None, "SUCCESS"]


async def test_a_parked_workflow_comes_back_in_a_new_span_of_its_trace(seen: Seen) -> None:
    async with TestRuntime(shop, tracer_provider=seen.tracers, park_after_seconds=0) as runtime:
        handle = await shop.buyer(runtime.context)
        await until_parked(runtime)

        await runtime.context.send(handle.workflow_uuid, "coins", shop.PAYMENT)
        assert await handle.get_result() == "coins"

    *earlier, last = seen.named("buyer")
    assert earlier
    assert {ids(life)[0] for life in (*earlier, last)} == {ids(seen.one("start buyer"))[0]}
    assert [link.context.span_id for link in last.links] == [ids(earlier[-1])[1]]
    assert [event.name for event in earlier[-1].events] == ["left"]
    assert dict(earlier[-1].events[0].attributes or {})["operon.reason"] == "parked"
    assert len(seen.named("reserve")) == 1
    # The message came while nobody was there, so its trace was read with it out of the mailbox.
    received = seen.named("receive payment")[-1]
    assert [link.context.span_id for link in received.links] == [ids(seen.one("send payment"))[1]]


async def test_what_receives_a_message_is_linked_to_what_sent_it(runtime: TestRuntime, seen: Seen) -> None:
    buyer = await shop.buyer(runtime.context)
    await (await shop.payer(runtime.context, str(buyer.workflow_uuid))).get_result()
    await buyer.get_result()
    await runtime.restart()

    sent, received = seen.one("send payment"), seen.one("receive payment")
    assert [(link.context.trace_id, link.context.span_id) for link in received.links] == [ids(sent)]
    assert ids(sent)[0] == ids(seen.one("payer"))[0] != ids(received)[0] == ids(seen.one("buyer"))[0]
    assert attributes_of(sent)["operon.destination.workflow.uuid"] == str(buyer.workflow_uuid)
    assert attributes_of(received)["messaging.destination.name"] == "payment"


async def test_an_untraced_start_inside_a_trace_goes_on_in_it(runtime: TestRuntime, seen: Seen) -> None:
    with seen.tracers.get_tracer("a script").start_as_current_span("nightly"):
        await (await shop.ship(runtime.context)).get_result()
    await runtime.restart()

    assert [span.name for span in seen.spans if span.name.startswith("start")] == []
    assert parent_of(seen.one("ship")) == ids(seen.one("nightly"))[1]


async def until_parked(runtime: TestRuntime) -> None:
    """Waits for the row that says so, and for the coroutine to be gone."""
    waiting = "select count(*) from operon.workflows where wait_kind is not null"
    while not await runtime.fetchval(waiting) or runtime.executor.incarnation.live:
        pass
