"""Durations, times and names as people say them. Times are UTC."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

MINUTE, HOUR, DAY = 60, 3_600, 86_400


def duration(seconds: float) -> str:
    """`20 ms`, `0.3 s`, `41 s`, `14 min`, `3 h 16 min`, `10 d 9 h`."""
    seconds = max(0.0, seconds)
    if 0.0005 <= seconds < 0.0995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 2 * MINUTE:
        return f"{whole} s"
    minutes = whole // MINUTE
    if minutes < 60:
        return f"{minutes} min"
    if whole < 2 * DAY:
        return two(minutes // 60, "h", minutes % 60, "min")
    return two(whole // DAY, "d", whole % DAY // HOUR, "h")


def two(large: int, unit: str, small: int, lesser: str) -> str:
    return f"{large} {unit} {small} {lesser}" if small else f"{large} {unit}"


def between(earlier: datetime, later: datetime) -> float:
    """Seconds from one to the other, never negative."""
    return max(0.0, (later - earlier).total_seconds())


def ago(at: datetime, now: datetime) -> str:
    """How long something has gone on."""
    return duration(between(at, now))


def moment(at: datetime, now: datetime) -> str:
    """`14:21:07` within the hour, `11:04` within the day, `tomorrow 11:04`, `1 Dec 00:00`, `1 Dec 2031 00:00`."""
    at, now = at.astimezone(UTC), now.astimezone(UTC)
    if at.date() == now.date():
        return f"{at:%H:%M:%S}" if abs(at - now) < timedelta(hours=1) else f"{at:%H:%M}"
    if at.date() == now.date() + timedelta(days=1):
        return f"tomorrow {at:%H:%M}"
    if at.date() == now.date() - timedelta(days=1):
        return f"yesterday {at:%H:%M}"
    year = "" if at.year == now.year else f" {at.year}"
    return f"{at.day} {at:%b}{year} {at:%H:%M}"


def brief(workflow_uuid: UUID) -> str:
    """The end of a UUID, which tells those of one moment apart."""
    return f"…{str(workflow_uuid)[-6:]}"


def some(count: int, one: str, many: str | None = None) -> str:
    """`1 message`, `2 messages`, `over 100 messages`."""
    return f"{count} {one}" if count == 1 else f"{count} {many or one + 's'}"


def link_to(workflow_uuid: UUID) -> str:
    """Where to look at a workflow."""
    return f"/operon/supervisor?uuid={workflow_uuid}"
