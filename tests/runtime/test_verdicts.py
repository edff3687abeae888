"""Who is dead: the whole table. A living executor is never in it, whatever else is the case."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from operon.database.executors import Other
from operon.runtime.recovery import Suspect, verdicts

UNTIL = datetime(2026, 1, 1, tzinfo=UTC)
LATER = UNTIL + timedelta(seconds=2)
GRACE = 0.6
NOW = 100.0

LONG_AGO = Suspect(UNTIL, NOW - 0.4)
JUST_NOW = Suspect(UNTIL, NOW + 0.5)

# expired, gone, earlier suspicion, seasoned, steady -> dead, decided
TABLE = [
    pytest.param(False, False, None, True, True, False, None, id="alive"),
    pytest.param(False, False, LONG_AGO, True, True, False, None, id="alive after all: its lock is held again"),
    pytest.param(True, False, None, True, True, True, None, id="its lease ran out"),
    pytest.param(True, False, None, False, True, False, None, id="so did mine: I may conclude nothing"),
    pytest.param(True, False, None, False, False, False, None, id="after an outage"),
    pytest.param(False, True, None, True, True, False, NOW + GRACE, id="its lock is free: the first look"),
    pytest.param(False, True, JUST_NOW, True, True, False, NOW + 0.5, id="two looks too close together are one"),
    pytest.param(False, True, LONG_AGO, True, True, True, None, id="its lock is free at two looks"),
    pytest.param(False, True, LONG_AGO, False, True, True, None, id="the fast way asks for no whole lease of mine"),
    pytest.param(False, True, LONG_AGO, True, False, False, None, id="my own connections fail: it may be me"),
    pytest.param(
        False, True, Suspect(LATER, NOW - 0.4), True, True, False, NOW + GRACE, id="it has renewed: begin again"
    ),
    pytest.param(True, True, None, True, True, True, None, id="expired decides at once"),
    pytest.param(True, True, None, False, True, False, NOW + GRACE, id="expired says nothing here, the lock does"),
    pytest.param(True, True, LONG_AGO, False, False, False, None, id="nothing may be concluded"),
]


@pytest.mark.parametrize(("expired", "gone", "earlier", "seasoned", "steady", "dead", "decided"), TABLE)
def test_the_table_of_verdicts(
    expired: bool, gone: bool, earlier: Suspect | None, seasoned: bool, steady: bool, dead: bool, decided: float | None
) -> None:
    other = Other(7, UNTIL, expired, gone, GRACE)
    suspects = {} if earlier is None else {7: earlier}

    found, suspected = verdicts([other], suspects, NOW, seasoned=seasoned, steady=steady)

    assert found == ([other] if dead else [])
    assert suspected == ({} if decided is None else {7: Suspect(UNTIL, decided)})


def test_each_executor_is_judged_by_itself() -> None:
    alive, expired, gone = (
        Other(1, UNTIL, False, False, GRACE),
        Other(2, UNTIL, True, False, GRACE),
        Other(3, UNTIL, False, True, GRACE),
    )

    dead, suspected = verdicts([alive, expired, gone], {1: LONG_AGO, 3: LONG_AGO}, NOW, seasoned=True, steady=True)

    assert dead == [expired, gone]
    assert suspected == {}


def test_executors_that_are_there_no_more_are_suspected_no_more() -> None:
    assert verdicts([], {3: LONG_AGO}, NOW, seasoned=True, steady=True) == ([], {})
