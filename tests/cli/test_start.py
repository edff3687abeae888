"""`operon start`: what it names is found or refused in one message, and its settings are the configured ones."""

from __future__ import annotations

import asyncio
import re
import sys
import urllib.request
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from anyio import to_thread

from tests.cli.calls import command, process

APPLICATION = """
import operon

@operon.get("/")
async def root(ctx: operon.HandlerContext) -> str:
    return f"{ctx.config.get('greeting')} version 1"

app = operon.Operon(__name__, version="code", max_live=7)
"""


@pytest.fixture
def modules(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own for modules, which are forgotten with it."""
    monkeypatch.setattr("sys.path", [*sys.path])
    return folder


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("no_such_module", "there is no module 'no_such_module' here"),
        ("no_such.module:app", "there is no module 'no_such.module' here"),
        ("empty_module", "empty_module has no Operon application named 'app'"),
        ("other_name", "other_name has no Operon application named 'app'\nHint: did you mean other_name:shop?"),
        ("other_name:shops", "other_name has no Operon application named 'shops'\nHint: did you mean other_name:shop?"),
        ("other_name.py", "there is no module 'other_name.py' here\nHint: write it as a module: other_name"),
        ("wrong_keyword", "there is no setting 'prot'\nHint: did you mean 'port'?"),
    ],
)
def test_what_is_not_there_is_one_message_with_a_hint(modules: Path, target: str, said: str) -> None:
    (modules / "empty_module.py").write_text("")
    (modules / "other_name.py").write_text("import operon\nshop = operon.Operon(__name__)")
    (modules / "wrong_keyword.py").write_text("import operon\napp = operon.Operon(__name__, prot=1)")

    failed = command("start", target)

    assert failed.code == 1
    assert failed.err.startswith(f"operon: {said}")
    assert "Hint: " in failed.err
    assert "Traceback" not in failed.err


@pytest.mark.parametrize(
    ("name", "code", "end"),
    [
        ("raises", "def f():\n    return 1 / 0\nf()", "ZeroDivisionError: division by zero"),
        ("needs", "import surely_not_installed", "ModuleNotFoundError: No module named 'surely_not_installed'"),
        ("is_no_python", "def", "SyntaxError: invalid syntax"),
    ],
)
def test_an_error_of_the_module_s_own_is_shown_from_its_first_line_on(
    modules: Path, name: str, code: str, end: str
) -> None:
    (modules / f"{name}.py").write_text(code)

    failed = command("start", name)

    assert failed.code == 1
    assert f'{name}.py", line 1' in failed.err or f'{name}.py", line 3' in failed.err
    assert end in failed.err
    assert f"operon: {name} cannot be imported\nHint: " in failed.err
    assert "importlib" not in failed.err
    assert "operon/cli" not in failed.err


def test_a_missing_variable_of_the_file_is_named(modules: Path) -> None:
    (modules / "variable_app.py").write_text(APPLICATION)
    (modules / "operon.toml").write_text("database_url = 'postgresql://shop:${SHOP_PASSWORD}@db/shop'")

    failed = command("start", "variable_app")

    assert failed.code == 1
    assert failed.err.startswith("operon: database_url in operon.toml needs the environment variable SHOP_PASSWORD")


def test_production_refuses_the_embedded_postgres(modules: Path) -> None:
    (modules / "production_app.py").write_text(APPLICATION)

    failed = command("start", "production_app", OPERON_ENV="production")

    assert failed.code == 1
    assert "not for production" in failed.err


def test_a_database_out_of_reach_is_one_message_without_its_password(modules: Path) -> None:
    (modules / "host_app.py").write_text(APPLICATION)

    failed = command("start", "host_app", "--database-url", "postgresql://u:hunter2@127.0.0.1:9/x")

    assert failed.code == 1
    assert "hunter2" not in failed.err
    assert failed.err.count("operon: ") == 1


@asynccontextmanager
async def started(folder: Path, *options: str, **environment: str) -> AsyncGenerator[asyncio.subprocess.Process]:
    """`operon start app` in a process of its own, stopped at the end as by Ctrl-C."""
    running = await process("start", "app", *options, folder=folder, **environment)
    try:
        yield running
    finally:
        if running.returncode is None:
            running.terminate()
        async with asyncio.timeout(60):
            await running.communicate()


async def served_url(running: asyncio.subprocess.Process, said: list[str]) -> str:
    """Waits until it serves; `said` gets its lines until then."""
    assert running.stdout is not None
    async with asyncio.timeout(60):
        async for line in running.stdout:
            said.append(line.decode())
            if match := re.search(r"Operon serves (http://\S+)", said[-1]):
                return match[1]
    raise AssertionError(f"it ended: {said}")


async def fetch(url: str | urllib.request.Request) -> str:
    def read() -> str:
        with urllib.request.urlopen(url, timeout=60) as answer:
            return str(answer.read().decode())

    return await to_thread.run_sync(read)


async def test_it_takes_its_settings_from_the_file_and_says_which_options_the_constructor_overrules(
    database: str, tmp_path: Path
) -> None:
    (tmp_path / "app.py").write_text(APPLICATION.replace("max_live=7", "max_live=7, host='127.0.0.1'"))
    (tmp_path / "operon.toml").write_text("port = 0\ndatabase_url = '${SHOP}'\n[application]\ngreeting = '${WORD}'")
    said: list[str] = []

    async with started(tmp_path, "--host", "::1", SHOP=database, WORD="Hello") as running:
        url = await served_url(running, said)
        answer = await fetch(url)

    assert answer == "Hello version 1"
    assert url.startswith("http://127.0.0.1:")
    assert "--host has no effect: Operon(host=...)" in said[0]
    assert database not in "".join(said)  # it has a password
    assert running.returncode == 0


async def test_with_reload_it_serves_the_code_that_was_saved_last(database: str, tmp_path: Path) -> None:
    code = tmp_path / "app.py"
    code.write_text(APPLICATION)

    async with started(tmp_path, "--port", "0", "--reload", OPERON_DATABASE_URL=database) as running:
        first = await fetch(await served_url(running, []))
        code.write_text(APPLICATION.replace("version 1", "version two"))
        second = await fetch(await served_url(running, []))

    assert (first, second) == ("None version 1", "None version two")


def test_production_refuses_to_reload(modules: Path) -> None:
    refused = command("start", "app", "--reload", OPERON_ENV="production")

    assert refused.code == 1
    assert "--reload is for development" in refused.err
