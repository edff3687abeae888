"""Every type that an application may use, as argument and as result of each kind of operation: equal live, after a
crash, and to another process that reads it from the database. Errors of the application's own classes too."""

from __future__ import annotations

import datetime as dt
import enum
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
import pytest

import operon
from operon.contexts import CommunicatorContext, InitializerContext, TransactionContext, WorkflowContext
from operon.testing import TestRuntime
from tests.acceptance.gates import Gates

calls: Counter[str] = Counter()
gates = Gates()
seen: dict[str, list[Any]] = {}


class Colour(enum.Enum):
    RED = "red"
    GREEN = "green"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


@dataclass(frozen=True)
class Line:
    item: str
    price: Decimal
    colours: tuple[Colour, ...] = ()


class Stamp(msgspec.Struct, frozen=True):
    at: dt.datetime
    by: UUID


@dataclass
class Order:
    lines: list[Line]
    stamp: Stamp
    level: Level
    tags: set[str]
    scan: bytes
    due: dt.date
    within: dt.timedelta
    notes: dict[str, tuple[int, ...] | None] = field(default_factory=dict[str, "tuple[int, ...] | None"])


UTC = dt.datetime(2024, 2, 29, 12, 30, 15, 123456, tzinfo=dt.UTC)
ORDER = Order(
    [Line("ink", Decimal("12.50"), (Colour.RED, Colour.GREEN)), Line("pen", Decimal("0.00"))],
    Stamp(UTC, UUID(int=7)),
    Level.HIGH,
    {"rush", "gift"},
    b"\x00\xff\x10",
    dt.date(2024, 3, 1),
    dt.timedelta(days=3, microseconds=1),
    {"a": (1, 2), "b": None},
)


class OutOfStock(Exception):
    """An error of the application's own, with what only it knows."""

    def __init__(self, order: Order, left: Decimal) -> None:
        super().__init__(f"{left} left")
        self.left = left
        self.order_level = order.level.name


class Sub(OutOfStock):
    """A class below it."""


@operon.initializer
async def tables(ctx: InitializerContext) -> None:
    await ctx.client.execute("create table if not exists kinds (name text, made uuid, price numeric, at timestamptz)")


@operon.communicator
async def send_order(ctx: CommunicatorContext, order: Order) -> Order:
    return order


@operon.transaction
async def store_order(tx: TransactionContext, order: Order) -> Order:
    return order


@operon.transaction(read_only=True)
async def read_order(tx: TransactionContext, order: Order) -> Order:
    return order


@operon.workflow
async def child_order(ctx: WorkflowContext, order: Order) -> Order:
    return order


@operon.workflow
async def all_kinds(ctx: WorkflowContext, name: str, order: Order) -> list[Order]:
    child = await child_order(ctx, order)
    answers = [
        order,
        await send_order(ctx, order),
        await store_order(ctx, order),
        await read_order(ctx, order),
        await child.get_result(),
    ]
    seen.setdefault(name, []).append(answers)
    await stop_at(ctx, name)
    return answers


@operon.communicator
async def stop_at(ctx: CommunicatorContext, gate: str) -> None:
    await gates[gate].pass_()


@operon.communicator
async def moment(ctx: CommunicatorContext, value: dt.datetime) -> dt.datetime:
    return value


@operon.communicator
async def price(ctx: CommunicatorContext, value: Decimal) -> Decimal:
    return value


@operon.communicator
async def identity(ctx: CommunicatorContext, value: UUID) -> UUID:
    return value


@operon.communicator
async def colour(ctx: CommunicatorContext, value: Colour) -> Colour:
    return value


@operon.communicator
async def pair(ctx: CommunicatorContext, value: tuple[int, str]) -> tuple[int, str]:
    return value


@operon.communicator
async def numbers(ctx: CommunicatorContext, value: set[int]) -> set[int]:
    return value


@operon.communicator
async def frozen(ctx: CommunicatorContext, value: frozenset[str]) -> frozenset[str]:
    return value


@operon.communicator
async def raw(ctx: CommunicatorContext, value: bytes) -> bytes:
    return value


@operon.communicator
async def by_number(ctx: CommunicatorContext, value: dict[int, Line]) -> dict[int, Line]:
    return value


@operon.communicator
async def maybe(ctx: CommunicatorContext, value: Line | Stamp | None) -> Line | Stamp | None:
    return value


@operon.communicator
async def anything(ctx: CommunicatorContext, value: Any) -> Any:
    return value


@operon.communicator
async def more(ctx: CommunicatorContext, /, *lines: Line, **by_name: Decimal) -> tuple[list[Line], dict[str, Decimal]]:
    return list(lines), by_name


@operon.communicator(retry=None)
async def run_out(ctx: CommunicatorContext, order: Order) -> None:
    raise OutOfStock(order, Decimal("0.5"))


@operon.transaction
async def run_out_in_transaction(tx: TransactionContext, order: Order) -> None:
    raise Sub(order, Decimal("0.25"))


@operon.workflow
async def run_out_in_child(ctx: WorkflowContext, order: Order) -> None:
    raise Sub(order, Decimal("0.125"))


@operon.workflow
async def errors(ctx: WorkflowContext, name: str, order: Order) -> list[str]:
    """What each kind of step raised, as the workflow caught it."""
    told: list[str] = []

    async def child() -> None:
        await (await run_out_in_child(ctx, order)).get_result()

    failing: list[Callable[[], Any]] = [
        lambda: run_out(ctx, order),
        lambda: run_out_in_transaction(ctx, order),
        child,
    ]
    for call in failing:
        try:
            await call()
        except OutOfStock as error:
            told.append(f"{type(error).__name__} {error} {error.left!r} {error.order_level!r}")
    seen.setdefault(name, []).append(list(told))
    await stop_at(ctx, name)
    return told


@operon.workflow
async def rows(ctx: WorkflowContext, name: str) -> list[Any]:
    """Values out of the database, through one-statement transactions."""
    insert = "insert into kinds values ($1, $2, $3, $4) returning made, price, at, null as nothing"
    row = await ctx.fetchrow(insert, name, UUID(int=5), Decimal("1.10"), UTC)
    all_rows = await ctx.fetch("select made, price from kinds where name = $1", name)
    status = await ctx.execute("update kinds set price = price + 1 where name = $1", name)
    answers = [None if row is None else dict(row), [one["price"] for one in all_rows], status]
    seen.setdefault(name, []).append(answers)
    await stop_at(ctx, name)
    return answers


@pytest.fixture(scope="module")
async def runtime() -> AsyncIterator[TestRuntime]:
    async with TestRuntime(__name__, poll_seconds=0.2) as runtime:
        yield runtime


async def crash_at(runtime: TestRuntime, gate: str, handle: operon.WorkflowHandle[Any]) -> Any:
    await gates[gate].reached.wait()
    await runtime.crash()
    gates[gate].open()
    return await handle.get_result()


async def test_a_rich_value_is_equal_in_every_kind_of_operation_live_replayed_and_read_again(
    runtime: TestRuntime,
) -> None:
    handle = await all_kinds(runtime.context, "kinds", ORDER)

    result = await crash_at(runtime, "kinds", handle)
    read_again = await runtime.context.retrieve_workflow(handle.workflow_uuid).get_result()

    live, replayed = seen["kinds"]
    assert live == replayed == result == read_again == [ORDER] * 5
    assert {type(one.lines[0].price) for one in result} == {Decimal}
    assert {type(one.stamp) for one in replayed} == {Stamp}
    assert {type(one.tags) for one in replayed} == {set}


@pytest.mark.parametrize(
    ("operation", "value"),
    [
        (moment, UTC),
        (moment, UTC.replace(tzinfo=None)),
        (moment, UTC.astimezone(ZoneInfo("Europe/Berlin"))),
        (price, Decimal("1.10")),
        (price, Decimal("NaN")),
        (price, Decimal("-0")),
        (identity, UUID(int=2**127)),
        (colour, Colour.GREEN),
        (pair, (1, "one")),
        (numbers, {3, 1, 2}),
        (numbers, set[int]()),
        (frozen, frozenset({"a"})),
        (raw, bytes(range(256))),
        (raw, b""),
        (by_number, {1: Line("ink", Decimal(1)), -2: Line("pen", Decimal("2.0"))}),
        (maybe, Line("ink", Decimal(1))),
        (maybe, Stamp(UTC, UUID(int=1))),
        (maybe, None),
        (
            anything,
            {"at": UTC, "who": UUID(int=3), "tags": {"x"}, "pair": (1, 2), "raw": b"\xff", "price": Decimal("1.0")},
        ),
        (anything, {"$tuple": [1]}),
        (anything, None),
        (anything, False),
        (anything, ""),
    ],
)
async def test_a_value_of_its_type_is_equal_live_and_from_the_database(
    runtime: TestRuntime, operation: Any, value: Any
) -> None:
    ctx = runtime.context.using(workflow_uuid=UUID(int=next_uuid()))

    live = await operation(ctx, value)
    stored = await operation(ctx, value)

    assert repr(live) == repr(stored) == repr(value)
    assert type(live) is type(stored) is type(value)


def next_uuid() -> int:
    calls["uuid"] += 1
    return 0x70000000_0000_7000_8000_000000000000 + calls["uuid"]


async def test_positional_and_named_extra_arguments_travel_too(runtime: TestRuntime) -> None:
    lines, by_name = await more(runtime.context, ORDER.lines[0], ORDER.lines[1], tax=Decimal("0.19"), tip=Decimal(1))

    assert lines == ORDER.lines
    assert by_name == {"tax": Decimal("0.19"), "tip": Decimal(1)}


async def test_an_error_of_the_applications_own_class_comes_back_as_that_class_with_what_it_knows(
    runtime: TestRuntime,
) -> None:
    handle = await errors(runtime.context, "errors", ORDER)

    result = await crash_at(runtime, "errors", handle)

    live, replayed = seen["errors"]
    assert live == replayed == result
    assert live == [
        "OutOfStock 0.5 left Decimal('0.5') 'HIGH'",
        "Sub 0.25 left Decimal('0.25') 'HIGH'",
        "Sub 0.125 left Decimal('0.125') 'HIGH'",
    ]


async def test_values_of_the_database_are_the_same_live_and_replayed(runtime: TestRuntime) -> None:
    handle = await rows(runtime.context, "rows")

    result = await crash_at(runtime, "rows", handle)

    live, replayed = seen["rows"]
    assert repr(live) == repr(replayed) == repr(result)
    assert result == [
        {"made": UUID(int=5), "price": Decimal("1.10"), "at": UTC, "nothing": None},
        [Decimal("1.10")],
        "UPDATE 1",
    ]


async def test_an_orderly_restart_changes_no_value(runtime: TestRuntime) -> None:
    ctx = runtime.context
    handle = await child_order(ctx, ORDER)
    before = await handle.get_result()

    await runtime.restart()

    assert await runtime.context.retrieve_workflow(handle.workflow_uuid).get_result() == before == ORDER
