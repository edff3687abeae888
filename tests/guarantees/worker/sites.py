"""Every message to Postgres has a label, and the process dies at the one that it was told to.

asyncpg makes each connection's protocol from `asyncpg.protocol.Protocol`, so a subclass in its place sees every message
that is sent to the server, whoever asked for it. `before` dies before it is sent; `after` dies when it was answered and
nobody knows yet; `held` never sends it, lets the rest of the process go on for a moment, and dies then: whoever should
have waited for the answer and did not gives himself away. SIGSTOP in place of SIGKILL makes a process that is not dead,
CUT one that lives on without the connection: cut `after`, it never hears the answer. SLOW is late, and nothing else.

The one exchange without a label is the opening of a connection: nothing is written by it.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import Sequence
from typing import Any, Literal

import asyncpg
import asyncpg.protocol
import msgspec

from operon.database import checkpoints, executors, monitors, notifications, supervision, workflows
from operon.database.writer import FLUSH

EXCHANGES = (
    "prepare",
    "bind",
    "execute",
    "bind_execute",
    "bind_execute_many",
    "query",
    "copy_in",
    "copy_out",
    "close_statement",
    "close_portal",
)

NAMES = {
    text: f"{table}.{name}"
    for table, module in (
        ("executors", executors),
        ("supervision", supervision),
        ("workflows", workflows),
        ("checkpoints", checkpoints),
        ("notifications", notifications),
        ("monitors", monitors),
        ("supervision", supervision),
    )
    for name, text in module.SQL.items()
} | {FLUSH: "flush"}
COMMIT = re.compile(r"execute operon_checkpoint \('\w+', \d+, \d+, \d+, '\\x(\w+)'")
NUMBER = re.compile(r"(?<=[_ :])\d+")

# Where the arguments of a flush say what is in it: names of starts, numbers and names of steps, UUIDs of what ends;
# workflows that received or go on, keys of events, topics of messages, what parked workflows wait for.
STARTS, PARKED, NUMBERS, STEPS, ENDS = 5, 15, 20, 22, 28
RECEIVED, UNPARKED, EVENTS, TOPICS, PARKS = 33, 35, 38, 44, 54

When = Literal["before", "after", "held"]

ANY = "any message"


class Site(msgspec.Struct, frozen=True):
    """One message of a process: the n-th of its label, or of all from `since` on, and when to strike."""

    label: str
    when: When = "before"
    nth: int = 1
    signal: Literal["SIGKILL", "SIGSTOP", "CUT", "SLOW"] = "SIGKILL"
    seconds: float = 0.25  # how long a message is held, or slow
    since: str = ""  # with ANY: the label of the message that is the first

    def __str__(self) -> str:
        return f"{self.signal} {self.when} {self.label} #{self.nth}"


def install(sites: Sequence[Site], trace: str | None) -> None:
    """Strikes at each of the sites, from the next connection on; writes the label of every message to `trace`."""
    seen: dict[str, int] = {}
    counted = [0 for _ in sites]
    file = os.open(trace, os.O_WRONLY | os.O_APPEND | os.O_CREAT) if trace else None

    def watched(name: str) -> Any:
        exchange = getattr(asyncpg.protocol.Protocol, name)

        async def method(self: Any, *args: Any, **kwargs: Any) -> Any:
            label = label_of(name, (*args, *kwargs.values()))
            nth = seen[label] = seen.get(label, 0) + 1
            if file is not None:
                os.write(file, f"{label}\n".encode())
            for number, first in enumerate(sites):
                if first.label == ANY and (counted[number] or first.since == label):
                    counted[number] += 1
            site = next(
                (
                    site
                    for site, count in zip(sites, counted, strict=True)
                    if (site.label, site.nth) == (label, nth) or (site.label == ANY and site.nth == count)
                ),
                None,
            )
            if site is not None and site.when != "after":
                await strike(site, self)
            answer = await exchange(self, *args, **kwargs)
            if site is not None and site.when == "after":
                await strike(site, self)
            return answer

        return method

    methods = {name: watched(name) for name in EXCHANGES}
    module: Any = asyncpg.protocol
    module.Protocol = type("WatchedProtocol", (asyncpg.protocol.Protocol,), methods)


async def strike(site: Site, connection: Any) -> None:
    if site.when == "held" or site.signal == "SLOW":
        await asyncio.sleep(site.seconds)
    match site.signal:
        case "SLOW":
            pass
        case "CUT":
            connection.abort()
            raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")
        case name:
            os.kill(os.getpid(), getattr(signal, name))


def label_of(exchange: str, args: tuple[Any, ...]) -> str:
    """What a message is, in words that are the same in every run."""
    match exchange:
        case "query":
            return text_label(args[0])
        case "prepare":
            return f"prepare {text_label(args[1])}"
        case "bind_execute" if args[0].query == FLUSH:
            return flush_label(args[1])
        case "bind_execute" | "bind_execute_many":
            return text_label(args[0].query)
        case _:
            return f"{exchange} {text_label(args[0].query)}"


def text_label(text: str) -> str:
    if text in NAMES:
        return NAMES[text]
    if commit := COMMIT.match(text):
        return f"commit with checkpoint {bytes.fromhex(commit[1]).decode()}"
    return NUMBER.sub("N", " ".join(text.split()))[:70].strip()


def flush_label(args: Any) -> str:
    parts = [f"start {name}" for name in args[STARTS] or ()]
    parts += ["parked" for kind in args[PARKED] or () if kind is not None]
    for number, name in zip(args[NUMBERS] or (), args[STEPS] or (), strict=True):
        parts.append(name[:45] if number >= 0 else f"call {name}")
    for what, column in (("end", ENDS), ("received", RECEIVED), ("unpark", UNPARKED)):
        parts += [what] * (args[column].count(",") + 1 if args[column] else 0)  # of the text of an array
    parts += [f"event {key}" for key in args[EVENTS] or ()]
    parts += [f"send {topic or ''}".rstrip() for topic in args[TOPICS] or ()]
    parts += [f"park {NUMBER.sub('N', what)[:20]}" for what in args[PARKS] or ()]
    return f"flush {' + '.join(parts)}"
