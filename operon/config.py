"""Settings, checked once, at the edge, each with where its value came from.

The first of these that says something wins:

    constructor      Operon(__name__, lease_seconds=15)
    command line     operon start --port 8080
    environment      OPERON_LEASE_SECONDS=15
    file             lease_seconds = 15 in operon.toml, or under [tool.operon] in pyproject.toml (see config_file.py)
    default

Every setting has one name everywhere: the constructor's keyword `lease_seconds` is `OPERON_LEASE_SECONDS` in the
environment and `lease_seconds` in the file. What a setting may be is written in its type here, and nowhere else.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import msgspec
from msgspec import Meta

from operon import config_file
from operon.config_file import APPLICATION, ConfigFile
from operon.dsn import HIDDEN, SECRET_NAME, masked, without_passwords
from operon.errors import ConfigurationError

__all__ = ["Configuration", "Settings", "check_keywords", "load", "masked", "shown", "strangers"]

PREFIX = "OPERON_"
DEFAULT = "default"
OVERRIDE = "override"
NOT_SETTINGS = {"OPERON_TEST_DATABASE_URL"}  # what `operon.testing` makes its databases on

Count = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0, le=1e9)]  # bounded, as "inf" is a float too
Patience = Annotated[float, Meta(ge=0, le=1e9)]
Token = Annotated[str, Meta(min_length=32)]
NO_KEYS: Mapping[str, Any] = {}


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The runtime's own settings, with units in their names."""

    database_url: str | None = None  # None: the embedded Postgres
    direct_url: str | None = None  # for the listening connection, past a pooler in transaction mode
    notify: Literal["on", "off"] = "on"  # off: polls instead of LISTEN
    data_dir: str = ".operon/postgres"  # where the embedded Postgres keeps its data
    pool_size: Count = 16  # connections for user transactions; eight more serve the runtime itself
    lease_seconds: Seconds = 10.0  # how long an executor that cannot be heard keeps its workflows
    heartbeat_seconds: Seconds = 2.0
    poll_seconds: Seconds = 1.0  # the process-wide safety poll
    max_live: Count = 20_000  # live workflow actors in this process
    park_after_seconds: Patience = 5.0  # how long a workflow that only waits stays in memory
    mailbox_limit: Count = 10_000  # messages that wait for one workflow
    crash_budget: Annotated[int, Meta(ge=0)] = 5  # crashes of one workflow without progress before it is DEAD
    max_deliveries: Count = 3  # of a message that crashes its workflow each time, before it is set aside; see Topic
    suspend_after: Annotated[int, Meta(ge=0)] = 20  # workflows of a name that crash in a minute; 0: never suspended
    shutdown_seconds: Patience = 25.0  # how long a drain waits for running steps
    body_limit_bytes: Count = 1024 * 1024
    log_format: Literal["text", "json"] = "text"  # of what `operon start` logs
    docs: bool = True  # whether /openapi.json and /docs are served
    admin_token: Token | None = None  # for /operon/supervisor from elsewhere; from this machine it needs none
    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 8000
    workers: Count = 1  # processes of `operon start` that share the port
    env: Literal["development", "test", "production"] = "development"
    version: str = "0"  # of the application; recorded with every workflow that it starts

    def __post_init__(self) -> None:
        if self.lease_seconds < 2 * self.heartbeat_seconds:
            raise ConfigurationError(
                f"lease_seconds is {self.lease_seconds} and heartbeat_seconds {self.heartbeat_seconds}",
                hint="a lease lasts at least two heartbeats, or one late heartbeat would cost it",
            )

    def __repr__(self) -> str:
        fields = msgspec.structs.asdict(self)
        return f"Settings({', '.join(f'{name}={shown(name, value)!r}' for name, value in fields.items())})"


TYPES: Mapping[str, Any] = {field.name: field.type for field in msgspec.structs.fields(Settings)}


@dataclass(frozen=True, slots=True)
class Configuration:
    """Everything that was configured, and where."""

    settings: Settings
    application: Mapping[str, Any]  # for `ctx.config`
    origins: Mapping[str, str]  # in words: "OPERON_PORT", "operon.toml", "default"; also of "application.KEY"
    file: ConfigFile | None

    def __repr__(self) -> str:
        return f"<Configuration {self.settings!r}, application keys: {', '.join(self.application) or 'none'}>"


def load(
    keywords: Mapping[str, Any] = NO_KEYS,
    *,
    overrides: Mapping[str, Any] = NO_KEYS,
    options: Mapping[str, Any] = NO_KEYS,
    application: Mapping[str, Any] = NO_KEYS,
    environ: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> Configuration:
    """The configuration of a process. A value of None counts as not given, an empty variable as not set.

    keywords, application: the constructor's. options: the command line's. overrides: a test's, stronger than all.
    folder: where the configuration file is, by default the current folder.
    Raises ConfigurationError, which names the setting and where its value came from.
    """
    environ = os.environ if environ is None else environ
    for names in (keywords, options, overrides):
        refuse_unknown(names, "there is no setting")
    file = config_file.read(folder or Path.cwd())
    if file is not None:
        refuse_unknown(file.settings, f"{file.name} has a key that is no setting:")
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for name in TYPES:
        variable = PREFIX + name.upper()
        if overrides.get(name) is not None:
            value, origin = overrides[name], OVERRIDE
        elif keywords.get(name) is not None:
            value, origin = keywords[name], f"Operon({name}=...)"
        elif options.get(name) is not None:
            value, origin = options[name], f"--{name.replace('_', '-')}"
        elif environ.get(variable):
            value, origin = environ[variable], variable
        elif file is not None and name in file.settings:
            value, origin = file.setting(name, environ), file.name
        else:
            origins[name] = DEFAULT
            continue
        values[name] = checked(name, value, origin)
        origins[name] = origin
    own = file.filled_application(environ) if file is not None else {}
    origins.update({f"{APPLICATION}.{key}": file.name for key in own if file is not None})
    origins.update({f"{APPLICATION}.{key}": "Operon(config=...)" for key in application})
    return Configuration(Settings(**values), {**own, **application}, origins, file)


def check_keywords(keywords: Mapping[str, Any]) -> None:
    """Refuses a wrong keyword of the constructor where it is written, before a file or the environment is looked at."""
    refuse_unknown(keywords, "there is no setting")
    for name, value in keywords.items():
        if value is not None:
            checked(name, value, f"Operon({name}=...)")


def checked(name: str, value: Any, origin: str) -> Any:
    """A value as its setting's type. Environments and `${...}` know only text, so `"8000"` is a number too."""
    try:
        return msgspec.convert(value, TYPES[name], strict=False)
    except msgspec.ValidationError as error:
        expected = without_passwords(str(error), str(value))
        raise ConfigurationError(
            f"{name} cannot be {shown(name, value)!r}, as {origin} says", hint=expected[:1].lower() + expected[1:]
        ) from None


def shown(name: str, value: Any) -> Any:
    """The value of a setting, or of a key of the application, as people may see it."""
    match value:
        case dict():
            table = cast("dict[str, Any]", value)
            return {key: shown(key, item) for key, item in table.items()}
        case list():
            items = cast("Sequence[Any]", value)
            return [shown(name, item) for item in items]
        case str() if SECRET_NAME.search(name):
            return HIDDEN
        case str() if "://" in value or name.endswith("_url"):
            return masked(value)
        case _:
            return value


def strangers(environ: Mapping[str, str]) -> list[str]:
    """Variables that look like settings and are none, each with what may have been meant.

    They are not refused: other programs may share the prefix.
    """
    given = sorted(name for name in environ if name.startswith(PREFIX) and name not in NOT_SETTINGS)
    known = [PREFIX + name.upper() for name in TYPES]
    return [f"{name} is no setting; {suggestion(name, known)}" for name in given if name not in known]


def refuse_unknown(names: Iterable[str], complaint: str) -> None:
    for name in names:
        if name not in TYPES:
            raise ConfigurationError(f"{complaint} {name!r}", hint=suggestion(name, TYPES))


def suggestion(name: str, known: Iterable[str]) -> str:
    """What may have been meant by a name that is not known."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(known)}"
