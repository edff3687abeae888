"""What the facts about a machine, a configuration and a database mean: each a finding, with what to do about it.

Only decisions here, no questions: what is asked stands in `operon/database/checkup.py` and in `doctor.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum

import msgspec

from operon.config import Settings
from operon.database.checkup import Health, Server
from operon.database.migrate import OLDEST_SERVER

OLDEST_PYTHON = (3, 11)
CLOCK_SECONDS = 2.0  # more than a well-kept clock is ever off
SLOW_SECONDS = 0.02  # a step is a round trip or two
RUNTIME_CONNECTIONS = 8  # of a process, beside those for its transactions


class Verdict(StrEnum):
    """What a finding means for the application."""

    OK = "ok"
    WARNING = "warning"
    WRONG = "wrong"


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at."""

    check: str
    verdict: Verdict
    says: str
    hint: str | None = None


def ok(check: str, says: str) -> Finding:
    return Finding(check, Verdict.OK, says)


def warning(check: str, says: str, hint: str) -> Finding:
    return Finding(check, Verdict.WARNING, says, hint)


def wrong(check: str, says: str, hint: str | None) -> Finding:
    return Finding(check, Verdict.WRONG, says, hint)


def judge_python(version: tuple[int, ...], name: str) -> Finding:
    """Whether this Python will do."""
    says = f"{name} {'.'.join(str(part) for part in version[:3])}"
    if version < OLDEST_PYTHON:
        return wrong("python", says, "Operon needs Python 3.11 or newer")
    return ok("python", says)


def judge(health: Health, settings: Settings) -> Iterator[Finding]:
    """Everything that can be said of a database but whether notifications arrive."""
    server = health.server
    yield from judge_server(server, settings)
    yield from judge_durability(server)
    yield judge_clock(health.clock_ahead_seconds)
    yield judge_distance(health.round_trip_seconds)
    yield judge_sessions(health)
    yield judge_schema(health)
    yield judge_rights(health, settings)


def judge_server(server: Server, settings: Settings) -> Iterator[Finding]:
    says = f"PostgreSQL {server.version}, database {server.database}"
    if server.version_number < OLDEST_SERVER:
        yield wrong("server", says, "Operon needs PostgreSQL 14 or newer")
    elif server.read_only:
        yield wrong("server", f"{says}: read-only", "point database_url at the primary")
    else:
        yield ok("server", says)
    wanted = settings.workers * (settings.pool_size + RUNTIME_CONNECTIONS)
    if server.connections < wanted:
        yield wrong(
            "connections",
            f"the server takes {server.connections}, one start of this application up to {wanted}",
            "lower pool_size or workers, or raise the server's max_connections",
        )
    else:
        yield ok("connections", f"{server.connections}, of which one start takes up to {wanted}")


def judge_durability(server: Server) -> Iterator[Finding]:
    if server.fsync:
        yield ok("fsync", "on")
    else:
        yield wrong("fsync", "off: a power cut destroys the database", "set fsync = on in postgresql.conf")
    match server.synchronous_commit:
        case "off":
            yield wrong(
                "synchronous_commit",
                "off: a crash of the server forgets steps whose effects have happened",
                f"alter role {quoted(server.role)} set synchronous_commit = on",
            )
        case setting:
            yield ok("synchronous_commit", setting)
    if server.full_page_writes:
        yield ok("full_page_writes", "on")
    else:
        yield warning(
            "full_page_writes",
            "off: a power cut can tear pages",
            "set full_page_writes = on, unless the file system writes pages atomically, as ZFS does",
        )


def judge_clock(ahead_seconds: float) -> Finding:
    if abs(ahead_seconds) < CLOCK_SECONDS:
        return ok("clock", f"{abs(ahead_seconds):.3f} s apart")
    return warning(
        "clock",
        f"the server's is {abs(ahead_seconds):.1f} s {'ahead of' if ahead_seconds > 0 else 'behind'} this machine's",
        "synchronize both by NTP; nothing is lost meanwhile, but times of logs and of the database do not compare",
    )


def judge_distance(seconds: float) -> Finding:
    says = f"{seconds * 1000:.1f} ms"
    if seconds < SLOW_SECONDS:
        return ok("round trip", says)
    return warning("round trip", says, "every step waits for it: run the application near its database")


def judge_sessions(health: Health) -> Finding:
    if health.shared:
        return ok("sessions", "through a pooler in transaction mode, such as PgBouncer")
    if health.pooled:
        return ok("sessions", "through a pooler")
    if health.refused is None:
        return ok("sessions", "directly to the server")
    return wrong("sessions", f"refused with the runtime's session settings: {health.refused}", None)


def judge_schema(health: Health) -> Finding:
    present, known = health.schema, health.known
    version = f"version {present[-1]}" if present else "not there yet"
    if present == known:
        return ok("schema", version)
    if present and present[-1] > known[-1]:
        return wrong("schema", f"{version}, of a newer Operon than this one ({known[-1]})", "upgrade this installation")
    if health.server.may_create:
        return ok("schema", f"{version}; the next start brings it to {known[-1]}")
    return wrong(
        "schema",
        f"{version}, this Operon needs {known[-1]}, and role {health.server.role} may not migrate",
        "run `operon migrate` with a role that may; `operon migrate --print-grants` sets up two",
    )


def judge_rights(health: Health, settings: Settings) -> Finding:
    role = health.server.role
    if health.missing_rights:
        shown = ", ".join(health.missing_rights[:4]) + (", ..." if len(health.missing_rights) > 4 else "")
        return wrong("rights", f"role {role} lacks: {shown}", "`operon migrate --print-grants` prints what to grant")
    if health.server.superuser and settings.env == "production":
        return warning(
            "rights",
            f"role {role} is a superuser: an error in the application may do anything",
            "`operon migrate --print-grants` prints the least that is needed",
        )
    return ok("rights", f"role {role} has all that the runtime needs")


def judge_notifications(heard: bool, pooled: bool) -> Finding:
    """Whether executors hear one another."""
    if heard:
        return ok("notifications", "heard")
    if pooled:
        return wrong(
            "notifications",
            "sent and not heard: the pooler in between gives sessions to others",
            "set direct_url to the server itself, beside database_url; or notify=off, to poll instead",
        )
    return wrong("notifications", "sent and not heard", "do database_url and direct_url lead to the same database?")


def quoted(name: str) -> str:
    """An identifier in SQL."""
    return '"' + name.replace('"', '""') + '"'
