"""The two services on ports and databases of their own, and a customer who does not give up."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx

from operon.database import testbed
from tests.examples.served import Served, served

DEADLINE_SECONDS = 60.0
# A process that was killed is missed within two looks, and one that stops does not wait for what cannot be reached.
QUICK = {
    "OPERON_POLL_SECONDS": "0.1",
    "OPERON_LEASE_SECONDS": "2",
    "OPERON_HEARTBEAT_SECONDS": "0.4",
    "OPERON_SHUTDOWN_SECONDS": "1",
}


@dataclass(frozen=True, slots=True)
class Stage:
    """Where the services are, and where what they know can be looked at."""

    folder: Path
    shop_database: str
    payment_database: str
    shop_port: int
    payment_port: int
    customer: httpx.AsyncClient

    @property
    def shop_url(self) -> str:
        return f"http://127.0.0.1:{self.shop_port}"

    @property
    def payment_url(self) -> str:
        return f"http://127.0.0.1:{self.payment_port}"

    def shop(self, module: str = "examples.shop.shop", **environment: str) -> AbstractAsyncContextManager[Served]:
        """The shop's process. The same every time, so that one can be killed and another goes on."""
        return self._serve(module, self.shop_port, self.shop_database, environment)

    def provider(self) -> AbstractAsyncContextManager[Served]:
        """The payment provider's process."""
        return self._serve("examples.shop.payment", self.payment_port, self.payment_database, {})

    def _serve(
        self, module: str, port: int, database_url: str, environment: Mapping[str, str]
    ) -> AbstractAsyncContextManager[Served]:
        options = ("--port", str(port), "--database-url", database_url, "--log-level", "warning")
        urls = {"SHOP_URL": self.shop_url, "PAYMENT_URL": self.payment_url}
        return served(module, self.folder, *options, environment={**QUICK, **urls, **environment})

    # ------------------------------------------------------------------ the customer

    async def checkout(self, product: str, order: UUID) -> str:
        """Sends the form; the URL that it leads to."""
        answer = await self._insist("POST", f"{self.shop_url}/checkout", {"product": product, "order": str(order)})
        assert answer.status_code == 303, answer.text
        return answer.headers["location"]

    async def decide(self, url: str, decision: str) -> str:
        """Presses a button of the provider's page; what the page says then."""
        return state_on(await self._insist("POST", url, {"decision": decision})) or ""

    async def state(self, order: UUID) -> str:
        """Waits until the shop's page says what became of an order."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while True:
                answer = await self._insist("GET", f"{self.shop_url}/orders/{order}")
                if (state := state_on(answer)) is not None:
                    return state

    async def _insist(self, method: str, url: str, form: Mapping[str, str] | None = None) -> httpx.Response:
        """Asks until somebody answers."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while True:
                try:
                    return await self.customer.request(method, url, data=form)
                except httpx.TransportError:
                    await asyncio.sleep(0.05)  # between two tries of a port where nobody listens

    # ------------------------------------------------------------------ what is known behind the scenes

    async def in_shop(self, query: str) -> list[Any]:
        return [tuple(row) for row in await testbed.fetch(self.shop_database, query)]

    async def only_order(self) -> UUID:
        """The order that there is."""
        [(order,)] = await self.in_shop("select order_id from orders")
        return UUID(str(order))

    async def at_provider(self, query: str) -> list[Any]:
        return [tuple(row) for row in await testbed.fetch(self.payment_database, query)]


def state_on(page: httpx.Response) -> str | None:
    """What a page says of an order or a payment that is over."""
    assert page.status_code == 200, page.text
    found = re.search(r'<strong id="state">(.*)</strong>', page.text)
    return found[1] if found else None


@asynccontextmanager
async def customer() -> AsyncGenerator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=DEADLINE_SECONDS, trust_env=False) as client:
        yield client
