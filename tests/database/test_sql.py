"""Every SQL block is valid on the migrated database, and every Python function that names one finds it."""

from __future__ import annotations

from importlib.resources import files

import asyncpg
import pytest

from operon.database import checkpoints, executors, workflows
from operon.database.batch import Batch
from operon.database.mail import Mail
from operon.database.sql import statements
from operon.database.writer import FLUSH

FILES = sorted(file.name for file in files("operon.database").iterdir() if file.name.endswith(".sql"))
BLOCKS = [(file, name) for file in FILES for name in statements(file)]


@pytest.mark.parametrize(("file", "name"), BLOCKS)
async def test_every_block_is_valid_on_the_migrated_database(database: str, file: str, name: str) -> None:
    connection = await asyncpg.connect(database)

    try:
        await connection.prepare(statements(file)[name])
    finally:
        await connection.close()


async def test_the_checkpoint_of_a_transaction_is_prepared_on_every_connection_of_its_pool(database: str) -> None:
    connection = await asyncpg.connect(database)

    await checkpoints.prepare_checkpoint(connection)

    names = await connection.fetch("select name from pg_prepared_statements")
    assert "operon_checkpoint" in {row["name"] for row in names}
    await connection.close()


async def test_the_flush_takes_what_the_writer_sends(database: str) -> None:
    connection = await asyncpg.connect(database)

    flush = await connection.prepare(FLUSH)

    assert len(flush.get_parameters()) == 4 + len(Batch().columns()) + len(Mail().columns(0))
    await connection.close()


def test_there_are_blocks_and_each_has_one_statement() -> None:
    assert len(BLOCKS) > 15
    for file, name in BLOCKS:
        text = statements(file)[name]
        code = "\n".join(line.split("--")[0] for line in text.splitlines())
        assert ";" not in code, f"{file}: {name} has more than one statement"
        assert text == text.rstrip(";")


def test_no_block_has_the_name_of_another() -> None:
    assert [len(statements(file)) for file in FILES] == [
        sum(line.startswith("-- name: ") for line in files("operon.database").joinpath(file).read_text().splitlines())
        for file in FILES
    ]
    assert {"history", "recorded"} <= set(checkpoints.SQL)
    assert {"register", "renew", "leave"} <= set(executors.SQL)
    assert {"claim", "candidates", "load", "crashed"} <= set(workflows.SQL)
