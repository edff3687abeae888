"""Pauses grow, stay within their bounds, and never overflow."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operon.errors import ConfigurationError
from operon.retry import Retry


def test_pauses_grow_by_the_rate_up_to_the_longest() -> None:
    retry = Retry(interval_seconds=1, backoff_rate=3, max_interval_seconds=20, jitter=False)

    assert [retry.delay(attempt, 0.7) for attempt in (1, 2, 3, 4)] == [1, 3, 9, 20]


def test_jitter_spreads_a_pause_over_its_upper_half() -> None:
    retry = Retry(interval_seconds=8)

    assert [retry.delay(1, random) for random in (0.0, 0.5, 1.0)] == [4, 6, 8]


@settings(deadline=None, database=None)
@given(st.integers(1, 10**9), st.floats(0, 1), st.floats(0, 1e6), st.floats(1, 1e6), st.floats(0, 1e9), st.booleans())
def test_a_pause_is_always_a_number_within_bounds(
    attempt: int, random: float, interval: float, rate: float, more: float, jitter: bool
) -> None:
    retry = Retry(interval_seconds=interval, backoff_rate=rate, max_interval_seconds=interval + more, jitter=jitter)

    assert 0 <= retry.delay(attempt, random) <= retry.max_interval_seconds


def test_no_interval_means_no_pause_however_many_attempts() -> None:
    assert Retry(interval_seconds=0).delay(10**6, 1.0) == 0


def test_only_the_errors_asked_for_are_retried() -> None:
    retry = Retry(retry_on=(OSError, KeyError))

    assert retry.should_retry(TimeoutError())
    assert retry.should_retry(KeyError())
    assert not retry.should_retry(ValueError())
    assert not Retry().should_retry(KeyboardInterrupt())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_attempts", 0),
        ("max_attempts", 1.5),
        ("max_attempts", True),
        ("interval_seconds", -1),
        ("interval_seconds", float("nan")),
        ("interval_seconds", "1"),
        ("backoff_rate", 0.5),
        ("backoff_rate", float("inf")),
        ("max_interval_seconds", 0.5),
        ("jitter", 1),
        ("retry_on", BaseException),
        ("retry_on", ValueError("x")),
        ("retry_on", [ValueError]),
    ],
)
def test_a_setting_that_makes_no_sense_is_named_with_a_hint(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"Retry: {name} cannot be") as caught:
        Retry(**{name: value})

    assert caught.value.hint
