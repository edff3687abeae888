"""`operon migrate`: the schema, and two roles that need no more than they are given."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from urllib.parse import urlsplit, urlunsplit

import pytest

from operon.cli.grants import grants
from operon.database import checkup, testbed
from operon.database.migrate import migrations
from operon.errors import ConfigurationError
from tests.cli.calls import call, command
from tests.database import one_step

PASSWORD = "correct-horse-battery"
LATEST = migrations()[-1]


async def test_it_brings_a_database_up_to_date_once(empty: str) -> None:
    first = await call("migrate", "--database-url", empty)
    again = await call("migrate", "--database-url", empty)
    told = await call("migrate", "--database-url", empty, "--json")

    assert first.code == again.code == 0
    assert [f"applied {name}" for _, name, _ in migrations()] == first.out.splitlines()[:-1]
    assert again.out == f"The schema is at version {LATEST[0]}, as it was.\n"
    assert told.json == {"applied": [], "version": LATEST[0]}


async def test_a_schema_of_a_newer_operon_is_one_message(database: str) -> None:
    await testbed.execute(database, "insert into operon.migrations (number, name) values (9999, '9999_later.sql')")

    refused = await call("migrate", "--database-url", database)

    assert refused.code == 1
    assert "9999" in refused.err
    assert "Hint: upgrade" in refused.err


@pytest.fixture
async def roles(server: str, empty: str) -> AsyncIterator[tuple[str, str]]:
    """Names for an owner and an application; the roles are removed at the end, should they have been made."""
    suffix = secrets.token_hex(4)
    names = f"operon_test_owner_{suffix}", f"operon_test-app_{suffix}"
    yield names
    for name in names:
        if await testbed.fetch(server, "select 1 from pg_roles where rolname = $1", name):
            await testbed.execute(empty, f'drop owned by "{name}" cascade')
            await testbed.execute(server, f'drop role "{name}"')


async def as_role(url: str, role: str) -> str:
    """The URL of the same database for another role."""
    await testbed.execute(url, f"alter role \"{role}\" password '{PASSWORD}'")
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{role}:{PASSWORD}@"))


@pytest.mark.parametrize("migrated_before", [False, True], ids=["new", "migrated by another"])
async def test_the_printed_grants_are_enough_to_migrate_and_to_run(
    empty: str, roles: tuple[str, str], migrated_before: bool
) -> None:
    owner, application = roles
    if migrated_before:
        await call("migrate", "--database-url", empty)
    script = (await call("migrate", "--print-grants", "--owner", owner, "--role", application)).out

    await testbed.execute(empty, script)
    await testbed.execute(empty, script)  # a second time changes nothing
    migrated = await call("migrate", "--database-url", await as_role(empty, owner))
    app = one_step.application(await as_role(empty, application))
    async with app:
        handle = await one_step.greet(app.context(), "Ada")
        result = await handle.get_result(timeout=60)
    looked = await call("workflow", "list", "--json", "--database-url", await as_role(empty, application))

    await testbed.execute(await as_role(empty, owner), "alter table operon.workflows add column later text")
    health = await checkup.examine(await as_role(empty, application))
    assert migrated.code == 0, migrated.err
    assert health.missing_rights == []
    assert result == "Hello, Ada: 3"
    assert [one["name"] for one in looked.json] == ["greet"]


async def test_the_application_s_role_may_not_change_the_schema(empty: str, roles: tuple[str, str]) -> None:
    owner, application = roles
    await testbed.execute(empty, grants(owner, application))
    await call("migrate", "--database-url", await as_role(empty, owner))
    url = await as_role(empty, application)

    for statement in (
        "drop table operon.workflows",
        "alter table operon.workflows add column mine text",
        "create table operon.mine (id int)",
        "create schema mine",
        "truncate operon.workflows",
    ):
        with pytest.raises(Exception, match=r"permission denied|must be owner"):
            await testbed.execute(url, statement)


async def test_without_the_grants_a_look_says_which_command_prints_them(database: str, roles: tuple[str, str]) -> None:
    await testbed.execute(database, f'create role "{roles[1]}" login')

    refused = await call("workflow", "list", "--database-url", await as_role(database, roles[1]))

    assert refused.code == 1
    assert "may not look" in refused.err
    assert "--print-grants" in refused.err


@pytest.mark.parametrize("name", ["", "o'hara", 'a"b', "a;b", "1a", "a%b", "a$b", "x" * 64])
def test_a_role_s_name_that_could_be_more_than_a_name_is_refused(name: str) -> None:
    refused = command("migrate", "--print-grants", "--role", name)

    assert refused.code == 1
    assert "is no plain name of a role" in refused.err
    assert refused.out == ""


def test_one_role_for_both_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="both roles"):
        grants("same", "same")
