"""Different children that crash fill the window; one child that crashes often does not."""

from __future__ import annotations

from actors.crash_window import CrashWindow
from actors.restart import Intensity


def test_one_child_more_than_allowed_overflows_and_the_window_begins_anew() -> None:
    window = CrashWindow(Intensity(2, 60))

    assert [window.overflows(name, 0) for name in "abc"] == [False, False, True]
    assert window.used(0) == 0


def test_a_child_counts_once_and_with_its_last_crash() -> None:
    window = CrashWindow(Intensity(2, 60))
    for now in (0, 10, 20):
        assert not window.overflows("a", now)
    assert not window.overflows("b", 20)

    assert window.used(20) == 2
    assert window.used(79) == 2
    assert window.used(80) == 0


def test_crashes_leave_the_window() -> None:
    window = CrashWindow(Intensity(1, 60))

    assert [window.overflows(str(now), now) for now in (0, 60, 120)] == [False, False, False]


def test_the_window_keeps_no_more_than_it_needs() -> None:
    window = CrashWindow(Intensity(2, 1))
    for number in range(100):
        window.overflows(str(number), number * 10)

    assert window.used(-1_000) == 2
