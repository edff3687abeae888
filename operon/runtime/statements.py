"""One-statement transactions: `ctx.execute(...)` and its siblings, run inside the committer's batch.

The statement and its checkpoint commit together with everybody else's, so that thousands of them share one fsync.
Equal statements of one batch travel together, each wrapped so that its rows carry their number. Whatever goes wrong,
the batch is rolled back and its statements leave it: each then runs as an ordinary transaction, where errors, conflicts
and waits for locks are its own.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from operon.codec import Codec
from operon.database.batch import Batch
from operon.database.connection import Connection
from operon.database.writer import Writer
from operon.rows import Row

SQL_STEP = 8  # the kind of its checkpoints

OUTPUT: Codec[Any] = Codec(Any, "the result of a statement")


class Statement:
    """One statement of one workflow, and what became of it."""

    __slots__ = ("args", "mode", "moved", "output", "seen", "sql", "started", "step", "value", "workflow_uuid")

    def __init__(
        self,
        workflow_uuid: UUID,
        step: int,
        seen: str | None,
        mode: str,
        sql: str,
        args: tuple[Any, ...],
        started: float,
    ) -> None:
        self.workflow_uuid = workflow_uuid
        self.step = step
        self.seen = seen
        self.mode = mode
        self.sql = sql.strip().rstrip(";")
        self.args = args
        self.started = started
        self.value: Any = None
        self.output = b""
        self.moved = False  # it left the batch: it runs as a transaction of its own

    async def run_alone(self, client: Any) -> tuple[bytes, Any]:
        """The statement as the body of an ordinary transaction."""
        if self.mode == "execute":
            return settle(self.mode, (), [], await client.execute(self.sql, *self.args))
        rows = await client.fetch(self.sql, *self.args)
        columns = tuple(rows[0].keys()) if rows else ()
        return settle(self.mode, columns, [tuple(row) for row in rows], "")

    @property
    def name(self) -> str:
        """What its checkpoint is called."""
        return name_of(self.sql)

    def settle(self, columns: tuple[str, ...], rows: list[tuple[Any, ...]], status: str) -> None:
        """Shapes what came back for the mode it was asked in, as a replay will give it."""
        self.output, self.value = settle(self.mode, columns, rows, status)


def settle(mode: str, columns: tuple[str, ...], rows: list[tuple[Any, ...]], status: str) -> tuple[bytes, Any]:
    """The stored form and the value of a result. Raises OutputError for a value that cannot be stored."""
    plain = [[plain_value(value) for value in row] for row in rows]
    stored: Any
    match mode:
        case "execute":
            stored = status
        case "fetchval":
            stored = plain[0][0] if plain else None
        case "fetchrow":
            stored = [list(columns), plain[0]] if plain else None
        case _:
            stored = [list(columns), *plain]
    output = OUTPUT.encode(stored)
    return output, decode(mode, output)


def name_of(sql: str) -> str:
    """What the checkpoint of a statement is called: enough of the text to tell it from another."""
    return sql.strip().rstrip(";")[:60]


def decode(mode: str, output: bytes) -> Any:
    """The value of a stored result."""
    return shape(mode, OUTPUT.decode(output))


def shape(mode: str, stored: Any) -> Any:
    """The value of a stored result: what a replay answers."""
    match mode:
        case "fetchrow":
            return None if stored is None else Row(tuple(stored[0]), tuple(stored[1]))
        case "fetch":
            return [Row(tuple(stored[0]), tuple(row)) for row in stored[1:]]
        case _:
            return stored


def plain_value(value: Any) -> Any:
    """asyncpg's own UUID class is faster than the standard one and equal to it, but another type."""
    return UUID(int=value.int) if isinstance(value, UUID) else value


async def run_statements(writer: Writer, batch: Batch) -> None:
    """Runs the statements of a batch in a transaction that its flush then is part of, and adds their checkpoints."""
    batch.forget_added()
    connection = await writer.begin()
    groups: dict[tuple[str, bool], list[Statement]] = {}
    for statement in batch.statements:
        groups.setdefault((statement.sql, statement.mode == "execute"), []).append(statement)
    for (sql, counted), members in groups.items():
        await run_group(writer.shapes, connection, sql, counted, members)
    for s in batch.statements:
        batch.checkpoint(s.workflow_uuid, s.step, SQL_STEP, s.name, s.output, s.started, seen=s.seen)
        batch.added += 1


class Shape:
    """What the server says of a statement once: how it is wrapped, and what its columns are called."""

    __slots__ = ("columns", "verb", "wrapped")

    def __init__(self, sql: str, counted: bool, parameters: int, columns: tuple[str, ...]) -> None:
        self.columns = columns
        self.verb = sql.split(None, 1)[0].upper()
        number = f"${parameters + 1}::integer"
        body = sql if columns else f"{sql} returning 1"
        picked = "count(*)" if counted or not columns else "operon_step.*"
        self.wrapped = f"with operon_step as ({body}) select {number} as operon_row, {picked} from operon_step"  # noqa: S608


async def run_group(
    shapes: dict[tuple[str, bool], Any], connection: Connection, sql: str, counted: bool, members: list[Statement]
) -> None:
    """Runs one statement with many arguments in one round trip."""
    known: Shape | None = shapes.get((sql, counted))
    if known is None:
        prepared = await connection.prepare(sql)
        columns = tuple(attribute.name for attribute in prepared.get_attributes())
        known = shapes[sql, counted] = Shape(sql, counted, len(prepared.get_parameters()), columns)
    rows: list[Any] = await connection.fetchmany(known.wrapped, [(*member.args, n) for n, member in enumerate(members)])
    if counted or not known.columns:
        verb = "INSERT 0" if known.verb == "INSERT" else known.verb
        for row in rows:
            position: int = row[0]
            members[position].settle((), [], f"{verb} {row[1]}")
        return
    by_member: list[list[tuple[Any, ...]]] = [[] for _ in members]
    for row in rows:
        number: int = row[0]
        by_member[number].append(tuple(row)[1:])
    for member, found in zip(members, by_member, strict=True):
        member.settle(known.columns, found, "")
