"""What /openapi.json says holds for whatever a client makes of it: no 500, and no answer that it does not describe.

The cases come from schemathesis: half of them fit the document, half of them break it. Not asked for is that what
breaks it is refused, because the server also takes scalars that come as texts, and that what fits it is taken,
because two headers that name two workflows are refused.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import enum
import re
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
import pytest

import operon
from operon.catalog import Catalog
from operon.contexts import CommunicatorContext, HandlerContext, TransactionContext, WorkflowContext
from operon.http import openapi
from operon.testing import TestRuntime

CASES = 1000
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
)


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Item(msgspec.Struct):
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=20)]
    count: Annotated[int, msgspec.Meta(ge=1, le=9)] = 1
    colors: list[Color] = []


@dataclass
class Address:
    street: str
    since: dt.date | None = None


class Tree(msgspec.Struct):
    label: str
    children: list[Tree] = []


@operon.post("/orders/<item>")
@operon.workflow
async def order(ctx: WorkflowContext, item: str, amount: int, express: bool = False) -> dict[str, int]:
    return {item: amount}


@operon.put("/items/<uuid:which>")
@operon.workflow
async def put_item(ctx: WorkflowContext, which: UUID, item: Item) -> Item:
    return item


@operon.get("/search")
@operon.transaction(read_only=True)
async def search(
    tx: TransactionContext,
    q: str,
    page: int = 0,
    color: Color | None = None,
    tags: list[str] = [],  # noqa: B006
) -> list[str]:
    return [q, *tags]


@operon.patch("/addresses/<int:number>")
@operon.communicator
async def move(ctx: CommunicatorContext, number: int, address: Address, note: str | None = None) -> Address | None:
    return address if note else None


@operon.delete("/orders/<item>")
@operon.transaction
async def cancel(tx: TransactionContext, item: str, reason: Literal["late", "wrong"] = "late") -> None: ...


@operon.post("/trees")
@operon.workflow
async def plant(ctx: WorkflowContext, tree: Tree) -> int:
    return len(tree.children)


@operon.get("/when")
async def when(ctx: HandlerContext, day: dt.date, at: dt.datetime | None = None, price: Decimal = Decimal(1)) -> str:
    return f"{day} {at} {price}"


@operon.get("/tenant/<path:rest>")
async def tenant(ctx: HandlerContext, rest: str, who: Annotated[str, operon.Header("x-tenant")]) -> dict[str, str]:
    return {"rest": rest, "who": who}


@operon.post("/anything")
@operon.workflow
async def anything(ctx: WorkflowContext, value: Any) -> Any:
    return value


@operon.post("/secrets")
async def secret(ctx: HandlerContext, card: Annotated[str, operon.Masked], cents: int | str) -> tuple[str, int]:
    return f"{len(card)}", 202


@pytest.fixture
async def url() -> AsyncIterator[str]:
    """The application on a real socket, its operations in a real runtime."""
    async with TestRuntime(__name__, poll_seconds=0.2, port=0) as runtime:
        bound: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        stop = asyncio.Event()
        serving = asyncio.create_task(runtime.app.serve(bound.set_result, stop))
        yield await bound
        stop.set()
        await serving


async def schemathesis(document: Path, url: str) -> tuple[int, str]:
    """What its command line says of the application. A process of its own, for it seeds the `random` of its process."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", "run", str(document), "--url", url),
        *("--checks", ",".join(CHECKS), "--max-examples", "80", "--seed", "1", "--continue-on-failure", "--no-color"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=document.parent,
    )
    output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


@pytest.mark.long
async def test_no_request_gets_a_500_or_an_answer_that_is_not_documented(url: str, tmp_path: Path) -> None:
    described = openapi.document(Catalog(__name__), title="fuzzed", version="1")
    for item in described["paths"].values():
        for operation in item.values():
            if "$ref" in operation["responses"]["default"]:
                del operation["responses"]["default"]  # "any other problem" would document everything
    document = tmp_path / "openapi.json"
    document.write_bytes(msgspec.json.encode(described))

    status, output = await schemathesis(document, url)

    assert status == 0, output
    generated = re.search(r"([\d,]+) generated", output)
    assert generated is not None, output
    assert int(generated[1].replace(",", "")) >= CASES
