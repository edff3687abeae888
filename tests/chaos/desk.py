"""Where the clients in the executors get their orders, and report what they were told.

An order is given out again when its client dies, is cancelled, or does not answer for a while: whoever comes second
starts the same workflow with the same UUID, and sends the same messages with the same keys. So it is done at least
once by clients, and has to happen exactly once. What two clients are told of one order has to be the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter, deque
from typing import Any
from uuid import UUID, uuid5

import msgspec

from tests.chaos.application import ACCOUNTS, expected

AGAIN_SECONDS = 6.0  # a client that does not answer for so long may be asleep: somebody else tries
CANCELLED_SHARE = 0.08
SEVERAL_SHARE = 0.15
SPACE = UUID("6f0d5f0e-5c1c-4c53-8f6b-0f2f7f7f0a11")


class Order(msgspec.Struct, frozen=True):
    """One workflow that a client wants: to start, follow, and hear the result of."""

    number: int
    uuid: UUID
    kind: str  # transfer, correspondence, tree
    args: tuple[int, ...]
    times: int = 1  # that many starts at once
    cancelled_after: float | None = None  # the client gives up, somewhere in the middle


class Answer(msgspec.Struct, frozen=True):
    """What became of an order: exactly one of these."""

    value: Any = None
    cancelled: bool = False
    error: str | None = None


class Desk:
    """Makes orders out of a seed, as many as are asked for, and remembers what came of each."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._rng = random.Random(f"desk {seed}")
        self._closed = False
        self._ended = False
        self._again: deque[Order] = deque()
        self._changed = asyncio.Condition()
        self.orders: dict[UUID, Order] = {}
        self.answers: dict[UUID, list[Any]] = {}
        self.open: Counter[int] = Counter()  # orders under way, by the executor's slot
        self.errors: Counter[str] = Counter()
        self.cancelled = 0
        self.repeated = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client: says which slot it is in, then takes one order after another."""
        with contextlib.suppress(OSError), contextlib.closing(writer):
            slot = int(await reader.readline() or b"-1")
            while (order := await self._next()) is not None:
                self.open[slot] += 1
                try:
                    writer.write(msgspec.json.encode(order) + b"\n")
                    line = await self._answer(order, reader)
                finally:
                    self.open[slot] -= 1
                await self._answered(order, msgspec.json.decode(line, type=Answer) if line else None)
                if not line:
                    return

    async def _answer(self, order: Order, reader: asyncio.StreamReader) -> bytes:
        """The line that a client answers; empty if it is gone."""
        answer = asyncio.ensure_future(reader.readline())
        while not (await asyncio.wait((answer,), timeout=AGAIN_SECONDS))[0]:
            if order.uuid not in self.answers and all(other.uuid != order.uuid for other in self._again):
                await self._repeat(order)
        try:
            return answer.result()
        except OSError:
            return b""

    async def _next(self) -> Order | None:
        async with self._changed:
            await self._changed.wait_for(lambda: self._again or self._ended or not self._closed)
            if self._ended:
                return None
            return self._again.popleft() if self._again else self._make()

    def _make(self) -> Order:
        rng, number = self._rng, len(self.orders)
        kind = rng.choices(("transfer", "correspondence", "tree"), (70, 8, 22))[0]
        match kind:
            case "transfer":
                source, target = rng.sample(range(ACCOUNTS), 2)
                args: tuple[int, ...] = (source, target, rng.randint(1, 200))
            case "correspondence":
                args = (rng.randint(1, 3), rng.randint(4, 8))
            case _:
                args = (rng.getrandbits(31), 2)
        times = 3 if rng.random() < SEVERAL_SHARE else 1
        after = rng.uniform(0.0, 0.4) if rng.random() < CANCELLED_SHARE else None
        order = Order(number, uuid5(SPACE, f"{self._seed} {number}"), kind, args, times, after)
        self.orders[order.uuid] = order
        return order

    async def _repeat(self, order: Order) -> None:
        self.repeated += 1
        async with self._changed:
            self._again.append(msgspec.structs.replace(order, cancelled_after=None))
            self._changed.notify()

    async def _answered(self, order: Order, answer: Answer | None) -> None:
        if answer is not None and answer.error is not None:
            self.errors[answer.error] += 1
        if answer is None or answer.cancelled or answer.error is not None:
            self.cancelled += answer is not None and answer.cancelled
            if order.uuid not in self.answers:
                await self._repeat(order)
            return
        async with self._changed:
            self.answers.setdefault(order.uuid, []).append(answer.value)
            self._changed.notify_all()

    def close(self) -> None:
        """No new orders from now on; those that are under way are followed to their end."""
        self._closed = True

    async def end(self) -> None:
        """Sends every client home."""
        async with self._changed:
            self._ended = True
            self._changed.notify_all()

    async def done(self) -> None:
        """Waits until every order was answered."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self.answers) == len(self.orders))

    def wrong(self) -> list[str]:
        """What clients were told that is not so."""
        return [
            f"{order.kind} {uuid}: clients were told {values}"
            for uuid, values in self.answers.items()
            if any(not is_right(order := self.orders[uuid], value) for value in values)
            or any(value != values[0] for value in values)
        ]

    def __repr__(self) -> str:
        return f"<Desk {len(self.answers)} of {len(self.orders)} done, {self.repeated} given out again>"


def is_right(order: Order, value: Any) -> bool:
    """Whether this can be the result of an order."""
    match order.kind:
        case "transfer":
            return isinstance(value, bool)
        case "correspondence":
            senders, count = order.args
            letters: dict[int, list[int]] = {}
            for sender, number in value:
                letters.setdefault(sender, []).append(number)
            return letters == {sender: list(range(count)) for sender in range(senders + 1)}
        case _:
            return bool(value == expected(*order.args))
