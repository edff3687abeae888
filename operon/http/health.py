"""`/operon/health/live` and `/operon/health/ready`, for whoever starts, stops and sends work to processes.

Served to anybody, so they tell nothing but ok or not, and why in one word.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec
from quart.wrappers import Response

from operon.runtime.overview import Overview

LIVE_PATH = "/operon/health/live"
READY_PATH = "/operon/health/ready"


class Health(msgspec.Struct, frozen=True, omit_defaults=True):
    """The answer. `why`: starting, draining, lease, database or listener."""

    status: str
    why: str | None = None


def health(overview: Callable[[], Overview]) -> dict[str, Callable[[], Awaitable[Response]]]:
    """What to answer under which path."""

    async def live() -> Response:
        return answer(None)  # the loop turns, or nobody would answer

    async def ready() -> Response:
        return answer(overview().unready)

    return {LIVE_PATH: live, READY_PATH: ready}


def answer(why: str | None) -> Response:
    body = Health("ok") if why is None else Health("not ok", why)
    response = Response(msgspec.json.encode(body), status=200 if why is None else 503, content_type="application/json")
    response.headers["cache-control"] = "no-store"
    return response
