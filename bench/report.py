"""Figures as a table: one row per cell, read on a terminal and pasted into the README as it is.

The ratios are what counts. Absolute figures belong to the machine named above the table.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from bench.cells import Figures
from bench.messaging import LOADS, Passage
from bench.recovery import Recovery
from bench.requests import Requests
from bench.waiting import Crowd

FLOOR, PEER = "floor", "dbos"
SYSTEMS = ("operon", PEER, FLOOR, "floor batched")
OPEN, CLOSE = "<!-- results: written by `python -m bench --write` -->", "<!-- end of results -->"

HEADERS = (
    *("system", "load", "conc.", "wf/s", "p50 ms", "p99 ms", "x DBOS", "x floor", "commits", "transactions"),
    *("WAL B", "round trips", "client us", "server us", "other cores"),
)
# DBOS has no one-statement step, so what a user would write there in W3sql's place is W3.
COMPARED_WITH = {"W3sql": "W3"}


def table(figures: Sequence[Figures]) -> str:
    """All cells, in the order of workload and concurrency."""
    speed = {(f.system, f.workload, f.concurrency): f.workflows_per_second for f in figures}
    ordered = sorted(figures, key=lambda f: (f.workload, f.concurrency, SYSTEMS.index(f.system)))
    return markdown(HEADERS, (row(f, speed) for f in ordered))


def row(f: Figures, speed: Mapping[tuple[str, str, int], float]) -> tuple[str, ...]:
    peer = speed.get((PEER, COMPARED_WITH.get(f.workload, f.workload), f.concurrency))
    floor = speed.get((FLOOR, f.workload, f.concurrency))
    return (
        *(f.system, f.workload, str(f.concurrency), number(f.workflows_per_second)),
        *(number(f.p50_ms), number(f.p99_ms)),
        *(ratio(f.workflows_per_second, peer), ratio(f.workflows_per_second, floor)),
        *(number(f.commits), number(f.transactions), number(f.wal_bytes), number(f.round_trips)),
        *(number(f.client_cpu_us), number(f.server_cpu_us), number(f.other_cores)),
    )


def messages_table(passages: Sequence[Passage]) -> str:
    headers = ("W4, W7", "load", "messages", "p50 ms", "p99 ms", "x faster than DBOS", "x floor")
    peer = {passage.load.split()[0]: passage.p50_ms for passage in passages if passage.system == PEER}
    floor = {passage.load: passage.p50_ms for passage in passages if passage.system == FLOOR}
    ordered = sorted(passages, key=lambda p: (LOADS.index(p.load), SYSTEMS.index(p.system)))
    rows = []
    for p in ordered:
        faster = ratio(peer.get(p.load.split()[0], 0.0), p.p50_ms) if peer.get(p.load.split()[0]) else "-"
        above = ratio(p.p50_ms, floor[p.load]) if p.load in floor else "-"
        rows.append((p.system, p.load, f"{p.count:,}", number(p.p50_ms), number(p.p99_ms), faster, above))
    return markdown(headers, rows)


def waiting_table(crowds: Sequence[Crowd]) -> str:
    headers = (
        *("W5", "waiting", "workflows", "started /s", "parked /s", "bytes each", "before MB"),
        *("woken and finished, s", "wf/s"),
    )
    rows = (
        (
            *(c.system, c.role, f"{c.workflows:,}", number(c.started_per_second), number(c.parked_per_second)),
            *(number(c.bytes_each), number(c.resident_bytes / 1e6)),
            *(number(c.finished_seconds), number(c.finished_per_second)),
        )
        for c in crowds
    )
    return markdown(headers, rows)


def recovery_table(recoveries: Sequence[Recovery]) -> str:
    headers = (
        "W6",
        "workflows",
        "since the kill, s",
        "since launched, s",
        "since known dead, s",
        "wf/s since launched",
    )
    rows = (
        (
            *(r.system, f"{r.workflows:,}", number(r.killed), number(r.launched), number(r.dead)),
            number(r.workflows / max(r.launched, 0.001)),
        )
        for r in recoveries
    )
    return markdown(headers, rows)


def requests_table(requests: Sequence[Requests]) -> str:
    headers = ("W8", "route", "conc.", "requests/s", "p50 ms", "p99 ms", "server us", "x bare", "x DBOS")
    speed = {(one.system, one.route): one.requests_per_second for one in requests}
    rows = (
        (
            *(one.system, one.route, str(one.connections), number(one.requests_per_second)),
            *(number(one.p50_ms), number(one.p99_ms), number(one.server_cpu_us)),
            ratio(one.requests_per_second, speed.get((one.system, "bare"))),
            ratio(one.requests_per_second, speed.get((PEER, one.route))),
        )
        for one in requests
    )
    return markdown(headers, rows)


def markdown(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in columns as wide as their widest cell; the first holds names, the others figures."""
    lines = [tuple(headers), *map(tuple, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headers))]

    def padded(line: Sequence[str]) -> str:
        cells = [
            line[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)),
        ]
        return f"| {' | '.join(cells)} |"

    rule = f"|{'|'.join([':' + '-' * (widths[0] + 1), *('-' * (width + 1) + ':' for width in widths[1:])])}|"
    return "\n".join([padded(lines[0]), rule, *map(padded, lines[1:])])


def number(value: float | None) -> str:
    """Three digits that mean something: 40,512 and 99.3 and 0.30."""
    if value is None:
        return "-"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def ratio(value: float, other: float | None) -> str:
    return "-" if not other else f"{number(value / other)}x"


def facts_line(facts: Mapping[str, str]) -> str:
    """The machine and the settings, in one line."""
    return ", ".join(f"{name} {value}" for name, value in facts.items())


def write_results(readme: Path, results: str) -> None:
    """Replaces what stands between the two markers."""
    before, rest = readme.read_text().split(OPEN)
    _, after = rest.split(CLOSE)
    readme.write_text(f"{before}{OPEN}\n\n{results}\n\n{CLOSE}{after}")
