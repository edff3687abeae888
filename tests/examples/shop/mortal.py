"""The shop, which dies when it records something: `operon start tests.examples.shop.mortal:app`.

DIE is `before 3` or `after 3`: `kill -9` from within, before the third record of any workflow is sent to Postgres, or
after Postgres has answered and before the process has heard it. Every record is either a flush or a commit with a
checkpoint, so the numbers from 1 on are all there is.
"""

from __future__ import annotations

import os
import signal
from typing import Any

import asyncpg.protocol

from examples.shop.shop import app
from tests.guarantees.worker.sites import EXCHANGES, label_of

__all__ = ["app"]

RECORDS = ("flush ", "commit with checkpoint ")


def doom(when: str, number: int) -> None:
    """Has every connection from now on count its records, and the process die at one of them."""
    module: Any = asyncpg.protocol
    base = module.Protocol
    recorded = 0

    def counted(name: str) -> Any:
        exchange = getattr(base, name)

        async def method(self: Any, *args: Any, **kwargs: Any) -> Any:
            nonlocal recorded
            if not label_of(name, (*args, *kwargs.values())).startswith(RECORDS):
                return await exchange(self, *args, **kwargs)
            recorded += 1
            doomed = recorded == number
            if doomed and when == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            answer = await exchange(self, *args, **kwargs)
            if doomed:
                os.kill(os.getpid(), signal.SIGKILL)
            return answer

        return method

    module.Protocol = type("MortalProtocol", (base,), {name: counted(name) for name in EXCHANGES})


if "DIE" in os.environ:
    doom(os.environ["DIE"].split()[0], int(os.environ["DIE"].split()[1]))
