"""What the tests of the runtime's parts share."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.runtime.committing import Bench, committing


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with committing() as made:
        yield made
