"""The project's configuration file: `operon.toml`, or the table `[tool.operon]` of `pyproject.toml`.

    database_url = "postgresql://shop:${DB_PASSWORD}@db/shop"
    lease_seconds = 15

    [application]               # free keys, for `ctx.config`
    bank = "${BANK_URL}"

It is looked for in the current folder and nowhere else: a file further up, which belongs to another project, would
otherwise decide where this one writes. Two files with settings are refused, because one of them would be ignored.

`${NAME}` in a string is the variable NAME of the environment, `$${` a plain `${`. A variable that is not set is an
error, never an empty text; but only where the value is used: what overrides a setting needs none of its variables.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from operon.errors import ConfigurationError

OWN = "operon.toml"
SHARED = "pyproject.toml"
APPLICATION = "application"

REFERENCE = re.compile(r"\$\$\{|\$\{([^}]*)(\}?)")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """What a file says, before its variables are filled in."""

    name: str  # for messages: of the file, and of the table where it shares one
    settings: Mapping[str, Any]
    application: Mapping[str, Any]

    def setting(self, name: str, environ: Mapping[str, str]) -> Any:
        """The value of a setting, with its variables. Raises ConfigurationError that names a missing one."""
        return self._filled(self.settings[name], name, environ)

    def filled_application(self, environ: Mapping[str, str]) -> dict[str, Any]:
        """The application's own keys, with their variables. Raises ConfigurationError that names a missing one."""
        filled: dict[str, Any] = self._filled(self.application, APPLICATION, environ)
        return filled

    def _filled(self, value: Any, path: str, environ: Mapping[str, str]) -> Any:
        match value:
            case str():
                return REFERENCE.sub(lambda match: self._variable(match, path, environ), value)
            case dict():
                table = cast("dict[str, Any]", value)
                return {key: self._filled(item, f"{path}.{key}", environ) for key, item in table.items()}
            case list():
                items = cast("Sequence[Any]", value)
                return [self._filled(item, f"{path}[{index}]", environ) for index, item in enumerate(items)]
            case _:
                return value

    def _variable(self, match: re.Match[str], path: str, environ: Mapping[str, str]) -> str:
        name = match[1]
        if name is None:
            return "${"
        if not match[2] or VARIABLE.fullmatch(name) is None:
            raise ConfigurationError(
                f"{path} in {self.name} has a malformed reference: {match[0]}",
                hint="write ${NAME} for a variable of the environment, $${ for a plain ${",
            )
        if name not in environ:
            raise ConfigurationError(
                f"{path} in {self.name} needs the environment variable {name}, which is not set",
                hint=f"set {name}, or write $${{{name}}} if that text is meant",
            )
        return environ[name]


def read(folder: Path) -> ConfigFile | None:
    """The configuration file of a folder, or None if it has none.

    Raises ConfigurationError for a file that cannot be read, and for two of them.
    """
    own = parse(folder / OWN)
    tools = (parse(folder / SHARED) or {}).get("tool")
    shared = cast("dict[str, Any]", tools).get("operon") if isinstance(tools, dict) else None
    if own is not None and shared is not None:
        raise ConfigurationError(
            f"both {OWN} and {SHARED} have settings of Operon", hint=f"move those of [tool.operon] to {OWN}"
        )
    if own is not None:
        return divided(own, OWN)
    return None if shared is None else divided(shared, f"[tool.operon] of {SHARED}")


def divided(content: Any, name: str) -> ConfigFile:
    """Settings here, the application's keys there."""
    if not isinstance(content, dict):
        raise ConfigurationError(f"{name} is not a table")
    settings = cast("dict[str, Any]", content)
    application = settings.pop(APPLICATION, {})
    if not isinstance(application, dict):
        raise ConfigurationError(f"{APPLICATION} in {name} is not a table", hint='[application]\ngreeting = "Hello"')
    return ConfigFile(name, settings, cast("dict[str, Any]", application))


def parse(path: Path) -> dict[str, Any] | None:
    """The content of a TOML file, or None if it is not there."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path.name} cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path.name} is not TOML: {error}") from error
