"""What every test shares: asyncio as the event loop's backend, a server that outlives the run, how long a test may
take, and in which order several processes take the files."""

from __future__ import annotations

import pytest

LONG_SECONDS = 600.0


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


def pytest_configure(config: pytest.Config) -> None:
    """Has `pytest -n 3 --dist loadscope` keep our order; it would begin with the files that have the most tests."""
    config.option.loadscopereorder = False


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Long tests have ten minutes, as others may run beside them.

    Among several processes, files with long tests go first: one of them at the end is waited for alone.
    """
    long = [item for item in items if item.get_closest_marker("long")]
    for item in long:
        item.add_marker(pytest.mark.timeout(LONG_SECONDS))
    if hasattr(config, "workerinput"):
        files = {item.path for item in long}
        items.sort(key=lambda item: item.path not in files)
