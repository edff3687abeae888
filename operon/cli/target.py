"""The application that `module:app` on the command line names."""

from __future__ import annotations

import importlib
import os
import re
import sys
import traceback
from types import TracebackType
from typing import NoReturn

import click

from operon.app import Operon
from operon.cli.failure import fail
from operon.errors import OperonError

FORM = re.compile(r"(?P<module>\w+(?:\.\w+)*)(?::(?P<attribute>\w+))?")


def target(text: str) -> tuple[str, str]:
    """`module` or `module:app`, checked for its form only: the module is imported by `load`. Raises BadParameter."""
    match = FORM.fullmatch(text)
    if match is None:
        module = text.removesuffix(".py").strip("./").replace("/", ".")
        hint = f" Did you mean {module}?" if text.endswith(".py") and FORM.fullmatch(module) else ""
        raise click.BadParameter(f"{text!r} is not the name of a module, such as shop.main or shop.main:app.{hint}")
    return match["module"], match["attribute"] or "app"


def load(named: tuple[str, str]) -> Operon:
    """Imports the module from the current folder, and gives its application.

    An error of the module's own is shown with its traceback, from the first line of the module on.
    """
    module_name, attribute = named
    sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            blame(module_name, error)  # a module that this one asks for
        fail(f"there is no module {module_name!r} here", hint_for_missing(module_name))
    except OperonError:
        raise
    except Exception as error:
        blame(module_name, error)
    app = getattr(module, attribute, None)
    if not isinstance(app, Operon):
        there = [name for name, value in vars(module).items() if isinstance(value, Operon)]
        fail(
            f"{module_name} has no Operon application named {attribute!r}",
            f"did you mean {module_name}:{there[0]}?" if there else f"{attribute} = operon.Operon(__name__)",
        )
    return app


def hint_for_missing(module_name: str) -> str:
    if module_name.endswith(".py"):
        return f"write it as a module: {module_name.removesuffix('.py')}"
    return f"run operon in the folder that holds {module_name.split('.')[0]}, and name it as package.module:app"


def blame(module_name: str, error: Exception) -> NoReturn:
    """Shows where the application's own code failed, without the machinery that imported it."""
    shown = traceback.format_exception(error.with_traceback(within(error.__traceback__)))
    click.echo("".join(shown), err=True, nl=False)
    fail(f"{module_name} cannot be imported", "mend what the traceback above ends with")


def within(frames: TracebackType | None) -> TracebackType | None:
    """The frames from the application's on; a syntax error has none."""
    while frames is not None:
        file = frames.tb_frame.f_code.co_filename
        if not file.startswith("<frozen importlib") and file not in (__file__, importlib.__file__):
            return frames
        frames = frames.tb_next
    return None
