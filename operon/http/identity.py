"""Which workflow a request means: `operon-workflowuuid` names it, `Idempotency-Key` names it in the client's words.

A UUID is the workflow's identity as it stands. Any other key is mapped to one, so that the same key of the same user
for the same operation is the same workflow, and no two of these triples can meet: they are hashed as a JSON array,
never glued together.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import msgspec

from operon.http.refusals import Complaint

UUID_HEADER = "operon-workflowuuid"
KEY_HEADER = "Idempotency-Key"

CANONICAL = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE)
KEY = re.compile(r"[\x20-\x7e]{1,200}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Identity:
    """What a request says of the workflow that it means. Both are None when it says nothing."""

    workflow_uuid: UUID | None = None  # from the header of that name
    key: str | None = None

    def of_operation(self, operation_name: str, user: str | None) -> UUID | None:
        """The UUID of the workflow that this request starts or finds."""
        if self.workflow_uuid is not None or self.key is None:
            return self.workflow_uuid
        return from_key(operation_name, user, self.key)


def identify(uuids: Sequence[str], keys: Sequence[str], complaints: list[Complaint]) -> Identity:
    """Reads the values of both headers, each as often as it was sent. What is wrong is appended to `complaints`."""
    refused = len(complaints)
    if any(CANONICAL.fullmatch(given) is None for given in uuids):
        complaints.append(Complaint("header", UUID_HEADER, "expected a UUID"))
    keys = [unquoted(given) for given in keys]
    if any(KEY.fullmatch(given) is None for given in keys):
        complaints.append(Complaint("header", KEY_HEADER, "expected 1 to 200 printable ASCII characters"))
    if len(complaints) > refused:
        return Identity()
    if len({UUID(given) for given in uuids}) > 1 or len(set(keys)) > 1:
        complaints.append(Complaint("header", UUID_HEADER if len(set(uuids)) > 1 else KEY_HEADER, "given twice"))
        return Identity()
    workflow_uuid = UUID(uuids[0]) if uuids else None
    key = keys[0] if keys else None
    if workflow_uuid is not None and key is not None and as_uuid(key) != workflow_uuid:
        complaints.append(Complaint("header", KEY_HEADER, f"names another workflow than {UUID_HEADER}"))
        return Identity()
    return Identity(workflow_uuid, key if key is not None or workflow_uuid is None else str(workflow_uuid))


def from_key(operation_name: str, user: str | None, key: str) -> UUID:
    """The UUID that a client's key stands for."""
    given = as_uuid(key)
    if given is not None:
        return given
    digest = hashlib.sha256(msgspec.json.encode([operation_name, user, key])).digest()
    return with_version(int.from_bytes(digest[:16]), 8)


def fresh() -> UUID:
    """A new UUID of version 7: ordered by time, so that rows of one moment lie together."""
    return with_version(time.time_ns() // 1_000_000 << 80 | int.from_bytes(os.urandom(10)), 7)


def with_version(bits: int, version: int) -> UUID:
    """RFC 9562: the version in bits 48 to 51, the variant in bits 64 and 65."""
    return UUID(int=bits & ~(0xF << 76) & ~(0x3 << 62) | version << 76 | 0x2 << 62)


def as_uuid(text: str) -> UUID | None:
    return UUID(text) if CANONICAL.fullmatch(text) else None


def unquoted(text: str) -> str:
    """The key itself: the header's draft standard has it in quotes, most clients leave them out."""
    if len(text) >= 2 and text[0] == text[-1] == '"':
        return re.sub(r"\\(.)", r"\1", text[1:-1])
    return text
