"""Settings: where they come from, which one wins, and what is refused, in words that say where it stands."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest

import operon
from operon.config import PREFIX, TYPES, Configuration, Settings, check_keywords, load, strangers
from operon.errors import ConfigurationError
from operon.testing import TestRuntime


def another(name: str) -> Any:
    """Another value than the default of a setting, which is allowed beside the defaults of all others."""
    default, kind = getattr(Settings(), name), TYPES[name]
    if get_origin(kind) is Literal:
        return next(value for value in get_args(kind) if value != default)
    match default:
        case bool():
            return not default
        case int():
            return default + 1
        case float():
            return default * 0.75
        case _:
            return "another" * 5  # long enough for a token


def settings_of(folder: Path, **arguments: Any) -> Settings:
    arguments.setdefault("environ", {})
    return load(folder=folder, **arguments).settings


def test_without_anything_every_setting_has_its_default(tmp_path: Path) -> None:
    configuration = load(environ={}, folder=tmp_path)

    assert configuration.settings == Settings()
    assert set(configuration.origins.values()) == {"default"}
    assert configuration.application == {}


@pytest.mark.parametrize("name", TYPES)
def test_a_setting_has_one_name_everywhere(tmp_path: Path, name: str) -> None:
    value = another(name)
    text = str(value).lower()
    (tmp_path / "operon.toml").write_text(f'{name} = "{text}"' if isinstance(value, str) else f"{name} = {text}")

    from_file = settings_of(tmp_path)
    from_environment = settings_of(tmp_path / "nowhere", environ={PREFIX + name.upper(): text})
    from_options = settings_of(tmp_path / "nowhere", options={name: value})
    from_constructor = settings_of(tmp_path / "nowhere", keywords={name: value})

    assert getattr(Settings(), name) != value
    assert from_file == from_environment == from_options == from_constructor
    assert getattr(from_file, name) == value


def test_the_constructor_wins_over_the_command_line_the_environment_and_the_file(tmp_path: Path) -> None:
    (tmp_path / "operon.toml").write_text("port = 1\nhost = 'file'\nversion = 'file'\npool_size = 1\nmax_live = 11\n")
    environ = {"OPERON_PORT": "2", "OPERON_HOST": "variable", "OPERON_VERSION": "7", "OPERON_POOL_SIZE": "2"}

    configuration = load(
        {"port": 4, "host": None},
        options={"port": 3, "host": "option", "version": "option", "pool_size": None},
        environ=environ,
        folder=tmp_path,
    )

    found = configuration.settings
    assert (found.port, found.host, found.version, found.pool_size, found.max_live) == (4, "option", "option", 2, 11)
    asked = ("port", "host", "pool_size", "max_live", "env")
    assert [configuration.origins[name] for name in asked] == [
        "Operon(port=...)",
        "--host",
        "OPERON_POOL_SIZE",
        "operon.toml",
        "default",
    ]


def test_an_empty_variable_counts_as_not_set(tmp_path: Path) -> None:
    assert settings_of(tmp_path, environ={"OPERON_PORT": ""}).port == 8000


def test_pyproject_has_a_table_for_it(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.operon]\nport = 9\n[tool.operon.application]\nshop = 'Quill'")

    configuration = load(environ={}, folder=tmp_path)

    assert configuration.settings.port == 9
    assert configuration.application == {"shop": "Quill"}
    assert configuration.origins["port"] == "[tool.operon] of pyproject.toml"


def test_a_pyproject_without_the_table_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.other]\nport = 9")

    assert load(environ={}, folder=tmp_path).file is None


def test_a_file_further_up_is_not_looked_for(tmp_path: Path) -> None:
    (tmp_path / "operon.toml").write_text("port = 9")
    (tmp_path / "below").mkdir()

    assert settings_of(tmp_path / "below").port == 8000


def test_two_files_with_settings_are_refused(tmp_path: Path) -> None:
    (tmp_path / "operon.toml").write_text("port = 9")
    (tmp_path / "pyproject.toml").write_text("[tool.operon]\nport = 10")

    with pytest.raises(ConfigurationError, match=r"operon\.toml and pyproject\.toml"):
        settings_of(tmp_path)


def test_variables_are_filled_in_wherever_the_file_has_text(tmp_path: Path) -> None:
    (tmp_path / "operon.toml").write_text(
        """
        database_url = "postgresql://shop:${PASSWORD}@${HOST}/shop"
        port = "${PORT}"
        [application]
        greeting = "Hello"
        [application.bank]
        urls = ["https://${HOST}/a", { url = "${HOST}" }]
        limit = 10.5
        """
    )

    configuration = load(environ={"PASSWORD": "p${HOST}", "HOST": "db", "PORT": "81"}, folder=tmp_path)

    assert configuration.settings.database_url == "postgresql://shop:p${HOST}@db/shop"  # filled in once, not twice
    assert configuration.settings.port == 81
    assert configuration.application == {
        "greeting": "Hello",
        "bank": {"urls": ["https://db/a", {"url": "db"}], "limit": 10.5},
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [("$${A}", "${A}"), ("$${A}${A}", "${A}x"), ("$5, $A", "$5, $A"), ("$$", "$$"), ("$$${A}", "$${A}"), ("}", "}")],
)
def test_a_doubled_dollar_is_a_plain_one(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "operon.toml").write_text(f"[application]\nvalue = '{text}'")

    assert load(environ={"A": "x"}, folder=tmp_path).application == {"value": expected}


def test_a_variable_may_be_set_and_empty(tmp_path: Path) -> None:
    (tmp_path / "operon.toml").write_text("[application]\nvalue = '${A}'")

    assert load(environ={"A": ""}, folder=tmp_path).application == {"value": ""}


@pytest.mark.parametrize(
    ("content", "path"),
    [
        ("database_url = 'postgresql://u:${MISSING}@h/d'", "database_url"),
        ("[application]\na = '${MISSING}'", "application.a"),
        ("[application.bank]\nkeys = ['x', '${MISSING}']", r"application\.bank\.keys\[1\]"),
    ],
)
def test_a_missing_variable_is_named_with_its_place(tmp_path: Path, content: str, path: str) -> None:
    (tmp_path / "operon.toml").write_text(content)

    with pytest.raises(ConfigurationError, match=rf"{path} in operon\.toml needs .* MISSING"):
        load(environ={}, folder=tmp_path)


def test_what_overrides_a_setting_needs_none_of_its_variables(tmp_path: Path) -> None:
    (tmp_path / "operon.toml").write_text("database_url = 'postgresql://u:${MISSING}@h/d'")

    found = settings_of(tmp_path, environ={"OPERON_DATABASE_URL": "postgresql://h/other"})

    assert found.database_url == "postgresql://h/other"


@pytest.mark.parametrize("text", ["${", "${}", "${A", "${A-B}", "${A:-default}", "${1}"])
def test_a_malformed_reference_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "operon.toml").write_text(f"[application]\nvalue = '{text}'")

    with pytest.raises(ConfigurationError, match="malformed reference"):
        load(environ={"A": "x"}, folder=tmp_path)


def test_an_unknown_key_is_refused_with_a_suggestion_and_the_name_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "operon.toml").write_text("databse_url = 'x'")

    with pytest.raises(ConfigurationError, match=r"operon\.toml.*'databse_url'") as refused:
        settings_of(tmp_path)

    assert refused.value.hint == "did you mean 'database_url'?"


def test_an_unknown_keyword_is_refused_where_it_is_written() -> None:
    with pytest.raises(ConfigurationError, match="'prot'") as refused:
        operon.Operon(__name__, prot=1)

    assert refused.value.hint == "did you mean 'port'?"


def test_an_unknown_keyword_with_no_likeness_lists_what_there_is() -> None:
    with pytest.raises(ConfigurationError) as refused:
        check_keywords({"zzz": 1})

    assert refused.value.hint is not None
    assert set(TYPES) <= set(refused.value.hint.removeprefix("there are: ").split(", "))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("port = ", "is not TOML"),
        ("application = 3", "not a table"),
        ("port = true", "port cannot be True"),
        ("version = 3", "version cannot be 3"),
        ("lease_seconds = nan", "lease_seconds cannot be nan"),
        ("lease_seconds = inf", "lease_seconds cannot be inf"),
        ("[port]\nnumber = 8000", "port cannot be"),
    ],
)
def test_a_file_that_makes_no_sense_is_named(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "operon.toml").write_text(content)

    with pytest.raises(ConfigurationError, match=said) as refused:
        settings_of(tmp_path)

    assert "operon.toml" in str(refused.value)


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "operon.toml").write_bytes(b"\xff\xfe\x00")

    with pytest.raises(ConfigurationError, match=r"operon\.toml cannot be read"):
        settings_of(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "operon.toml").touch(mode=0)

    with pytest.raises(ConfigurationError, match=r"operon\.toml cannot be read"):
        settings_of(tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("port", "eight", "int"),
        ("port", "70000", "65535"),
        ("port", "-1", ">= 0"),
        ("pool_size", "0", ">= 1"),
        ("max_live", "2.5", "int"),
        ("lease_seconds", "0", "> 0"),
        ("poll_seconds", "nan", "> 0"),
        ("shutdown_seconds", "-1", ">= 0"),
        ("body_limit_bytes", "0", ">= 1"),
        ("env", "staging", "staging"),
    ],
)
def test_a_value_that_cannot_be_is_refused_with_its_origin(tmp_path: Path, name: str, text: str, expected: str) -> None:
    variable = PREFIX + name.upper()

    with pytest.raises(ConfigurationError, match=f"{name} cannot be '{text}', as {variable} says") as refused:
        settings_of(tmp_path, environ={variable: text})

    assert refused.value.hint is not None
    assert expected in refused.value.hint


def test_a_lease_shorter_than_two_heartbeats_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"lease_seconds is 3\.0 and heartbeat_seconds 2\.0"):
        settings_of(tmp_path, environ={"OPERON_LEASE_SECONDS": "3"})


def test_two_settings_that_fit_only_together_may_come_from_two_places(tmp_path: Path) -> None:
    (tmp_path / "operon.toml").write_text("heartbeat_seconds = 0.5")
    check_keywords({"lease_seconds": 1})

    assert settings_of(tmp_path, keywords={"lease_seconds": 1}).lease_seconds == 1.0


def test_a_variable_that_looks_like_a_setting_is_noticed() -> None:
    environ = {"OPERON_DATABSE_URL": "x", "OPERON_PORT": "1", "OPERON_TEST_DATABASE_URL": "x", "HOME": "/"}

    assert strangers(environ) == ["OPERON_DATABSE_URL is no setting; did you mean 'OPERON_DATABASE_URL'?"]


def test_the_constructor_s_own_keys_win_over_those_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "operon.toml").write_text("[application]\na = 'file'\nb = 'file'")

    configuration = load(application={"b": 0, "c": None}, environ={}, folder=tmp_path)

    assert configuration.application == {"a": "file", "b": 0, "c": None}


@operon.workflow
async def greeting(ctx: operon.WorkflowContext) -> str:
    return f"{ctx.config['greeting']['text']}, {ctx.config['name']}{ctx.config.get('end', '!')}"


async def test_an_operation_reads_the_keys_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with TestRuntime(__name__):  # makes the server of the tests, in the folder of the tests
        server = Path.cwd() / ".operon"
    (tmp_path / "operon.toml").write_text("[application]\nname = 'Bob'\n[application.greeting]\ntext = '${TEXT}'")
    (tmp_path / ".operon").symlink_to(server)
    monkeypatch.setenv("TEXT", "Hello")
    monkeypatch.chdir(tmp_path)

    async with TestRuntime(__name__, config={"name": "Ada"}) as runtime:
        handle = await greeting(runtime.context)

        assert await handle.get_result(timeout=60) == "Hello, Ada!"


def test_a_configuration_shows_no_password(tmp_path: Path) -> None:
    (tmp_path / "operon.toml").write_text(
        "database_url = 'postgresql://u@h/d?password=hunter2'\n[application]\nk='hunter2'"
    )

    configuration: Configuration = load(environ={}, folder=tmp_path)

    assert "hunter2" not in repr(configuration)
    assert "hunter2" not in repr(configuration.settings)
    assert "postgresql://u@h/d?password=***" in repr(configuration.settings)
