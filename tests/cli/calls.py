"""How tests call commands: in this process, where nothing else is needed, or in one of their own."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anyio import to_thread
from click.testing import CliRunner

from operon.cli import main

ROOT = Path(__file__).parent.parent.parent


@dataclass(frozen=True, slots=True)
class Result:
    """What a command left: its exit code, and what it said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it said, as JSON."""
        return json.loads(self.out)

    @property
    def rows(self) -> list[list[str]]:
        """The words of each line of a table, without its headers."""
        return [line.split() for line in self.out.splitlines()[1:]]


def command(*arguments: str, **environment: str) -> Result:
    """Calls a command in this process. An error that it does not turn into an exit code is raised."""
    result = CliRunner().invoke(main, arguments, env=environment, catch_exceptions=False, prog_name="operon")
    return Result(result.exit_code, result.stdout, result.stderr)


async def call(*arguments: str, **environment: str) -> Result:
    """The same beside a running event loop."""
    return await to_thread.run_sync(lambda: command(*arguments, **environment))


async def process(*arguments: str, folder: Path, **environment: str) -> asyncio.subprocess.Process:
    """Starts a command in a process of its own, with what it says in one stream."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "operon.cli", *arguments),
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
