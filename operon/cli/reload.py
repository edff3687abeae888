"""`operon start --reload`: the same command without that option, in a process that is replaced when code changes.

A process, because Python cannot forget a module. It is stopped as by Ctrl-C, so workflows go on after the restart.
"""

from __future__ import annotations

import importlib
import os
import shlex
import sys
from typing import Any

from operon.cli.failure import fail
from operon.config import load

STOP_SECONDS = 10


def restart_on_changes() -> None:
    """Runs this command without `--reload`, again after each change of a .py file, until SIGTERM or Ctrl-C."""
    if load().settings.env == "production":
        fail("--reload is for development, and env is production", "start without --reload")
    try:
        watchfiles: Any = importlib.import_module("watchfiles")
    except ImportError:
        fail("--reload needs watchfiles, which is not installed", "pip install 'operon[reload]'")
    arguments = [argument for argument in sys.argv[1:] if argument != "--reload"]
    watchfiles.run_process(
        os.getcwd(),
        target=shlex.join([sys.executable, "-m", "operon.cli", *arguments]),
        target_type="command",
        watch_filter=watchfiles.PythonFilter(),
        sigint_timeout=STOP_SECONDS,
    )
