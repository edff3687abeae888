"""The virtual environment of a peer: made on demand, with every version pinned, and kept for the next run."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).parent


def python_of(peer: str) -> str:
    """The interpreter of a peer's environment, `bench/.peers/NAME`; installs it where its requirements changed."""
    requirements = HERE / f"{peer}-requirements.txt"
    home = HERE.parent / ".peers" / peer
    python, installed = home / "bin" / "python", home / "installed.txt"
    wanted = requirements.read_text()
    if not installed.exists() or installed.read_text() != wanted:
        print(f"installing {peer} into {home}", file=sys.stderr)
        venv.create(home, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", "-r", requirements], check=True)
        installed.write_text(wanted)
    return str(python)
