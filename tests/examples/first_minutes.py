"""A newcomer's first minutes: every example from an empty folder, on the embedded Postgres, asked over HTTP.

    python -m tests.examples.first_minutes .venv/bin/operon

The operon that is named may live in another environment than this script's: one with nothing but the built package.
The ticket shop is killed with `kill -9` while the bank takes its time, and started again. The application that was
there before is served by the Hypercorn of the same environment.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path

from examples.pretend_bank import PretendBank
from operon.database.embedded import EmbeddedPostgres
from tests.examples.served import Answer, Served, served, started

Serve = Callable[[str], AbstractAsyncContextManager[Served]]

NO_CONTENT = Answer(204, None)


async def hello(serve: Serve) -> None:
    async with serve("examples.hello") as server:
        expect(await server.get("/greeting/Ada"), Answer(200, "Hello, Ada! You have been greeted 1 times."))
        expect(await server.get("/greeting/Nobody"), Answer(200, "The greeting for Nobody came back."))


async def bank(serve: Serve) -> None:
    async with serve("examples.bank") as server:
        expect(await server.post("/accounts", {"account": "ada", "cents": 1000}), NO_CONTENT)
        expect(await server.post("/accounts", {"account": "bob", "cents": 0}), NO_CONTENT)
        expect(await server.post("/transfers", {"source": "ada", "target": "bob", "cents": 300}), NO_CONTENT)
        expect(await server.get("/accounts/bob"), Answer(200, 300))


async def tickets_class(serve: Serve) -> None:
    async with serve("examples.tickets_class") as server:
        expect(await server.post("/shows/Macbeth/seats/A1", {"card": "declined"}), Answer(200, False))


async def orders(serve: Serve) -> None:
    async with serve("examples.orders") as server:
        order = (await server.post("/orders", {"item": "teapot"})).value
        expect(await server.post(f"/orders/{order}/payment", {"card": "4242", "cents": 1999}), NO_CONTENT)
        expect((await server.get(f"/orders/{order}")).status, 200)


async def tickets(serve: Serve, ledger: Path) -> None:
    seat, body = "/shows/Hamlet/seats/A1", {"card": "4242"}
    async with serve("examples.tickets:app") as server:
        buyer = asyncio.create_task(server.post(seat, body, Idempotency_Key="order-1"))
        await server.said(re.compile("charged 5000 cents"))
        await server.kill()
        await asyncio.wait([buyer])
        expect(isinstance(buyer.exception(), OSError), True)

    async with serve("examples.tickets:app") as server:
        expect(await server.post(seat, body, Idempotency_Key="order-1"), Answer(200, True))
        expect(await server.get("/shows/Hamlet/sold"), Answer(200, ["A1"]))
    expect(len(PretendBank(ledger, 0).charged()), 1)


async def existing(command: str, folder: Path) -> None:
    hypercorn = (command, "examples.existing:quart", "--bind", "127.0.0.1:0")
    async with started(hypercorn, folder) as server:
        expect(await server.get("/"), Answer(200, "The old front page."))
        expect(await server.get("/nowhere"), Answer(404, "The old page for what is not there."))
        expect(await server.get("/greeting/Ada"), Answer(200, "Hello, Ada!"))


def expect(found: object, expected: object) -> None:
    if found != expected:
        raise SystemExit(f"expected {expected!r}, got {found!r}")


async def main(operon: str) -> None:
    with tempfile.TemporaryDirectory(prefix="operon-") as name:
        folder = Path(name)
        serve = partial(served, folder=folder, operon=(operon,))
        try:
            await hello(serve)
            await bank(serve)
            await tickets_class(serve)
            await orders(serve)
            await tickets(serve, folder / ".operon/ledger.txt")
            await existing(os.path.join(os.path.dirname(operon), "hypercorn"), folder)
        finally:
            EmbeddedPostgres(folder / ".operon/postgres").remove()


if __name__ == "__main__":
    asyncio.run(main(os.path.abspath(sys.argv[1])))
    print("hello, bank, tickets_class, orders, tickets and existing kept their promises")
