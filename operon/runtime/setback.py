"""What a call that is made again has met so far. Made when an attempt has failed: one that succeeds pays nothing."""

from __future__ import annotations

from typing import NamedTuple


class Setback(NamedTuple):
    """The failed attempts of one call."""

    failures: int
    error: str  # the class of the last one
    again_at: float  # the next attempt begins, by this machine's clock
