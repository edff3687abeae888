"""`operon init`: a project that runs, and whose own tests pass."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from operon.cli.init import contents, templates
from tests.cli.calls import ROOT, command
from tests.cli.test_start import fetch, served_url, started


@pytest.mark.parametrize("template", templates())
async def test_the_tests_of_a_new_project_pass(server: str, folder: Path, template: str) -> None:
    made = command("init", "my-project", "--template", template)
    environment = {**os.environ, "OPERON_TEST_DATABASE_URL": server, "PYTHONPATH": str(ROOT)}

    run = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-m", "pytest", "-p", "no:cacheprovider"),
        cwd=folder / "my-project",
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    async with asyncio.timeout(100):
        said, _ = await run.communicate()

    assert made.code == 0
    assert run.returncode == 0, said.decode()
    assert re.search(r"[2-9] passed", said.decode())


CHECKS = [
    ["mypy", "--strict", "--no-incremental", "--follow-imports=silent", "app.py"],
    ["ruff", "check", "."],
    ["ruff", "format", "--check", "."],
]


@pytest.mark.long
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: " ".join(check[:2]))
@pytest.mark.parametrize("template", templates())
def test_a_new_project_leaves_its_tools_nothing_to_say(folder: Path, template: str, check: list[str]) -> None:
    command("init", "my-project", "--template", template)

    done = subprocess.run(
        [sys.executable, "-m", *check],
        cwd=folder / "my-project",
        env={**os.environ, "MYPYPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr


FIRST = {"hello": re.compile("Hello, Ada! You have been greeted 1 times."), "shop": re.compile("[0-9a-f-]{36}")}


@pytest.mark.parametrize("template", templates())
async def test_what_init_says_to_do_next_is_answered(database: str, folder: Path, template: str) -> None:
    made = command("init", "my-project", "--template", template)
    *_, change, start, ask = (line.strip() for line in made.out.splitlines())
    request = re.fullmatch(r"curl (?:-X (?P<method>\w+) )?localhost:8000(?P<path>\S+)", ask)
    file = folder / "my-project" / "operon.toml"
    file.write_text(file.read_text().replace("port = 8000", "port = 0"))

    async with started(folder / "my-project", OPERON_DATABASE_URL=database) as running:
        url = await served_url(running, [])
        assert request is not None
        answer = await fetch(urllib.request.Request(url + request["path"], method=request["method"] or "GET"))

    assert [change, start] == ["cd my-project", "operon start app"]
    assert FIRST[template].fullmatch(answer)


@pytest.mark.parametrize("template", templates())
def test_a_template_has_what_a_project_needs_and_no_placeholder_left(folder: Path, template: str) -> None:
    made = command("init", "my-project", "--template", template)

    files = {
        path.relative_to("my-project"): path.read_text() for path in Path("my-project").rglob("*") if path.is_file()
    }
    assert {Path(name) for name in ("app.py", "pyproject.toml", "operon.toml", "README.md", ".gitignore")} <= set(files)
    assert set(files) == {place for place, _ in contents(template)}
    assert not [place for place, text in files.items() if "{{" in text]
    assert all(f"my-project/{place}" in made.out for place in files)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ab", "has 2 characters; a project's name has 3 to 30"),
        ("a" * 31, "has 31 characters"),
        ("Shop", "is no project's name"),
        ("1shop", "is no project's name"),
        ("my shop", "is no project's name"),
        ("shop-", "is no project's name"),
        ("a--b", "is no project's name"),
        ("../shop", "is no project's name"),
        ("schön", "is no project's name"),
    ],
)
def test_a_name_that_is_none_is_refused(folder: Path, name: str, said: str) -> None:
    refused = command("init", "--", name)

    assert refused.code == 2
    assert said in refused.err
    assert list(folder.iterdir()) == []


def test_what_is_there_is_left_alone(folder: Path) -> None:
    (folder / "shop").mkdir()
    (folder / "shop" / "app.py").write_text("mine")

    refused = command("init", "shop")

    assert refused.code == 1
    assert refused.err.startswith("operon: shop is there already\nHint: ")
    assert (folder / "shop" / "app.py").read_text() == "mine"


def test_an_empty_folder_is_used(folder: Path) -> None:
    (folder / "shop").mkdir()

    assert command("init", "shop").code == 0
    assert (folder / "shop" / "app.py").is_file()
