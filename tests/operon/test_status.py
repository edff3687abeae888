"""What the database holds for a state never changes, and every state has its moves."""

from __future__ import annotations

import datetime as dt
from uuid import uuid4

import msgspec
import pytest

from operon.status import TRANSITIONS, Status, WorkflowStatus


def test_codes_are_the_ones_old_rows_hold() -> None:
    assert {status.value: status.code for status in Status} == {
        "PENDING": 0,
        "SUCCESS": 1,
        "ERROR": 2,
        "CANCELLED": 3,
        "DEAD": 4,
    }
    assert [Status.from_code(status.code) for status in Status] == list(Status)
    with pytest.raises(ValueError, match="no workflow status has the code 5"):
        Status.from_code(5)


def test_an_outcome_is_for_ever_and_a_stopped_workflow_can_be_resumed() -> None:
    assert TRANSITIONS.keys() == set(Status)
    assert not TRANSITIONS[Status.SUCCESS] | TRANSITIONS[Status.ERROR]
    assert {status for status in Status if Status.PENDING in TRANSITIONS[status]} == {Status.CANCELLED, Status.DEAD}
    assert TRANSITIONS[Status.PENDING] == set(Status) - {Status.PENDING}
    assert [status for status in Status if not status.is_finished] == [Status.PENDING]


def test_a_workflow_status_travels_as_json() -> None:
    now = dt.datetime.now(dt.UTC)
    status = WorkflowStatus(
        workflow_uuid=uuid4(),
        status=Status.DEAD,
        workflow_name="checkout",
        authenticated_user="ann",
        assumed_role="buyer",
        authenticated_roles=("buyer", "admin"),
        request={"path": "/"},
        created_at=now,
        updated_at=now,
        attempts=5,
        executor=None,
        waiting_for=None,
        error="ValueError: x",
    )

    assert msgspec.json.decode(msgspec.json.encode(status), type=WorkflowStatus) == status
