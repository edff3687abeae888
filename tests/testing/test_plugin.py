"""The pytest plugin: there when it is wanted, and nowhere else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.testing.folder import PROJECT, ROOT, run_pytest

SHOP = """
import operon
from operon import TransactionContext, WorkflowContext

@operon.transaction
async def look(tx: TransactionContext) -> int:
    return await tx.client.fetchval("select count(*) from operon.workflows")

@operon.workflow
async def shop(ctx: WorkflowContext) -> int:
    return await look(ctx)

runs = 0

@operon.workflow
async def counts_its_runs(ctx: WorkflowContext) -> int:
    global runs
    runs += 1
    return runs

app = operon.Operon(__name__)
"""

CONFIGURED = PROJECT + 'operon_app = "shop:app"\n'


def test_a_fixture_runs_the_application_that_is_configured_on_a_database_of_its_own(
    tmp_path: Path, server: str
) -> None:
    tests = """
from shop import shop

async def test_one(operon_runtime):
    assert await (await shop(operon_runtime.context)).get_result() == 1

async def test_two(operon_runtime):
    assert await (await shop(operon_runtime.context)).get_result() == 1
"""

    said = run_pytest(tmp_path, {"pyproject.toml": CONFIGURED, "shop.py": SHOP, "test_shop.py": tests}, server)

    assert "2 passed" in said, said  # and not four: there is no trio in it
    assert "2 deselected" in said, said


def test_a_workflow_that_would_not_survive_a_crash_fails_its_test(tmp_path: Path, server: str) -> None:
    tests = """
from shop import counts_its_runs

async def test_it(operon_runtime):
    assert await (await counts_its_runs(operon_runtime.context)).get_result() == 1
"""

    said = run_pytest(tmp_path, {"pyproject.toml": CONFIGURED, "shop.py": SHOP, "test_shop.py": tests}, server)

    assert "1 passed" in said, said
    assert "1 error" in said, said
    assert "every step is the same, and the outcome is not" in said
    assert ">  end  SUCCESS 1  SUCCESS 2" in said


def test_without_an_application_it_says_how_to_name_one(tmp_path: Path, server: str) -> None:
    said = run_pytest(tmp_path, {"test_it.py": "async def test_it(operon_runtime): pass"}, server)

    assert "set operon_app = 'module:app'" in said, said


def test_tests_that_do_not_want_it_run_on_trio_and_without_anyio_s_plugin(tmp_path: Path, server: str) -> None:
    tests = """
def test_plain():
    pass
"""
    asynchronous = """
async def test_on_each_backend(anyio_backend_name):
    assert anyio_backend_name in {"asyncio", "trio"}
"""

    alone = run_pytest(tmp_path, {"test_it.py": tests}, server, "-p", "no:anyio", "-o", "anyio_mode=")
    both = run_pytest(tmp_path, {"test_it.py": tests, "test_async.py": asynchronous}, server)

    assert "1 passed" in alone, alone
    assert "deselected" not in both, both
    assert "2 passed" in both or "3 passed" in both, both  # trio is there or not


def test_the_plugin_imports_nothing_of_operon() -> None:
    look = "import sys, pytest_operon; print(sorted({'operon', 'quart', 'anyio'} & {*sys.modules}))"

    found = subprocess.run([sys.executable, "-c", look], cwd=ROOT, capture_output=True, text=True, check=True)

    assert found.stdout.strip() == "[]"
