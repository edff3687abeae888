"""The gate that W6's workflows wait at: shut in the process that is killed, open in the one that recovers.

Imported by the peers too, so it imports the standard library alone.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from dataclasses import dataclass, field
from typing import Literal

from bench.harness import DATABASE_URL


@dataclass(slots=True)
class Gate:
    """Counts who arrives; nobody passes while it is shut."""

    shut: bool = False
    awaited: int = 0
    arrived: int = 0
    all_arrived: asyncio.Event = field(default_factory=asyncio.Event)

    async def passed(self) -> None:
        self.arrived += 1
        if self.arrived >= self.awaited:
            self.all_arrived.set()
        if self.shut:
            await asyncio.Event().wait()


@dataclass(frozen=True, slots=True)
class Part:
    """What a process of W6 is told to do: `crash` starts the workflows and is killed, `recover` finishes them."""

    database_url: str
    role: Literal["crash", "recover"]
    workflows: int


def part_from_arguments() -> Part:
    parser = argparse.ArgumentParser()
    parser.add_argument("--role", choices=["crash", "recover"], required=True)
    parser.add_argument("--workflows", type=int, required=True)
    options = parser.parse_args()
    return Part(os.environ[DATABASE_URL], options.role, options.workflows)
