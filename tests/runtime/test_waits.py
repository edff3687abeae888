"""Waiting: a ring is never lost, whoever waits can be stopped, and what is waited for can be told and kept."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest

from operon.errors import Evicted
from operon.runtime.clock import Clock
from operon.runtime.timers import Timers
from operon.runtime.waits import Bell, Wait, WaitKind, Waits

A, B = UUID(int=1), UUID(int=2)


def message(*topics: str | None, deadline: float | None = None) -> Wait:
    return Wait(WaitKind.MESSAGE, f"recv {topics[0] or ''}".rstrip(), deadline, topics=topics)


def event(target: UUID, key: str, deadline: float | None = None) -> Wait:
    return Wait(WaitKind.EVENT, f"event {key}", deadline, target=target, key=key)


class Waiter:
    """The waits of a workflow, and how often they changed."""

    def __init__(self) -> None:
        self.changes = 0
        clock = Clock()
        self.timers = Timers(clock)
        self.now = clock.now
        self.waits = Waits(self.timers, self._changed)

    def _changed(self) -> None:
        self.changes += 1

    async def begin(self, *waits: Wait) -> list[asyncio.Task[None]]:
        """Waits for all of these at once."""
        tasks = [asyncio.create_task(self.waits.pause(wait)) for wait in waits]
        await asyncio.sleep(0)
        return tasks


async def test_a_ring_that_comes_first_is_not_lost() -> None:
    bell = Bell()
    bell.ring()

    async with asyncio.timeout(60):
        await bell.rung()


async def test_one_ring_is_heard_once() -> None:
    bell = Bell()
    bell.ring()
    await bell.rung()

    again = asyncio.create_task(bell.rung())
    await asyncio.sleep(0)

    assert not again.done()

    bell.ring()
    await again


async def test_a_bell_keeps_what_came_along() -> None:
    bell = Bell("key")

    bell.ring(b"value")
    bell.ring()
    await bell.rung()

    assert bell.value == b"value"


async def test_a_waiter_that_is_cancelled_leaves_nothing_behind() -> None:
    waiter = Waiter()
    (task,) = await waiter.begin(message("a", deadline=waiter.now() + 3600))

    task.cancel()
    await asyncio.wait([task])

    assert len(waiter.waits) == 0
    assert len(waiter.timers) == 0


async def test_a_message_rings_those_who_wait_for_its_topic_only() -> None:
    waiter = Waiter()
    first, second, third = await waiter.begin(message("a"), message("b", None), message("a", "c"))

    waiter.waits.rung_for("a")
    await asyncio.wait([first, third])

    assert not second.done()

    waiter.waits.rung_for(None)
    await second


async def test_a_deadline_ends_a_wait_and_not_before_its_time() -> None:
    waiter = Waiter()
    deadline = waiter.now() + 0.05

    async with asyncio.timeout(60):
        await waiter.waits.pause(message("a", deadline=deadline))

    assert waiter.now() >= deadline
    assert len(waiter.timers) == 0


async def test_to_stop_ends_every_wait_and_refuses_the_next() -> None:
    waiter = Waiter()
    tasks = await waiter.begin(message("a"), event(A, "k"))

    waiter.waits.stop(Evicted("parked"))

    for task in tasks:
        with pytest.raises(Evicted):
            await task
    with pytest.raises(Evicted):
        await waiter.waits.pause(message("b"))
    assert len(waiter.waits) == 0


async def test_what_is_waited_for_is_told_in_the_order_of_asking_and_once() -> None:
    waiter = Waiter()

    await waiter.begin(message("a"), event(A, "k", 7.0), message("a"), Wait(WaitKind.TIME, "sleep", 5.0))

    assert waiter.waits.what == "recv a; event k; sleep"
    assert waiter.waits.topics == {"a"}
    assert waiter.waits.kinds == {WaitKind.MESSAGE, WaitKind.EVENT, WaitKind.TIME}
    assert waiter.waits.deadline == 5.0
    assert waiter.changes == 4


async def test_what_a_workflow_waits_for_is_kept_in_a_row() -> None:
    waiter = Waiter()
    await waiter.begin(message("b", "a"), event(B, "k", 7.0), Wait(WaitKind.RESULT, "the result", None, target=A))

    park = waiter.waits.park(B, None)

    assert (park.workflow_uuid, park.kind, park.topics) == (B, WaitKind.MESSAGE, ["a", "b"])
    assert park.targets == [(A, ""), (B, "k")]
    assert park.wake_at == 7.0
    assert park.parked is None


@pytest.mark.parametrize(("deadline", "own", "first"), [(None, None, None), (9.0, None, 9.0), (9.0, 4.0, 4.0)])
async def test_a_parked_workflow_is_woken_by_its_first_deadline_or_by_its_own(
    deadline: float | None, own: float | None, first: float | None
) -> None:
    waiter = Waiter()
    await waiter.begin(event(A, "k", deadline), event(B, "k"))

    assert waiter.waits.park(A, own).wake_at == first


async def test_what_is_waited_for_has_room_in_a_row() -> None:
    waiter = Waiter()

    await waiter.begin(*(message("t" * 100 + str(number)) for number in range(10)))

    assert len(waiter.waits.what) == 500
