"""A stage of its own for every test."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from tests.examples.conftest import private_database
from tests.examples.shop.stage import Stage, customer
from tests.ports import free_port


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncGenerator[Stage]:
    """Databases and ports; nobody listens there yet."""
    async with private_database() as shop, private_database() as payment, customer() as client:
        yield Stage(tmp_path, shop, payment, free_port(), free_port(), client)


@pytest.fixture
async def open_stage(stage: Stage) -> AsyncGenerator[Stage]:
    """Both services are up."""
    async with stage.provider(), stage.shop():
        yield stage
