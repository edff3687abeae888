"""A folder with tests in it, and pytest in a process of its own to run them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent

PROJECT = """
[tool.pytest.ini_options]
anyio_mode = "auto"
"""


def run_pytest(folder: Path, files: Mapping[str, str], server: str, *options: str) -> str:
    """What pytest says about these files; they are written into the folder first."""
    for name, text in {"pyproject.toml": PROJECT, **files}.items():
        (folder / name).write_text(text)
    # Named, because Operon may not be installed here but only lie in the path; twice is once.
    command = [sys.executable, "-m", "pytest", "-p", "pytest_operon", "-p", "no:cacheprovider", "-rA", *options]
    path = os.pathsep.join([str(folder), str(ROOT), os.environ.get("PYTHONPATH", "")])
    environ = {**os.environ, "OPERON_TEST_DATABASE_URL": server, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=300, check=False)
    return done.stdout + done.stderr
