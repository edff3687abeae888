"""Which database a command works on: the configured one, or the embedded one of this folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from operon.config import Configuration, Settings, load, masked
from operon.errors import DatabaseUnusable

Function = TypeVar("Function", bound=Callable[..., Any])


def database_option(command: Function) -> Function:
    """Adds `--database-url`."""
    return click.option(
        "--database-url", help="The Postgres to look at; the configured or embedded one of this folder by default."
    )(command)


def configured(database_url: str | None) -> Configuration:
    """The configuration of this folder, without what an application's constructor says."""
    return load(options={"database_url": database_url})


async def address(settings: Settings) -> str:
    """The URL of the database that is there. Starts an embedded one that is stopped, but makes none."""
    if is_missing(settings):
        raise DatabaseUnusable(
            f"no database is configured, and there is no embedded one in {settings.data_dir}",
            hint="run this in the application's folder, or name a database: --database-url or OPERON_DATABASE_URL",
        )
    return await address_or_new(settings)


def is_missing(settings: Settings) -> bool:
    """Whether nothing is configured, and no embedded Postgres was made yet."""
    return settings.database_url is None and not Path(settings.data_dir).is_dir()


async def address_or_new(settings: Settings) -> str:
    """The URL of the database, as `operon start` finds it: an embedded one is made if need be."""
    if settings.database_url is not None:
        return settings.database_url
    from operon.database import embedded  # POSIX only, and only needed without a database_url

    return await embedded.start(Path(settings.data_dir), production=settings.env == "production")


def shown_database(settings: Settings) -> str:
    """The database in words, without its password."""
    return masked(settings.database_url) if settings.database_url else f"embedded in {settings.data_dir}"
