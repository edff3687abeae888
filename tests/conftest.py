"""What every test shares: asyncio as the event loop's backend, a server that outlives the run, and the order of files
when several processes share them."""

from __future__ import annotations

from collections import Counter

import pytest


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


def pytest_configure(config: pytest.Config) -> None:
    """Has `pytest -n 3 --dist loadscope` keep our order; by itself it begins with the files that have the most tests."""
    config.option.loadscopereorder = False


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Among several processes, the files with the longest tests go first: one of them at the end is waited for alone."""
    if hasattr(config, "workerinput"):
        long = Counter(item.path for item in items if item.get_closest_marker("long"))
        items.sort(key=lambda item: long[item.path] == 0)
