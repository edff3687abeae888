"""The pytest plugin: `operon_runtime`, an application on a private database, as a fixture for asynchronous tests.

Each pytest run of an environment that has Operon loads this file, whether or not its tests need it; so it imports
nothing before a fixture is used, and lies beside the package instead of in it. The tests themselves are run by anyio's
plugin, with `anyio_mode = "auto"` or `@pytest.mark.anyio`.
"""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from operon import Operon
    from operon.testing import TestRuntime

SETTING = "operon_app"


def pytest_addoption(parser: pytest.Parser) -> None:
    """`operon_app = "shop:app"` in pytest's configuration."""
    parser.addini(SETTING, "the application that the fixture operon_runtime runs: module:app")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """anyio runs a test on each of its backends unless it is told otherwise. Operon runs on asyncio only."""
    foreign = [item for item in items if "operon_runtime" in getattr(item, "fixturenames", ()) and runs_on_trio(item)]
    if foreign:
        config.hook.pytest_deselected(items=foreign)
        items[:] = [item for item in items if item not in foreign]


def runs_on_trio(item: pytest.Item) -> bool:
    """Whether anyio would run a test on trio."""
    backend: Any = getattr(getattr(item, "callspec", None), "params", {}).get("anyio_backend", "asyncio")
    return "trio" in (backend, backend[0])  # a name, or a name and options


@pytest.fixture
def operon_app(request: pytest.FixtureRequest) -> Operon | TestRuntime:
    """What `operon_runtime` runs: override it, with an `Operon` or, to choose settings, a `TestRuntime(...)`.

    By itself it is what pytest's setting `operon_app` names.
    """
    target: str = request.config.getini(SETTING)
    if not target:
        raise pytest.UsageError(
            f"operon_runtime has no application to run: set {SETTING} = 'module:app' in pytest's configuration, "
            f"or write a fixture {SETTING} that returns an Operon or a TestRuntime"
        )
    module, _, name = target.partition(":")
    app: Operon = getattr(importlib.import_module(module), name or "app")
    return app


@pytest.fixture
async def operon_runtime(operon_app: Operon | TestRuntime, anyio_backend: Any) -> AsyncIterator[TestRuntime]:
    """The application, running on a private database; at the end its workflows are replayed, and it is removed."""
    from operon.testing import TestRuntime

    async with operon_app if isinstance(operon_app, TestRuntime) else TestRuntime(operon_app) as runtime:
        yield runtime
