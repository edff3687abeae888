"""`operon init NAME` makes a project that runs, with a test that passes.

A template is a folder of `operon/cli/templates`. Its files end in `.template`, so that no tool takes them for code of
this package; `{{name}}` in them is the project's name. A new template is a new folder, and nothing else: its `app.py`
says in the last paragraph of its docstring how to try it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from importlib.resources import as_file, files
from pathlib import Path

import click

from operon.cli.failure import fail

NAME = re.compile(r"[a-z][a-z0-9]*(?:[-_][a-z0-9]+)*")
LENGTHS = range(3, 31)
SUFFIX = ".template"


def templates() -> list[str]:
    """The names of all templates."""
    return sorted(folder.name for folder in files("operon.cli").joinpath("templates").iterdir() if folder.is_dir())


def project_name(text: str) -> str:
    """A name that is one to Python's packaging, to a folder and in a URL. Raises BadParameter."""
    if len(text) not in LENGTHS:
        raise click.BadParameter(f"{text!r} has {len(text)} characters; a project's name has 3 to 30")
    if NAME.fullmatch(text) is None:
        raise click.BadParameter(f"{text!r} is no project's name: a-z, then a-z, 0-9, and single - or _ in between")
    return text


@click.command()
@click.argument("name", metavar="NAME", type=project_name)
@click.option(
    "--template", default="hello", show_default=True, type=click.Choice(templates()), help="What to begin with."
)
def init(name: str, template: str) -> None:
    """Makes a project that runs, in a folder NAME."""
    folder = Path(name)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        fail(f"{name} is there already", "choose another name, or remove what is there")
    made = [write(folder, place, text.replace("{{name}}", name)) for place, text in contents(template)]
    for path in sorted(made):
        click.echo(f"  {path}")
    click.echo(f"\nNow:\n  cd {name}")
    for command in commands((folder / "app.py").read_text(encoding="utf-8")):
        click.echo(f"  {command}")


def contents(template: str) -> Iterator[tuple[Path, str]]:
    """Where each file of a template goes, and its text."""
    with as_file(files("operon.cli").joinpath("templates", template)) as source:
        for file in sorted(source.rglob(f"*{SUFFIX}")):
            relative = file.relative_to(source)
            yield relative.with_name(file.name.removesuffix(SUFFIX)), file.read_text(encoding="utf-8")


def commands(source: str) -> list[str]:
    """How to try an application: the last paragraph of its docstring."""
    said = ast.get_docstring(ast.parse(source)) or ""
    return said.rpartition("\n\n")[2].splitlines()


def write(folder: Path, place: Path, text: str) -> Path:
    path = folder / place
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        fail(f"{path} cannot be written: {error.strerror}", "run this in a folder that you may write to")
    return path
