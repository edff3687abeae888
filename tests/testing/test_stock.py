"""Private databases in stock: made ahead, removed beside the tests, and nothing else is ever removed."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncGenerator
from statistics import median

import pytest

from operon.database import testbed
from operon.database.connection import Connection, connect
from operon.database.stock import Stock
from operon.testing import with_database

LISTED = "select datname from pg_database where datname = $1"


@pytest.fixture
async def stock(server: str) -> AsyncGenerator[Stock]:
    stock = Stock(server)
    yield stock
    stock.close()


async def exists(server: str, name: str) -> bool:
    return len(await testbed.fetch(server, LISTED, name)) == 1


async def test_a_database_out_of_stock_is_migrated_and_empty(server: str, stock: Stock) -> None:
    first, second = await stock.take(), await stock.take()
    await testbed.execute(with_database(server, first), "create table mine (id integer)")

    assert first != second
    for name in (second, await stock.take()):
        url = with_database(server, name)
        assert (await testbed.fetch(url, "select count(*) from operon.workflows"))[0][0] == 0
        assert (await testbed.fetch(url, "select to_regclass('mine')"))[0][0] is None


async def test_a_copy_has_what_the_original_had(server: str, stock: Stock) -> None:
    original = await stock.take()
    await testbed.execute(with_database(server, original), "create table mine as select 42 as answer")

    copy = await stock.copy(original)

    assert (await testbed.fetch(with_database(server, copy), "select answer from mine"))[0][0] == 42


async def test_the_end_of_the_process_removes_everything_that_was_made(server: str) -> None:
    stock = Stock(server)
    names = [await stock.take() for _ in range(3)]
    stock.give_back(names[0])
    left_open = await connect(server, database=names[1])

    stock.close()

    assert [await exists(server, name) for name in names] == [False] * 3
    left_open.terminate()


async def test_what_was_not_made_here_is_never_removed(server: str) -> None:
    theirs = f"operon_test_{os.getpid():x}_theirs"
    await testbed.create_database(server, theirs)
    stock = Stock(server)
    await stock.take()

    stock.give_back(theirs)
    stock.close()

    assert await exists(server, theirs)
    await testbed.drop_database(server, theirs)


async def test_a_server_that_is_gone_leaves_nothing_to_remove_and_nothing_to_say(
    server: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    stock = Stock(server)
    name = await stock.take()
    monkeypatch.setattr("operon.database.stock.connect", gone)  # for the connection that removes; it is a new one

    stock.give_back(name)
    stock.close()

    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == []
    await testbed.drop_database(server, name)


async def gone(server: str) -> Connection:
    raise FileNotFoundError(2, "No such file or directory")


async def test_a_database_for_a_test_takes_under_fifty_milliseconds(
    stock: Stock, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a test waits for is printed; what is asserted is only that it is not the making of a database."""
    made: list[float] = []
    taken: list[float] = []
    name = await stock.take()
    await stock.take()
    for _ in range(8):
        began = time.perf_counter()
        await stock.copy(name)
        made.append(1000 * (time.perf_counter() - began))  # by now the next one in stock is made as well
        began = time.perf_counter()
        stock.give_back(await stock.take())
        taken.append(1000 * (time.perf_counter() - began))

    with capsys.disabled():
        print(f" [in stock {median(taken):.1f} ms, made for it {median(made):.0f} ms]", end="")
    assert median(taken) < median(made)
