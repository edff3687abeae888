"""Looking at workflows from outside: for the command line, and whoever else asks without taking part.

The rule: looking changes nothing and holds nobody up. The transaction is read-only, every question has a time limit and
a row limit, and nothing is counted. It works through any pooler, as an operator may have no other way in.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from operon.database.connection import Connection, close, connect_at_start, describe
from operon.database.sql import statements
from operon.errors import DatabaseUnavailable, DatabaseUnusable, NonExistentWorkflowError
from operon.status import Status

SQL = statements("inspect.sql")

ANSWER_SECONDS = 30

# For the transaction only, as a pooler in between may give the session to others after it.
READ_ONLY = (
    f"set transaction isolation level repeatable read, read only; set local statement_timeout = '{ANSWER_SECONDS}s'"
)


class Filter(msgspec.Struct, frozen=True):
    """Which workflows to look at; None for any."""

    statuses: Sequence[Status] | None = None
    name: str | None = None
    user: str | None = None
    since: datetime | None = None  # when they were started


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """A workflow in a list."""

    workflow_uuid: UUID
    name: str
    status: Status
    user: str | None
    created_at: datetime
    updated_at: datetime
    attempts: int  # how often it was claimed
    version: str  # of the application that started it
    executor: str | None  # who runs it, or ran it last
    waiting_for: str | None


class Details(Listed, frozen=True, kw_only=True):
    """Everything about one workflow but its steps. Payloads are JSON text, as stored."""

    assumed_role: str | None
    roles: list[str]
    request: str | None
    parent: UUID | None
    parent_step: int | None
    wake_at: datetime | None  # when what it waits for is given up
    deadline: datetime | None  # cancelled when it is not finished by then
    crashes: int  # without progress since
    inputs: str
    output: str | None
    error: str | None


class Step(msgspec.Struct, frozen=True):
    """One recorded step. Payloads are JSON text, as stored."""

    step: int
    kind: str
    name: str
    started_at: datetime | None
    completed_at: datetime
    attempts: int
    output: str | None
    error: str | None


@asynccontextmanager
async def looking(url: str) -> AsyncGenerator[Connection]:
    """A connection for questions about one moment. Raises DatabaseUnusable and DatabaseUnavailable, with what to do."""
    connection = await connect_at_start(url, {"application_name": "operon look"}, pooled=True)
    try:
        async with connection.transaction():
            await connection.execute(READ_ONLY)
            yield connection
    except (asyncpg.InvalidSchemaNameError, asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError) as error:
        raise DatabaseUnusable(
            f"the schema is not there, or older than this Operon: {error}",
            hint="`operon migrate` brings it up to date; is it the right database?",
        ) from error
    except asyncpg.InsufficientPrivilegeError as error:
        raise DatabaseUnusable(
            f"this database role may not look: {error}", hint="`operon migrate --print-grants` says what it needs"
        ) from error
    except (asyncpg.QueryCanceledError, TimeoutError) as error:
        raise DatabaseUnavailable(
            f"the database had no answer within {ANSWER_SECONDS} s", hint="narrow the question, or ask again later"
        ) from error
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        raise DatabaseUnavailable(
            f"the database gave no answer: {describe(error, url)}", hint="nothing was changed; ask again"
        ) from error
    finally:
        await close(connection)


async def page(connection: Connection, filter: Filter, limit: int, before: UUID | None = None) -> list[Listed]:
    """Workflows, newest first; those that come after the workflow `before`, which ended the last page.

    Raises NonExistentWorkflowError when there is no workflow `before`.
    """
    place: datetime | None = None
    if before is not None:
        place = await connection.fetchval(SQL["place"], before)
        if place is None:
            raise unknown(before)
    codes = None if filter.statuses is None else [status.code for status in filter.statuses]
    arguments = (codes, filter.name, filter.user, filter.since, place, before, limit)
    return [Listed(**listed(row)) for row in await connection.fetch(SQL["page"], *arguments)]


async def details(connection: Connection, workflow_uuid: UUID) -> Details:
    """Everything about one workflow. Raises NonExistentWorkflowError."""
    row = await connection.fetchrow(SQL["details"], workflow_uuid)
    if row is None:
        raise unknown(workflow_uuid)
    return Details(
        **listed(row),
        assumed_role=row["assumed_role"],
        roles=row["authenticated_roles"] or [],
        request=text(row["request"]),
        parent=row["parent"],
        parent_step=row["parent_step"],
        wake_at=row["wake_at"],
        deadline=row["deadline"],
        crashes=row["crash_count"],
        inputs=text(row["inputs"]) or "",
        output=text(row["output"]),
        error=text(row["error"]),
    )


async def steps(connection: Connection, workflow_uuid: UUID, limit: int, after: int = -1) -> list[Step]:
    """The recorded steps that come after step `after`. Raises NonExistentWorkflowError."""
    rows = await connection.fetch(SQL["steps"], workflow_uuid, after, limit)
    if not rows and await connection.fetchval(SQL["place"], workflow_uuid) is None:
        raise unknown(workflow_uuid)
    return [Step(row[0], row[1] or "?", *tuple(row)[2:]) for row in rows]


def listed(row: asyncpg.Record) -> dict[str, Any]:
    """The columns that every look at a workflow has."""
    place = "" if row["host"] is None else f"{row['host']}:{row['pid']}"  # forgotten when it is long dead
    executor = None if row["owner"] is None else f"{place}#{row['owner']}"
    return {
        "workflow_uuid": UUID(bytes=row["workflow_uuid"].bytes),  # not the driver's own subclass
        "name": row["name"],
        "status": Status.from_code(row["status"]),
        "user": row["authenticated_user"],
        "created_at": row["created_at"],
        "updated_at": row["updated_at"],
        "attempts": row["epoch"],
        "version": row["version"],
        "executor": executor,
        "waiting_for": row["wait_what"],
    }


def text(payload: bytes | None) -> str | None:
    """A stored payload as text; what is none is shown as far as it goes."""
    return None if payload is None else payload.decode(errors="backslashreplace")


def unknown(workflow_uuid: UUID) -> NonExistentWorkflowError:
    return NonExistentWorkflowError(
        f"there is no workflow {workflow_uuid}", hint="is it the right database? `operon config show` says which it is"
    )
