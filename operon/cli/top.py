"""`operon top`: every executor, what it does, what is in trouble and what happened last; again every second or two.

It reads the database, not HTTP, so it needs nothing but its address. While that is away, what was seen last stays, with
what is wrong above it.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import click
import msgspec
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from operon.cli.database import address, configured, database_option
from operon.cli.output import cell, escaped, json_option, print_json, print_rich
from operon.database import inspect, supervision
from operon.database.reasons import cluster_of, state_of
from operon.database.supervision import READY_MAX, Commits, ExecutorRow, Node, Numbers, Recorded, Suspension
from operon.errors import OperonError
from operon.explain.words import ago, brief, duration
from operon.runtime.loop import run

EVENTS = 12
TROUBLED_MAX = 12
STATE_STYLES = {"alive": "green", "suspect": "yellow", "draining": "yellow", "dead": "red"}
SEVERITY_STYLES = {0: "", 1: "yellow", 2: "red"}


class Seen(msgspec.Struct, frozen=True):
    """What there was to see at a moment."""

    numbers: Numbers
    executors: Sequence[ExecutorRow]
    suspended: Sequence[Suspension]
    events: Sequence[Recorded]


@click.command()
@click.option("--once", is_flag=True, help="Show it once, and end.")
@click.option("--every", type=click.FloatRange(0.5, 3600), default=2.0, show_default=True, help="Seconds in between.")
@database_option
@json_option
def top(once: bool, every: float, database_url: str | None, as_json: bool) -> None:
    """Shows executors, what they do, and what happened last, until Ctrl-C."""
    if as_json:
        print_json(plain(run(looked(database_url))))
    elif once or not sys.stdout.isatty():
        for table in tables(run(looked(database_url))):
            print_rich(table, sys.stdout.isatty())
            click.echo()
    else:
        with contextlib.suppress(KeyboardInterrupt):
            run(watched(database_url, every))


async def looked(database_url: str | None) -> Seen:
    """One look, on a connection of its own: who watches for hours holds none in between."""
    async with inspect.looking(await address(configured(database_url).settings)) as connection:
        return Seen(
            await supervision.numbers(connection),
            await supervision.executors(connection),
            await supervision.suspensions(connection),
            await supervision.events(connection, EVENTS),
        )


async def watched(database_url: str | None, every: float) -> None:
    """Looks again and again."""
    seen = await looked(database_url)
    with Live(
        Group(*tables(seen)), console=Console(highlight=False, markup=False), screen=True, auto_refresh=False
    ) as live:
        while True:
            await asyncio.sleep(every)
            try:
                seen = await looked(database_url)
            except OperonError as error:
                wrong = Text(escaped(f"{error.message}; this is what was seen last"), style="bold red")
                live.update(Group(wrong, *tables(seen)), refresh=True)
            else:
                live.update(Group(*tables(seen)), refresh=True)


def plain(seen: Seen) -> dict[str, Any]:
    """All of it, for scripts."""
    now = seen.numbers.now
    return {
        "at": now,
        "parked": {"n": seen.numbers.parked, "estimate": True, "analyzed_at": seen.numbers.analyzed_at},
        "ready": {"n": min(seen.numbers.ready, READY_MAX), "capped": seen.numbers.ready > READY_MAX},
        "executors": [{**msgspec.structs.asdict(row), "state": state_of(row, now)} for row in seen.executors],
        "suspended": seen.suspended,
        "events": seen.events,
    }


def tables(seen: Seen) -> list[Table]:
    """What people see."""
    found = [summary(seen), executors(seen)]
    if troubled := list(troubles(seen)):
        found.append(listed(("in trouble", "state", "again in", "last exit"), troubled[:TROUBLED_MAX]))
    if seen.events:
        found.append(events(seen.events, seen.numbers.now))
    return found


def summary(seen: Seen) -> Table:
    numbers = seen.numbers
    parked = "not known yet" if numbers.parked is None else f"about {numbers.parked:,}"
    ready = f"over {READY_MAX:,}" if numbers.ready > READY_MAX else f"{numbers.ready:,}"
    live = sum(row.said.live for row in seen.executors if row.said is not None and row.state != 2)
    cluster = cluster_of(seen.executors, seen.suspended, numbers.now, None)
    working = sum(place.counts for place in cluster.places.values())
    return listed(
        ("executors", "live", "ready", "parked", "suspended", "at"),
        [(working, f"{live:,}", ready, parked, ", ".join(each.name for each in seen.suspended) or "none", numbers.now)],
    )


def executors(seen: Seen) -> Table:
    now = seen.numbers.now
    rows: list[tuple[object, ...]] = []
    for row in seen.executors:
        state = state_of(row, now)
        fields: list[object] = [row.incarnation, Text(state, STATE_STYLES[state]), ago(row.started_at, now)]
        said = row.said
        if said is None:
            fields += [""] * 7
        else:
            listener = said.listener
            heard = listener.state if listener.ping_ms is None else f"{listener.state} {listener.ping_ms:.1f} ms"
            fields += [
                f"{said.live:,} of {said.max_live:,}",
                f"{said.parked:,}",
                f"{said.ready:,}",
                "" if said.lag_p99_ms is None else f"{said.lag_p50_ms:.1f} / {said.lag_p99_ms:.1f} ms",
                "" if said.rss_bytes is None else f"{said.rss_bytes / 1e6:.0f} MB",
                ""
                if said.commits.ms_mean is None
                else f"{said.commits.records_mean:.0f} in {said.commits.ms_mean:.1f} ms",
                heard,
            ]
        fields += [row.version, f"{row.host}:{row.pid}"]
        rows.append(tuple(fields))
    headers = (
        "executor",
        "state",
        "up",
        "live",
        "parked",
        "ready",
        "loop late",
        "memory",
        "commit",
        "hears",
        "version",
        "process",
    )
    return listed(headers, rows)


def committed(commits: Commits) -> str:
    if commits.records_mean is None or commits.ms_mean is None:
        return ""
    return f"{commits.records_mean:.0f} in {commits.ms_mean:.1f} ms"


def troubles(seen: Seen) -> Iterable[tuple[object, ...]]:
    """Whatever is not as it should be, in any tree."""
    for row in seen.executors:
        if row.said is not None and row.state != 2:
            yield from troubled(row.said.tree, row.said.at, "")


def troubled(node: Node, at: float, above: str) -> Iterable[tuple[object, ...]]:
    path = f"{above}/{node.name}" if above else node.name
    if node.state not in ("running", "finished"):
        again = "" if node.backoff_until is None else duration(node.backoff_until - at)
        exit = " ".join(part for part in (node.last_exit, node.last_error) if part)
        yield path, Text(node.state, "red"), again, exit
    for child in node.children:
        yield from troubled(child, at, path)


def events(recorded: Sequence[Recorded], now: datetime) -> Table:
    rows: list[tuple[object, ...]] = []
    for event in recorded:
        kind = Text(event.kind.replace("_", " "), SEVERITY_STYLES.get(event.severity, ""))
        workflow = None if event.workflow_uuid is None else brief(event.workflow_uuid)
        rows.append((f"{ago(event.at, now)} ago", kind, event.executor, workflow, event.text))
    return listed(("when", "what", "executor", "workflow", "event"), rows)


def listed(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """A table in which the last column gives way."""
    table = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    for position, header in enumerate(headers):
        table.add_column(header, no_wrap=position < len(headers) - 1, overflow="fold")
    for row in rows:
        shown: list[RenderableType] = [value if isinstance(value, Text) else cell(value) for value in row]
        table.add_row(*shown)
    return table
