"""The restart policy, as the table that it is."""

from __future__ import annotations

import pytest

from actors.exits import NORMAL, SHUTDOWN, Crashed, Exit, Stopped, Zombie
from actors.restart import Backoff, Intensity, Restart, Verdict, decide

CRASH = Crashed(ValueError())
GO, STAY = Verdict.RESTART, Verdict.FORGET


@pytest.mark.parametrize(
    ("exit", "permanent", "transient", "temporary"),
    [
        (CRASH, GO, GO, STAY),
        (NORMAL, GO, STAY, STAY),
        (SHUTDOWN, STAY, STAY, STAY),
        (Stopped(BaseException()), STAY, STAY, STAY),
        (Zombie(5), STAY, STAY, STAY),
    ],
)
def test_who_is_restarted(exit: Exit, permanent: Verdict, transient: Verdict, temporary: Verdict) -> None:
    wide = Intensity(100, 1)

    assert decide(Restart.PERMANENT, exit, [], 0, wide) is permanent
    assert decide(Restart.TRANSIENT, exit, [], 0, wide) is transient
    assert decide(Restart.TEMPORARY, exit, [], 0, wide) is temporary


@pytest.mark.parametrize(
    ("history", "now", "verdict"),
    [
        ([], 0, GO),
        ([0, 1, 2], 3, Verdict.ESCALATE),
        ([0, 1, 2], 4.9, Verdict.ESCALATE),
        ([0, 1, 2], 5.0, GO),  # the first one has just left the window
        ([1, 2], 3, GO),
    ],
)
def test_one_restart_more_than_the_window_allows_escalates(history: list[float], now: float, verdict: Verdict) -> None:
    assert decide(Restart.PERMANENT, CRASH, history, now, Intensity(3, 5)) is verdict


def test_no_restarts_allowed_means_the_first_crash_escalates() -> None:
    assert decide(Restart.PERMANENT, CRASH, [], 0, Intensity(0, 5)) is Verdict.ESCALATE


def test_an_exit_that_needs_no_restart_never_escalates() -> None:
    assert decide(Restart.TRANSIENT, NORMAL, [0, 0, 0], 0, Intensity(3, 5)) is STAY


def test_the_pause_doubles_up_to_its_bound() -> None:
    backoff = Backoff(first=1, longest=10, jitter=False)

    assert [backoff.delay(crashes) for crashes in (1, 2, 3, 4, 5, 10_000)] == [1, 2, 4, 8, 10, 10]


def test_jitter_spreads_the_pause_from_nothing_to_its_bound() -> None:
    backoff = Backoff(first=8, longest=8)
    delays = [backoff.delay(1) for _ in range(500)]

    assert all(0 <= delay <= 8 for delay in delays)
    assert min(delays) < 2
    assert max(delays) > 6


@pytest.mark.parametrize(("first", "longest"), [(-1, 5), (6, 5)])
def test_a_backoff_that_makes_no_sense_is_refused(first: float, longest: float) -> None:
    with pytest.raises(ValueError, match="backoff needs"):
        Backoff(first=first, longest=longest)


@pytest.mark.parametrize(("restarts", "period"), [(-1, 5), (1, 0)])
def test_an_intensity_that_makes_no_sense_is_refused(restarts: int, period: float) -> None:
    with pytest.raises(ValueError, match="intensity needs"):
        Intensity(restarts, period)
