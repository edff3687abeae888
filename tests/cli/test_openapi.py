"""`operon openapi`: the document that the application serves, without running it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from operon.cli.target import load
from tests.cli.calls import command

APPLICATION = """
import operon

@operon.get("/shows/<show>")
async def seats(ctx: operon.HandlerContext, show: str, row: int = 1) -> list[str]:
    return []

app = operon.Operon(__name__, version="7", docs=True)
"""


@pytest.fixture
def shop(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr("sys.path", [*sys.path])
    (folder / "openapi_shop.py").write_text(APPLICATION)
    return "openapi_shop"


async def test_it_prints_what_the_application_serves(shop: str) -> None:
    printed = command("openapi", shop)

    served = await (await load((shop, "app")).quart.test_client().get("/openapi.json")).get_json()
    assert printed.code == 0
    assert printed.json == served
    assert printed.json["info"]["version"] == "7"
    assert "/shows/{show}" in printed.json["paths"]
