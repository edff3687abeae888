"""Starting: the schema is brought up to date once, by whoever comes first, and what cannot be used is refused in words
that say what to do and never say the password."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from typing import Any, cast
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from operon.database import testbed
from operon.database.connection import connect_at_start, describe
from operon.database.migrate import migrate, migrations
from operon.errors import DatabaseUnusable, SchemaTooNew
from operon.testing import TestRuntime
from tests.database import one_step

PASSWORD = "correct-horse-battery"


async def test_ten_processes_that_start_at_once_migrate_once(empty: str) -> None:
    connections = await asyncio.gather(*(asyncpg.connect(empty) for _ in range(10)))

    applied = await asyncio.gather(*(migrate(connection) for connection in connections))

    assert sorted(number for numbers in applied for number in numbers) == [number for number, _, _ in migrations()]
    rows = await testbed.fetch(empty, "select number, name from operon.migrations order by number")
    assert [tuple(row) for row in rows] == [(number, name) for number, name, _ in migrations()]
    await asyncio.gather(*(connection.close() for connection in connections))


async def test_a_migrated_database_is_left_as_it_is(database: str) -> None:
    connection = await asyncpg.connect(database)

    async with connection.transaction(readonly=True):  # whatever writes is refused
        assert await migrate(connection) == []

    assert (
        await connection.fetchval(
            "select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()"
        )
        == 0
    )
    await connection.close()


async def test_a_migration_that_fails_leaves_nothing_behind(empty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = [*migrations(), (9999, "9999_broken.sql", "create table operon.half_done (); select 1 / 0")]
    monkeypatch.setattr("operon.database.migrate.migrations", lambda: broken)
    connection = await asyncpg.connect(empty)

    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrate(connection)

    assert await connection.fetchval("select to_regclass('operon.half_done')") is None
    assert await connection.fetchval("select max(number) from operon.migrations") == migrations()[-1][0]
    assert (
        await connection.fetchval(
            "select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()"
        )
        == 0
    )
    await connection.close()


async def test_a_schema_of_a_newer_operon_is_refused(database: str) -> None:
    await testbed.execute(database, "insert into operon.migrations (number, name) values (9999, '9999_later.sql')")
    connection = await asyncpg.connect(database)

    with pytest.raises(SchemaTooNew, match="9999") as caught:
        await migrate(connection)

    assert caught.value.hint is not None
    assert "upgrade" in caught.value.hint
    await connection.close()


async def test_a_read_only_database_is_refused(database: str) -> None:
    connection = await asyncpg.connect(database, server_settings={"default_transaction_read_only": "on"})

    with pytest.raises(DatabaseUnusable, match="read-only") as caught:
        await migrate(connection)

    assert caught.value.hint is not None
    assert "primary" in caught.value.hint
    await connection.close()


async def test_a_server_that_is_too_old_is_refused() -> None:
    """The scripted peer is a server that nobody has at hand any more."""

    class Old:
        async def fetchrow(self, _question: str) -> Any:
            return 130014, "13.14", False, False

    with pytest.raises(DatabaseUnusable, match=r"13\.14") as caught:
        await migrate(cast(Any, Old()))

    assert caught.value.hint is not None
    assert "14" in caught.value.hint


@pytest.mark.parametrize(
    "address",
    [
        pytest.param("127.0.0.1:9", id="nobody listens"),
        pytest.param("no-such-host.invalid", id="no such host"),
        pytest.param("127.0.0.1:not-a-port", id="no port"),
    ],
)
async def test_a_database_out_of_reach_is_refused_without_its_password(address: str) -> None:
    with pytest.raises(DatabaseUnusable) as caught:
        await connect_at_start(f"postgresql://somebody:{PASSWORD}@{address}/app")

    assert PASSWORD not in str(caught.value)
    assert PASSWORD not in repr(caught.value.__cause__)
    assert caught.value.hint is not None


async def test_a_wrong_password_is_refused_without_repeating_it(server: str) -> None:
    parts = urlsplit(server)
    wrong = urlunsplit(parts._replace(netloc=f"operon:{PASSWORD}@"))

    with pytest.raises(DatabaseUnusable) as caught:
        await connect_at_start(wrong)

    assert PASSWORD not in str(caught.value)
    assert caught.value.hint is not None


async def test_a_database_that_does_not_exist_is_refused(server: str) -> None:
    with pytest.raises(DatabaseUnusable, match="no_such_database"):
        await connect_at_start(server.replace("/postgres", "/no_such_database"))


def test_an_error_is_described_without_the_password() -> None:
    url = f"postgresql://somebody:{PASSWORD}@db/app"

    text = describe(ValueError(f"cannot parse {url}"), url)

    assert PASSWORD not in text
    assert "cannot parse" in text


@pytest.fixture
async def plain_role(server: str) -> AsyncIterator[str]:
    """A role that may log in and nothing else."""
    role = f"operon_test_{secrets.token_hex(4)}"
    connection = await asyncpg.connect(server)
    await connection.execute(f"create role {role} login password '{PASSWORD}'")
    yield role
    await connection.execute(f"drop role {role}")
    await connection.close()


async def as_role(url: str, role: str) -> str:
    """The URL of the same database for another role."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{role}:{PASSWORD}@"))


async def test_a_role_without_the_right_to_migrate_is_told_so(empty: str, plain_role: str) -> None:
    connection = await asyncpg.connect(await as_role(empty, plain_role))

    with pytest.raises(DatabaseUnusable, match="may not migrate") as caught:
        await migrate(connection)

    assert caught.value.hint is not None
    assert "operon migrate" in caught.value.hint
    await connection.close()


async def test_a_role_without_ddl_runs_workflows_on_a_migrated_schema(server: str, plain_role: str) -> None:
    runtime = TestRuntime(one_step, database_url=server)
    async with runtime:
        for grant in (
            f"grant usage on schema operon to {plain_role}",
            f"grant select, insert, update, delete on all tables in schema operon to {plain_role}",
            f"grant usage on all sequences in schema operon to {plain_role}",
        ):
            await runtime.execute(grant)
        app = one_step.application(await as_role(runtime.database_url, plain_role))

        async with app:
            handle = await one_step.greet(app.context(), "Ada")
            result = await handle.get_result(timeout=60)

        await runtime.execute(f"drop owned by {plain_role}")

    assert result == "Hello, Ada: 3"
