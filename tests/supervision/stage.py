"""A communicator that is held, for tests of what is said of those who call it, or wait for those who do."""

from __future__ import annotations

import asyncio

import operon


class Stage:
    """What the workflows of a test meet."""

    def __init__(self) -> None:
        self.called = asyncio.Event()
        self.may_return = asyncio.Event()


STAGE: list[Stage] = []


@operon.communicator(retry=None)
async def label(ctx: operon.CommunicatorContext) -> None:
    STAGE[-1].called.set()
    await STAGE[-1].may_return.wait()
