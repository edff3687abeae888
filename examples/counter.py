"""An actor that counts, crashes on a message it cannot bear, and is replaced by a fresh one.

python -m examples.counter
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import actors
from actors import ChildSpec, Intensity, Restart, Supervisor


@dataclass(frozen=True, slots=True)
class Add:
    amount: int


@dataclass(frozen=True, slots=True)
class Total:
    reply: actors.Reply[int]


class Counter(actors.Actor[Add | Total]):
    total = 0

    async def receive(self, message: Add | Total) -> None:
        match message:
            case Add(amount) if amount < 0:
                raise ValueError("this counter only goes up")
            case Add(amount):
                self.total += amount
            case Total(reply):
                reply(self.total)


async def main() -> None:
    async with Supervisor("demo", intensity=Intensity(restarts=3, period=5)) as root:
        counter = await root.start(ChildSpec("counter", Counter, restart=Restart.TRANSIENT))

        await counter.tell(Add(2))
        print("total:", await counter.ask(Total))

        await counter.tell(Add(-1))  # crashes; a fresh Counter takes over the mailbox
        print("total after the crash:", await counter.ask(Total))
        print(root)


if __name__ == "__main__":
    asyncio.run(main())
