"""The command line as a whole: what exit codes mean, and that no answer is a traceback of ours."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import click
import pytest

import operon
from operon.cli import main
from tests.cli.calls import command, process


def leaves(group: click.Group, *path: str) -> list[tuple[str, ...]]:
    """The words of every command that does something."""
    found: list[tuple[str, ...]] = []
    for name, member in group.commands.items():
        found += leaves(member, *path, name) if isinstance(member, click.Group) else [(*path, name)]
    return found


def test_the_version_is_told() -> None:
    assert command("--version").out == f"operon, version {operon.__version__}\n"


def test_there_are_these_commands() -> None:
    assert sorted(" ".join(words) for words in leaves(main)) == [
        "config show",
        "dead-letters list",
        "dead-letters purge",
        "dead-letters requeue",
        "doctor",
        "init",
        "migrate",
        "openapi",
        "postgres start",
        "postgres stop",
        "postgres url",
        "start",
        "suspensions lift",
        "suspensions list",
        "top",
        "workflow cancel",
        "workflow list",
        "workflow resume",
        "workflow show",
        "workflow steps",
    ]


@pytest.mark.parametrize("words", leaves(main), ids=" ".join)
def test_every_command_explains_itself_and_its_options(words: tuple[str, ...]) -> None:
    told = command(*words, "--help")

    found: click.Command = main
    for word in words:
        assert isinstance(found, click.Group)
        found = found.commands[word]
    unexplained = [option.name for option in found.params if isinstance(option, click.Option) and not option.help]
    assert told.code == 0
    assert found.help
    # What `--log-level` is needs no words.
    assert [name for name in unexplained if name != "log_level"] == []


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["frobnicate"], id="no such command"),
        pytest.param(["start"], id="argument missing"),
        pytest.param(["start", "no-module"], id="no module's name"),
        pytest.param(["start", "app:"], id="half a target"),
        pytest.param(["start", "app", "--port", "70000"], id="no port"),
        pytest.param(["start", "app", "--frob"], id="no such option"),
        pytest.param(["workflow"], id="half a command"),
        pytest.param(["workflow", "show", "12"], id="no UUID"),
        pytest.param(["workflow", "list", "--status", "HAPPY"], id="no status"),
        pytest.param(["workflow", "list", "--since", "yesterday"], id="no moment"),
        pytest.param(["workflow", "list", "--since", "999999w"], id="before all time"),
        pytest.param(["workflow", "list", "--limit", "0"], id="no limit"),
        pytest.param(["init", "shop", "--template", "frob"], id="no template"),
    ],
)
def test_a_wrong_call_is_told_the_usage_and_exits_with_2(arguments: list[str]) -> None:
    refused = command(*arguments)

    assert refused.code == 2
    assert refused.err.startswith("Usage: operon")
    assert refused.out == ""


@pytest.mark.parametrize("words", [["workflow", "list"], ["migrate"]])
def test_a_database_out_of_reach_is_one_message_with_a_hint_and_no_password(words: list[str]) -> None:
    failed = command(*words, "--database-url", "postgresql://u:hunter2@127.0.0.1:9/x?password=hunter3")

    assert failed.code == 1
    assert failed.out == ""
    message = r"operon: the database at postgresql://u:\*\*\*@127.* cannot be used: .*\nHint: .*\n"
    assert re.fullmatch(message, failed.err)
    assert "hunter" not in failed.err


@pytest.mark.parametrize("words", [["workflow", "list"], ["migrate"], ["config", "show"], ["postgres", "url"]])
def test_a_wrong_file_is_one_message_that_names_it(folder: Path, words: list[str]) -> None:
    (folder / "operon.toml").write_text("prot = 1")

    failed = command(*words)

    assert failed.code == 1
    assert failed.err == "operon: operon.toml has a key that is no setting: 'prot'\nHint: did you mean 'port'?\n"


async def test_it_runs_as_a_program_of_its_own(tmp_path: Path) -> None:
    running = await process("--version", folder=tmp_path)

    async with asyncio.timeout(60):
        said, _ = await running.communicate()

    assert running.returncode == 0
    assert said.decode() == f"operon, version {operon.__version__}\n"
