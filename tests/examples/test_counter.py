"""The example runs and prints what its comments say."""

from __future__ import annotations

import pytest

from examples import counter


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_the_counter_adds_crashes_and_begins_anew(capsys: pytest.CaptureFixture[str]) -> None:
    await counter.main()

    assert capsys.readouterr().out.splitlines() == [
        "total: 2",
        "total after the crash: 0",
        "<Supervisor demo one_for_one: 1 running, 1/3 restarts in 5 s>",
    ]
