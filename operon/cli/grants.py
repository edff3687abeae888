"""The SQL that gives two database roles the least that they need: one to migrate, one to run workflows."""

from __future__ import annotations

import re
from importlib.resources import files
from string import Template

from operon.errors import ConfigurationError

# What needs no escaping, in quotes or out of them.
ROLE = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,62}")


def grants(owner: str, application: str) -> str:
    """The script for these roles. Raises ConfigurationError for a name that is no plain one, and for one role twice."""
    for role in (owner, application):
        if ROLE.fullmatch(role) is None:
            raise ConfigurationError(
                f"{role!r} is no plain name of a role", hint="letters, digits, _ and -, beginning with a letter"
            )
    if owner == application:
        raise ConfigurationError(
            f"{owner!r} is to be both roles", hint="two roles: the one that runs the application changes no schema"
        )
    text = files("operon.cli").joinpath("grants.sql").read_text(encoding="utf-8")
    return Template(text).substitute(owner=owner, application=application)
