"""`operon postgres`: the embedded server of a folder, from a shell."""

from __future__ import annotations

from pathlib import Path

from operon.database import testbed
from operon.database.embedded import EmbeddedPostgres
from tests.cli.calls import call, command


async def test_it_starts_is_found_and_stops(folder: Path) -> None:
    first, again = await call("postgres", "start"), await call("postgres", "start")
    url = await call("postgres", "url")
    answer = await testbed.fetch(url.out.strip(), "select 1")

    stopped, stopped_again = await call("postgres", "stop"), await call("postgres", "stop")
    gone = await call("postgres", "url")

    assert first.out == again.out == url.out
    assert [tuple(row) for row in answer] == [(1,)]
    assert (stopped.code, stopped_again.code) == (0, 0)
    assert "is stopped" in stopped.err
    assert "was not running" in stopped_again.err
    assert gone.code == 1
    assert gone.out == ""
    assert "Hint: operon postgres start" in gone.err
    assert EmbeddedPostgres(folder / ".operon/postgres").url() is None


def test_its_folder_is_the_configured_one(folder: Path) -> None:
    (folder / "operon.toml").write_text("data_dir = 'here'")

    from_file, from_option = command("postgres", "url"), command("postgres", "url", "--data-dir", "there")

    assert "in here does not run" in from_file.err
    assert "in there does not run" in from_option.err


def test_in_production_there_is_none(folder: Path) -> None:
    refused = command("postgres", "start", OPERON_ENV="production")

    assert refused.code == 1
    assert "not for production" in refused.err


async def test_a_command_that_looks_starts_the_folder_s_server_but_makes_none(folder: Path) -> None:
    before = await call("workflow", "list")
    await call("postgres", "start")
    await call("migrate")
    await call("postgres", "stop")

    after = await call("workflow", "list", "--json")

    assert before.code == 1
    assert "there is no embedded one in .operon/postgres" in before.err
    assert (after.code, after.json) == (0, [])
