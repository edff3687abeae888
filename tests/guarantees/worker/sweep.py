"""Many cases, a few at a time, and a verdict that names each one that failed."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

T = TypeVar("T")

AT_ONCE = 4  # two processors, and half of each case is waiting


async def sweep(sites: Sequence[T], run: Callable[[T], Awaitable[None]], at_once: int = AT_ONCE) -> None:
    """Runs a case for every site; fails with all that failed."""
    free = asyncio.Semaphore(at_once)
    failed: list[str] = []

    async def one(site: T) -> None:
        async with free:
            try:
                await run(site)
            except Exception as error:
                failed.append(f"{site}: {error}\n{''.join(traceback.format_exception(error)[-3:])}")

    await asyncio.gather(*(one(site) for site in sites))

    assert not failed, f"{len(failed)} of {len(sites)} cases failed:\n\n" + "\n".join(failed)
