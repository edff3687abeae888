"""Settings, checked once, at the edge: a keyword of `Operon(...)`, else the environment, else the default.

Every setting has one name everywhere: the constructor's keyword `lease_seconds` is `OPERON_LEASE_SECONDS` in the
environment.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from operon.dsn import masked
from operon.errors import ConfigurationError

PREFIX = "OPERON_"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The runtime's own settings, with units in their names."""

    database_url: str | None = None  # None: the embedded Postgres
    direct_url: str | None = None  # for the listening connection, past a pooler in transaction mode
    notify: Literal["on", "off"] = "on"  # off: polls instead of LISTEN
    data_dir: str = ".operon/postgres"  # where the embedded Postgres keeps its data
    pool_size: int = 16  # connections for user transactions; three more serve the runtime itself
    lease_seconds: float = 10.0  # how long an executor that cannot be heard keeps its workflows
    heartbeat_seconds: float = 2.0
    poll_seconds: float = 1.0  # the process-wide safety poll
    max_live: int = 20_000  # live workflow actors in this process
    park_after_seconds: float = 5.0  # how long a workflow that only waits stays in memory
    mailbox_limit: int = 10_000  # messages that wait for one workflow
    crash_budget: int = 5  # crashes of one workflow without progress before it is DEAD
    shutdown_seconds: float = 25.0  # how long a drain waits for running steps
    body_limit_bytes: int = 1024 * 1024
    docs: bool = True  # whether /openapi.json and /docs are served
    host: str = "127.0.0.1"
    port: int = 8000
    env: Literal["development", "test", "production"] = "development"
    version: str = "0"  # of the application; recorded with every workflow that it starts

    def __post_init__(self) -> None:
        for name in (
            "lease_seconds",
            "heartbeat_seconds",
            "poll_seconds",
            "pool_size",
            "max_live",
            "mailbox_limit",
            "body_limit_bytes",
        ):
            if getattr(self, name) <= 0:
                raise ConfigurationError(f"{name} is {getattr(self, name)}", hint="a number above 0")
        if self.park_after_seconds < 0:
            raise ConfigurationError(f"park_after_seconds is {self.park_after_seconds}", hint="a number from 0 on")
        if self.lease_seconds < 2 * self.heartbeat_seconds:
            raise ConfigurationError(
                f"lease_seconds is {self.lease_seconds} and heartbeat_seconds {self.heartbeat_seconds}",
                hint="a lease lasts at least two heartbeats, or one late heartbeat would cost it",
            )

    def __repr__(self) -> str:
        urls = {"database_url": self.database_url, "direct_url": self.direct_url}
        fields = msgspec.structs.asdict(self) | {name: url and masked(url) for name, url in urls.items()}
        return f"Settings({', '.join(f'{name}={value!r}' for name, value in fields.items())})"


def load(overrides: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> Settings:
    """The settings of a process. `overrides` are keywords of the constructor or options of the command line."""
    environ = os.environ if environ is None else environ
    names = set(Settings.__struct_fields__)
    for name in overrides:
        if name not in names:
            raise ConfigurationError(f"there is no setting {name!r}", hint=suggestion(name, names))
    values: dict[str, Any] = {
        name: environ[PREFIX + name.upper()] for name in names if environ.get(PREFIX + name.upper())
    }
    values.update({name: value for name, value in overrides.items() if value is not None})
    try:
        return msgspec.convert(values, Settings, strict=False)
    except msgspec.ValidationError as error:
        if isinstance(error.__cause__, ConfigurationError):
            raise error.__cause__ from None
        raise ConfigurationError(f"a setting is wrong: {error}", hint="see `operon start --help`") from None


def suggestion(name: str, known: set[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(sorted(known))}"
