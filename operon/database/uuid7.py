"""UUIDs that sort by the time they were made (RFC 9562, version 7), so that new rows land side by side in the index.

Random keys cost five to nine times the WAL once the tables are large: every insert touches a page of its own.
"""

from __future__ import annotations

import os
import time
from hashlib import blake2b
from uuid import UUID

from asyncpg.pgproto import pgproto

# A subclass of the standard one, made and sent in half the time.
FastUUID = pgproto.UUID


class Uuid7:
    """Makes UUIDs: 48 bits of milliseconds, and 74 random ones."""

    __slots__ = ("_pool",)

    def __init__(self) -> None:
        self._pool = b""

    def __call__(self) -> UUID:
        if len(self._pool) < 10:
            self._pool = os.urandom(1000)  # one system call for a hundred
        random, self._pool = self._pool[:10], self._pool[10:]
        value: UUID = FastUUID(
            (time.time_ns() // 1_000_000).to_bytes(6, "big")
            + bytes((0x70 | random[0] & 0x0F, random[1], 0x80 | random[2] & 0x3F))
            + random[3:]
        )
        return value


uuid7 = Uuid7()


def child_uuid(parent: UUID, step: int) -> UUID:
    """The UUID of the child that a workflow starts at a step: always the same, and next to its parent in the index."""
    digest = blake2b(parent.bytes + step.to_bytes(8, "big"), digest_size=8).digest()
    value: UUID = FastUUID(parent.bytes[:8] + bytes((0x80 | digest[0] & 0x3F,)) + digest[1:])
    return value
