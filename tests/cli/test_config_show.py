"""`operon config show`: every setting, where it comes from, and no secret."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from operon.config import TYPES
from tests.cli.calls import command

FILE = """
database_url = "postgresql://shop:${SHOP_PASSWORD}@db/shop?sslpassword=hunter2"
pool_size = 4
[application]
greeting = "Hello"
stripe = "${STRIPE}"
api_key = "hunter2"
[application.mail]
password = "hunter2"
server = "smtp://ada:hunter2@mail"
ports = [25, 587]
"""


def entries(shown: Any) -> dict[str, tuple[Any, str]]:
    return {entry["name"]: (entry["value"], entry["origin"]) for entry in shown}


def test_every_setting_is_shown_with_where_it_comes_from_and_no_secret(folder: Path) -> None:
    (folder / "operon.toml").write_text(FILE)
    environment = {"SHOP_PASSWORD": "hunter2", "STRIPE": "hunter2", "OPERON_PORT": "81"}

    table, shown = command("config", "show", **environment), command("config", "show", "--json", **environment)

    assert "hunter2" not in table.out + shown.out
    found = entries(shown.json)
    assert set(found) >= set(TYPES)
    assert found["database_url"] == ("postgresql://shop:***@db/shop?sslpassword=***", "operon.toml")
    assert found["pool_size"] == (4, "operon.toml")
    assert found["port"] == (81, "OPERON_PORT")
    assert found["host"] == ("127.0.0.1", "default")
    assert found["application.greeting"] == ("Hello", "operon.toml")
    assert found["application.stripe"] == ("${STRIPE}", "operon.toml")
    assert found["application.api_key"] == ("***", "operon.toml")
    mail = {"password": "***", "server": "smtp://ada:***@mail", "ports": [25, 587]}
    assert found["application.mail"] == (mail, "operon.toml")
    assert ["port", "81", "OPERON_PORT"] in table.rows


def test_with_a_module_the_constructor_s_settings_are_shown_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "operon.toml").write_text("[application]\na = 'file'\nb = 'file'")
    code = "import operon\napp = operon.Operon(__name__, port=9, config={'b': object, 'token': 'hunter2'})"
    (folder / "shown_app.py").write_text(code)
    monkeypatch.setattr("sys.path", [*sys.path])  # what it is put on

    found = entries(command("config", "show", "shown_app", "--json").json)

    assert found["port"] == (9, "Operon(port=...)")
    assert found["application.a"] == ("file", "operon.toml")
    assert found["application.b"] == ("<class 'object'>", "Operon(config=...)")
    assert found["application.token"] == ("***", "Operon(config=...)")


def test_a_variable_that_looks_like_a_setting_is_mentioned(folder: Path) -> None:
    shown = command("config", "show", OPERON_DATABSE_URL="x")

    assert shown.code == 0
    assert "OPERON_DATABSE_URL is no setting; did you mean 'OPERON_DATABASE_URL'?" in shown.err
