"""When to try again, and after how long: plain numbers and pure functions, no clock and no sleep."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from operon.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Retry:
    """How a communicator is retried: at most `max_attempts` in all, with growing pauses between them.

    The pause after attempt n is interval_seconds * backoff_rate ** (n - 1), at most max_interval_seconds; with jitter a
    random part of it between one half and all, so that many callers of a service that fell over do not return in step.
    In a pause longer than `park_after_seconds` the workflow leaves memory, and its attempts so far are recorded.
    `retry_on` is an exception class or a tuple of them: other errors are final at once.
    """

    max_attempts: int = 3
    interval_seconds: float = 1.0
    backoff_rate: float = 2.0
    max_interval_seconds: float = 3600
    jitter: bool = True
    retry_on: type[Exception] | tuple[type[Exception], ...] = Exception

    def __post_init__(self) -> None:
        """Raises ConfigurationError."""
        if type(self.max_attempts) is not int or self.max_attempts < 1:
            raise _wrong(
                "max_attempts", self.max_attempts, "it counts all attempts, so 1 or more; `retry=None` is one."
            )
        if not _is_number(self.interval_seconds) or self.interval_seconds < 0:
            raise _wrong("interval_seconds", self.interval_seconds, "give the first pause in seconds, 0 or more.")
        if not _is_number(self.backoff_rate) or self.backoff_rate < 1:
            raise _wrong("backoff_rate", self.backoff_rate, "each pause is this many times the last: 1 or more.")
        if not _is_number(self.max_interval_seconds) or self.max_interval_seconds < self.interval_seconds:
            raise _wrong(
                "max_interval_seconds",
                self.max_interval_seconds,
                f"give the longest pause in seconds, not below interval_seconds ({self.interval_seconds}).",
            )
        if type(self.jitter) is not bool:
            raise _wrong("jitter", self.jitter, "True or False.")
        kinds: Any = self.retry_on if isinstance(self.retry_on, tuple) else (self.retry_on,)
        if not all(isinstance(kind, type) and issubclass(kind, Exception) for kind in kinds):
            raise _wrong("retry_on", self.retry_on, "give exception classes: `retry_on=(TimeoutError, OSError)`.")

    def should_retry(self, error: BaseException) -> bool:
        """Whether this error is worth another attempt; the number of attempts is the caller's to count."""
        return isinstance(error, self.retry_on)

    def delay(self, attempt: int, random: float) -> float:
        """The seconds to wait after attempt `attempt` (the first is 1) has failed.

        `random` is a number from 0 to 1, drawn by the caller, so that the same draw gives the same pause.
        """
        try:
            pause = min(self.interval_seconds * self.backoff_rate ** (attempt - 1), self.max_interval_seconds)
        except OverflowError:
            pause = self.max_interval_seconds if self.interval_seconds else 0.0
        return float(pause * (0.5 + 0.5 * random) if self.jitter else pause)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _wrong(name: str, value: object, hint: str) -> ConfigurationError:
    return ConfigurationError(f"Retry: {name} cannot be {value!r}.", hint=hint)
