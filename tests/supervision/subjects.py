"""A workflow and a cluster for `explain`, as little as a sentence needs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from operon.explain import Cluster, Place, Subject, Target, Wait, Why, explain
from operon.status import Status

NOW = datetime(2026, 11, 21, 14, 20, 26, tzinfo=UTC)
UUID_1 = UUID("019d1c88-0000-7000-8000-0000002d6b40")
OTHER = UUID("019d1c88-0000-7000-8000-000000e4c7a1")
HERE = Place(incarnation=1, name="worker-1", live=3, max_live=20_000, names=frozenset({"Checkout.place_order"}))
PLACES = {1: HERE}


def before(**units: float) -> datetime:
    return NOW - timedelta(**units)


def after(**units: float) -> datetime:
    return NOW + timedelta(**units)


def why(subject: dict[str, Any] | None = None, **cluster: Any) -> Why:
    """The reason for a pending workflow of worker-1, but for what is said here."""
    of: dict[str, Any] = {
        "workflow_uuid": UUID_1,
        "name": "Checkout.place_order",
        "status": Status.PENDING,
        "created_at": before(hours=4),
        "updated_at": before(seconds=40),
        "owner": 1,
        **(subject or {}),
    }
    around: dict[str, Any] = {"now": NOW, "places": PLACES, "suspended": {}, **cluster}
    return explain(Subject(**of), Cluster(**around))


def place(**changes: Any) -> dict[int, Place]:
    return {1: msgspec.structs.replace(HERE, **changes)}


def waits(code: int, **fields: Any) -> dict[str, Any]:
    return {"wait": Wait(code, **fields)}


def target(status: Status = Status.PENDING, **fields: Any) -> Target:
    return Target(OTHER, "Shipping.book", status, **fields)


def says(found: Why, code: str, text: str, until: datetime | None = None) -> None:
    assert (found.code, found.text, found.until) == (code, text, until)
